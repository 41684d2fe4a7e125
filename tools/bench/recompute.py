"""Memory and time of a training step with and without `recompute`.

    python -m tools.bench.recompute [NETWORK ...] [--rounds N] [--write docs/benchmarks.rst]

Objective and gradients of one recurrent layer on the CPU, without an optimiser's step. `kept` is what is in memory when
the backward pass begins (`tools/bench/memory.py`), beside what `rnn.py summary --memory` predicts; `peak` the most that
TensorFlow's allocator has in use, without parameters and data. Each is measured in a process of its own. Time is
that of the CPU in one thread: steps take turns, and the least counts, so that noise meets all alike.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from returnn_lite.engine.feeding import signature
from returnn_lite.engine.network import NetworkCompiler
from tools.bench import memory, page

DEVICE = "CPU:0"
BATCH, SIZE = 32, 512
MEGA = 1e6
ALLOWED = 1.2
"""What may be kept, as a part of the states and the products that are kept."""
WARM_UP = 2
FLOAT = 4
SETTLED = 0.5
STEPS = ["steps"]
Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Recurrence:
    """A layer over `time` frames, and how many floats of each frame are states, and products of the source."""

    title: str
    unit: Any
    states: int
    products: int
    time: int = 100
    frames: int = 0
    """Of the encoder, whose keys are a product, too."""
    embedded: bool = False
    """Whether the source is of embedded labels, so that it has a gradient, as where a layer is below."""
    caffe2: Mapping[str, str] = field(default_factory=dict)
    """What Caffe2 measured (growth of the process in MiB, time): by whether it computed again."""

    def config(self, recompute: Any) -> dict[str, Any]:
        """With the sum of the outputs as the loss."""
        embedded = {"class": "linear", "from": "data", "n_out": SIZE, "activation": None, "with_bias": False}
        below = {"embedded": embedded} if self.embedded else {}
        source = "embedded" if self.embedded else "data"
        rec = {"class": "rec", "from": source, "unit": self.unit, "n_out": SIZE, "recompute": recompute}
        data = {"data": {"dim": SIZE, "sparse": self.embedded}, **({"encoder": {"dim": SIZE}} if self.frames else {})}
        network = {**below, "rec": rec, "output": {"class": "copy", "from": "rec", "loss": "as_is"}}
        return {"network": network, "extern_data": data, "behavior_version": 21}

    @property
    def lengths(self) -> dict[str, int]:
        """How many frames each sequence has, by data key."""
        return {"data": self.time, **({"encoder": self.frames} if self.frames else {})}

    def case(self, recompute: Any) -> memory.Case:
        """For what is kept."""
        return memory.Case(self.config(recompute), BATCH, self.lengths)

    def batch(self) -> tuple[Tensors, Tensors]:
        """Random data and lengths, all of them the longest."""
        sizes = self.lengths
        generator = np.random.default_rng(1)
        arrays = {key: generator.normal(size=(BATCH, size, SIZE)).astype("float32") for key, size in sizes.items()}
        if self.embedded:
            arrays["data"] = generator.integers(0, SIZE, (BATCH, self.time)).astype("int32")
        lengths = {key: tf.constant([size] * BATCH, tf.int32) for key, size in sizes.items()}
        return {key: tf.constant(array) for key, array in arrays.items()}, lengths

    def bound(self, recompute: Any) -> float:
        """Bytes of the states, of products that are not computed again, and of the source, where a layer makes it."""
        source = self.time * SIZE if self.embedded else 0
        products = self.time * self.products + self.frames * SIZE
        return float(FLOAT * BATCH * (self.time * self.states + source + (0 if recompute == "all" else products)))


ATTENTION = {"class": "lstm_attention", "encoder": "data:encoder"}
NETWORKS = {
    "lstm": Recurrence(
        "LSTM (T=100)", "lstm", 2 * SIZE, 4 * SIZE, caffe2={"none": "120.7 MiB", "steps": "96.4 MiB, +18 %"}
    ),
    "two_layers": Recurrence(
        "two-layer LSTM (T=100)",
        ["lstm", "lstm"],
        4 * SIZE,
        8 * SIZE,
        caffe2={"none": "217.7 MiB", "steps": "the same"},
    ),
    "milstm": Recurrence(
        "MI-LSTM (T=100)", "milstm", 2 * SIZE, 4 * SIZE, caffe2={"none": "223.7 MiB", "steps": "199.1 MiB, +4 %"}
    ),
    "attention": Recurrence(
        "LSTM with attention (T=30, S=50)",
        ATTENTION,
        3 * SIZE,
        4 * SIZE,
        time=30,
        frames=50,
        caffe2={"none": "196.9 MiB", "steps": "106.4 MiB, 0 to +4 %"},
    ),
}
NETWORKS |= {
    f"{name}_embedded": replace(NETWORKS[name], title=f"{NETWORKS[name].title} on embedded labels", embedded=True)
    for name in ("lstm", "two_layers", "milstm")
}
"""Caffe2's attention also takes the product of the decoder out of its loop, and is in its whole decoder."""
OPTIONS: Mapping[str, Any] = {"none": "none", "steps": STEPS, "all": "all"}


PEAK = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPU_ALLOCATOR_USE_BFC": "true"}
"""The environment in which TensorFlow's allocator counts all."""
KEPT = memory.ENVIRONMENT


