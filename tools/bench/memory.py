"""What a train step keeps for its backward pass: predicted, as `rnn.py summary --memory` does, beside measured.

    python tools/bench/memory.py [CASE ...]

Measured is the heap when the backward pass begins: a probe runs behind the objective, and everything of the backward
pass behind the probe, but for what only asks for shapes. Each case has a process of its own. Linux with glibc.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import tensorflow as tf

from returnn_lite.cli.loading import load
from returnn_lite.compiled import Compiled
from returnn_lite.compiler import build, optimized
from returnn_lite.memory.kept import train_step
from returnn_lite.memory.sizes import batch_sizes

TOP = Path(__file__).resolve().parents[2]
RUNS = 5
ENVIRONMENT = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTEROP_THREADS": "2"}
"""All of TensorFlow's memory is the heap's, and while the probe waits something else can run."""
SETTLED = 0.1
"""Seconds until what is left of the forward pass has finished in other threads: loops free what they read last."""
BATCH, FRAMES, SIZE = 32, 100, 512
ATTENTION = {"target": 30, "source": 50, "vocabulary": 100, "input": 64}
CONFIGS = {"batch": 64, "data": 14, "classes": 12}


@dataclass(frozen=True)
class Case:
    """A config, and a batch of sequences that are all of the given lengths, by data key."""

    config: Mapping[str, Any]
    batch: int
    lengths: Mapping[str, int]


def layers_of(unit: str, count: int = 1) -> Case:
    """Recurrent layers of one size on top of each other, with the sum of the outputs as the loss."""
    sources = ["data", *(f"layer{i}" for i in range(count))]
    network: dict[str, Any] = {
        name: {"class": "rec", "unit": unit, "from": source, "n_out": SIZE} for source, name in pairwise(sources)
    }
    network["output"] = {"class": "copy", "from": sources[-1], "loss": "as_is"}
    extern = {"data": {"dim": SIZE}}
    return Case({"network": network, "extern_data": extern, "behavior_version": 21}, BATCH, {"data": FRAMES})


def attention() -> Case:
    """An LSTM decoder with MLP attention over encoder frames."""
    linear = {"class": "linear", "activation": None, "n_out": SIZE}
    unit = {
        "output": {"class": "choice", "from": "output_prob", "target": "classes", "beam_size": 12, "initial_output": 0},
        "embed": {**linear, "from": "output", "initial_output": 0},
        "s": {"class": "rnn_cell", "unit": "LSTMBlock", "from": ["prev:embed", "prev:att"], "n_out": SIZE},
        "s_tr": {**linear, "from": "s", "with_bias": False},
        "e_in": {"class": "combine", "kind": "add", "from": ["base:enc_ctx", "s_tr"]},
        "e_tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
        "e": {**linear, "from": "e_tanh", "n_out": 1, "with_bias": False},
        "w": {"class": "softmax_over_spatial", "from": "e"},
        "att0": {"class": "generic_attention", "weights": "w", "base": "base:encoder"},
        "att": {"class": "merge_dims", "axes": "except_batch", "from": "att0"},
        "readout": {**linear, "from": ["s", "prev:embed", "att"], "activation": "relu"},
        "output_prob": {"class": "softmax", "from": "readout", "target": "classes", "loss": "ce"},
    }
    network = {
        "encoder": {**linear, "from": "data", "activation": "tanh"},
        "enc_ctx": {**linear, "from": "encoder"},
        "output": {"class": "rec", "from": [], "target": "classes", "unit": unit},
    }
    labels = {"dim": ATTENTION["vocabulary"], "sparse": True, "available_for_inference": False}
    extern = {"data": {"dim": ATTENTION["input"]}, "classes": labels}
    config = {"network": network, "extern_data": extern, "behavior_version": 21, "target": "classes"}
    return Case(config, BATCH, {"data": ATTENTION["source"], "classes": ATTENTION["target"]})


def published(name: str) -> Case:
    """A config of the folder `configs`."""
    config = load(str(TOP / "configs" / f"{name}.yaml"), []).data
    keys = config["extern_data"]
    as_data = [key for key, options in keys.items() if key == "data" or "same_dim_tags_as" in options]
    lengths = {key: CONFIGS["data" if key in as_data else "classes"] for key in keys}
    return Case(config, CONFIGS["batch"], lengths)


def recomputed(case: Case) -> Case:
    """The same with all layers computed again."""
    return replace(case, config={**case.config, "recompute": "all"})


PLAIN: Mapping[str, Callable[[], Case]] = {
    "lstm": lambda: layers_of("nativelstm2"),
    "lstm_2_layers": lambda: layers_of("nativelstm2", 2),
    "multiplicative_lstm": lambda: layers_of("multiplicativelstm"),
    "gru": lambda: layers_of("gru"),
    "layer_norm_lstm": lambda: layers_of("layernormlstm"),
    "attention": attention,
    **{
        name: lambda name=name: published(name)
        for name in ("g2p_attention", "g2p_stacked", "g2p_transducer", "g2p_transformer", "lm_lstm")
    },
}
CASES = {**PLAIN, **{f"{name}+": lambda make=make: recomputed(make()) for name, make in PLAIN.items()}}
"""Those with a + recompute all layers."""


class HeapInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]


def heap() -> int:
    """The bytes that the process has allocated and not freed."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = HeapInfo
    info = library.mallinfo2()
    return info.uordblks + info.hblkhd


def measured(case: Case) -> int:
    """The bytes that the forward pass of a train step leaves for the backward pass: of several runs the median."""
    built = build(case.config, "train")
    compiled = Compiled(built, optimized(built, keep=built.outputs.with_layers(())))
    executable = compiled.executable
    generator = np.random.default_rng(1)
    arrays = {}
    for value in compiled.graph.inputs:
        shape = [case.batch, case.lengths[value.name]]
        if value.type.sparse is not None:
            arrays[value.name] = generator.integers(1, value.type.sparse.size, shape)
        else:
            shape += [dim.size for dim in value.type.dims if dim.size is not None]
            arrays[value.name] = generator.normal(size=shape).astype(value.type.dtype)
    batch = compiled.checked_batch(arrays, {key: np.full(case.batch, n) for key, n in case.lengths.items()})
    feed = {key: tf.constant(array) for key, array in batch.arrays.items()}
    lengths = {name: tf.constant(batch.lengths[dim]) for name, dim in executable.length_names().items()}
    seen: list[int] = []

    def probe(objective: np.ndarray) -> np.ndarray:
        time.sleep(SETTLED)
        seen.append(heap())
        return objective

    @tf.function(autograph=False)
    def step(feed: dict[str, tf.Tensor], lengths: dict[str, tf.Tensor], seed: tf.Tensor) -> Any:
        results = executable.call(feed, lengths, seed, "objective")
        objective = results.outputs["objective"].raw
        hold_back(objective, tf.numpy_function(probe, [objective], objective.dtype))
        return objective, results.gradients

    found = []
    for run in range(RUNS + 1):
        gc.collect()
        before = heap()
        step(feed, lengths, tf.constant(run))
        found.append(seen[-1] - before)
    return round(statistics.median(found[1:]))


def hold_back(objective: Any, probe: Any) -> None:
    """Lets the backward pass wait for the probe: all operations of it that compute numbers and not only shapes."""
    forward = {objective.op}
    pending = [objective.op]
    while pending:
        operations = {tensor.op for tensor in pending.pop().inputs} - forward
        forward |= operations
        pending += operations
    for operation in objective.graph.get_operations():
        numbers = any(x.dtype.is_floating or x.dtype.name == "variant" for x in operation.outputs)
        if numbers and operation.name.startswith("gradients") and operation not in forward:
            operation._add_control_input(probe.op)  # there is no public way to do it afterwards


def predicted(case: Case) -> int:
    """What `rnn.py summary --memory` says."""
    built = build(case.config, "train")
    graph = optimized(built, keep=built.outputs.with_layers(()))
    lengths = {value.name: case.lengths[value.name] for value in graph.inputs}
    return train_step(graph, batch_sizes(graph, case.batch, lengths)).bytes


def main(names: list[str]) -> None:
    """Prints a line for each case."""
    environment = {**os.environ, **ENVIRONMENT}
    print(f"{'case':<22}{'predicted':>12}{'measured':>12}{'difference':>12}")
    for name in names or CASES:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        difference = one["predicted"] / one["measured"] - 1
        print(f"{name:<22}{one['predicted'] / 1e6:>9.1f} MB{one['measured'] / 1e6:>9.1f} MB{difference:>+11.1%}")


if __name__ == "__main__":
    if "--one" in sys.argv:
        chosen = CASES[sys.argv[-1]]()
        print(json.dumps({"predicted": predicted(chosen), "measured": measured(chosen)}))
    else:
        main(sys.argv[1:])