@dataclass
class Step:
    """A training step with one value of the option, and the seconds that it takes the CPU."""

    run: Callable[[], object]
    seconds: float = float("inf")

    def take_time(self) -> None:
        """Runs once; the least time counts."""
        start = time.process_time()
        self.run()
        self.seconds = min(self.seconds, time.process_time() - start)


def in_use() -> int:
    """Bytes that TensorFlow's allocator has given out."""
    return int(tf.config.experimental.get_memory_info(DEVICE)["current"])


def in_use_at_rest() -> int:
    """The same when all is freed: a step's result is there before that."""
    found = in_use()
    while True:
        time.sleep(SETTLED)
        found, before = in_use(), found
        if found == before:
            return found


def step_of(recurrence: Recurrence, recompute: Any) -> Step:
    """Compiles a step, and runs it until it is warm."""
    executable = NetworkCompiler(recurrence.config(recompute))("train")

    def step(data: Tensors, lengths: Tensors, seed: tf.Tensor) -> tf.Tensor:
        result = executable.run_train(data, lengths, seed)
        return result.objective + tf.linalg.global_norm(list(result.gradients.values()))

    signatures = (*signature(executable), tf.TensorSpec([], tf.int32))
    function = tf.function(step, input_signature=signatures, autograph=False)
    feed = (*recurrence.batch(), tf.constant(1))
    for _ in range(WARM_UP):
        function(*feed).numpy()
    return Step(lambda: function(*feed).numpy())


def peak_here(recurrence: Recurrence, recompute: Any) -> int:
    """The most bytes in use in a step in this process, whose allocator has to count all."""
    step = step_of(recurrence, recompute)
    before = in_use_at_rest()
    tf.config.experimental.reset_memory_stats(DEVICE)
    step.run()
    return int(tf.config.experimental.get_memory_info(DEVICE)["peak"]) - before


def elsewhere(measure: str, name: str, option: str, environment: Mapping[str, str]) -> int:
    """Bytes that are measured in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, name, measure, option]
    reply = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **environment})
    return int(reply.stdout.splitlines()[-1])


def rows_of(name: str, rounds: int) -> list[list[str]]:
    """The rows of the table for one network."""
    recurrence = NETWORKS[name]
    steps = {option: step_of(recurrence, value) for option, value in OPTIONS.items()}
    for _ in range(rounds):
        for step in steps.values():
            step.take_time()
    plain, rows = steps["none"], []
    for option, step in steps.items():
        kept, peak = elsewhere("--kept", name, option, KEPT), elsewhere("--peak", name, option, PEAK)
        may_keep = recurrence.bound(OPTIONS[option])
        predicted = memory.predicted(recurrence.case(OPTIONS[option]))
        rows.append(
            [
                recurrence.title,
                option,
                f"{step.seconds * 1000:.0f}",
                f"{step.seconds / plain.seconds:.2f}",
                f"{kept / MEGA:.1f}",
                f"{predicted / MEGA:.1f}",
                "–" if option == "none" else f"{ALLOWED * may_keep / MEGA:.1f}",
                "–" if option == "none" else f"{kept / may_keep:.2f}",
                f"{peak / MEGA:.1f}",
                recurrence.caffe2.get(option, "–"),
            ]
        )
    return rows


HEAD = ["network", "recompute", "CPU ms", "ratio", "kept MB", "predicted", "may keep", "of states", "peak MB", "Caffe2"]
TEXT = f"""\
What ``recompute`` saves and costs: objective and gradients of one recurrent layer, {BATCH} sequences, {SIZE} features
and units, in one thread. ``kept`` is what is in memory when the backward pass begins, ``predicted`` what ``summary
--memory`` says, ``peak`` the most that TensorFlow's allocator has in the step, all without parameters and data. ``of
states`` is ``kept`` as a part of the states of all frames and, but for ``all``, of the products of the source (with
attention also the keys, with embedded labels these); it may be {ALLOWED}, which is ``may keep``. Caffe2's column is
how much its process grew in the first step of the same cell without and with its own recomputing, and how much longer a
step took the CPU then, in one thread, too."""


def page_section(rows: Sequence[Sequence[str]], rounds: int) -> str:
    """The section of the page."""
    measured = (
        f"{datetime.date.today()}, the least of {rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} "
        f"in the end, 1 being the benchmark itself; tensorflow {tf.__version__}."
    )
    return page.section("recompute", "Recompute", TEXT, page.table(rows), measured)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all without any")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=pathlib.Path, metavar="PAGE", help="writes the table to its section of it")
    parser.add_argument("--kept", choices=OPTIONS, metavar="RECOMPUTE", help="prints what one step keeps here")
    parser.add_argument("--peak", choices=OPTIONS, metavar="RECOMPUTE", help="prints the most that one step needs here")
    options = parser.parse_args()
    if options.kept is not None:
        (name,) = options.networks
        print(memory.measured(NETWORKS[name].case(OPTIONS[options.kept])))
        return
    if options.peak is not None:
        (name,) = options.networks
        print(peak_here(NETWORKS[name], OPTIONS[options.peak]))
        return
    if options.write is not None and options.networks:
        parser.error("--write needs all networks")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rows = [HEAD]
    for name in options.networks or NETWORKS:
        rows += rows_of(name, options.rounds)
        print(page.table([HEAD, *rows[-len(OPTIONS) :]]), flush=True)
    if options.write is not None:
        page.write(options.write, "recompute", page_section(rows, options.rounds))


if __name__ == "__main__":
    main()
