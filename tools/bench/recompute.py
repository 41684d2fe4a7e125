"""Memory and time of a training step with and without `recompute`.

    python -m tools.bench.recompute [NETWORK ...] [--rounds N] [--write docs/benchmarks.rst]

Objective and gradients of one recurrent layer on the CPU, without an optimiser's step. `kept` is what TensorFlow's
allocator has in use between the forward and the backward pass, `peak` the most that it has, both without parameters and
data: measured in a process of its own with an allocator that counts all (oneDNN's leaves out what is small). Steps take
turns, and the least time counts, so that noise meets all alike.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from returnn_lite.engine.feeding import signature
from returnn_lite.engine.network import NetworkCompiler
from tools.bench import page

DEVICE = "CPU:0"
BATCH, SIZE = 32, 512
MEGA = 1e6
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
    caffe2: Mapping[str, str] = field(default_factory=dict)
    """What Caffe2 measured (growth of the process in MiB, time): by whether it computed again."""

    def config(self, recompute: Any) -> dict[str, Any]:
        """With the sum of the outputs as the loss."""
        rec = {"class": "rec", "from": "data", "unit": self.unit, "n_out": SIZE, "recompute": recompute}
        data = {"data": {"dim": SIZE}, **({"encoder": {"dim": SIZE}} if self.frames else {})}
        network = {"rec": rec, "output": {"class": "copy", "from": "rec", "loss": "as_is"}}
        return {"network": network, "extern_data": data, "behavior_version": 21}

    def batch(self) -> tuple[Tensors, Tensors]:
        """Random data and lengths, all of them the longest."""
        sizes = {"data": self.time, **({"encoder": self.frames} if self.frames else {})}
        generator = np.random.default_rng(1)
        arrays = {key: generator.normal(size=(BATCH, size, SIZE)).astype("float32") for key, size in sizes.items()}
        lengths = {key: tf.constant([size] * BATCH, tf.int32) for key, size in sizes.items()}
        return {key: tf.constant(array) for key, array in arrays.items()}, lengths

    def bound(self, recompute: Any) -> float:
        """Bytes of the states, and of the products that are not computed again."""
        products = self.time * self.products + self.frames * SIZE
        return float(FLOAT * BATCH * (self.time * self.states + (0 if recompute == "all" else products)))


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
"""Caffe2's attention also takes the product of the decoder out of its loop, and is in its whole decoder."""
OPTIONS: Mapping[str, Any] = {"none": "none", "steps": STEPS, "all": "all"}


COUNTED = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPU_ALLOCATOR_USE_BFC": "true"}
"""The environment in which TensorFlow's allocator counts all."""


@dataclass
class Step:
    """A training step with one value of the option."""

    run: Callable[[], object]
    seconds: float = float("inf")

    def take_time(self) -> None:
        """Runs once; the least time counts."""
        start = time.perf_counter()
        self.run()
        self.seconds = min(self.seconds, time.perf_counter() - start)


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    kept: int
    peak: int


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


def memory_here(recurrence: Recurrence, recompute: Any) -> Memory:
    """That of a step in this process, whose allocator has to count all."""
    between: list[int] = []
    gradients = tf.gradients

    def noting(target: tf.Tensor, sources: Any, *upstream: Any, **options: Any) -> Any:
        """The gradients of the objective begin with a look at the memory in use."""
        if upstream:
            return gradients(target, sources, *upstream, **options)
        seen = tf.numpy_function(lambda one: between.append(in_use()) or np.ones_like(one), [target], tf.float32)
        seen.set_shape([])
        return gradients(target, sources, seen, **options)

    with mock.patch.object(tf, "gradients", noting):
        step = step_of(recurrence, recompute)
    before = in_use_at_rest()
    tf.config.experimental.reset_memory_stats(DEVICE)
    step.run()
    peak = tf.config.experimental.get_memory_info(DEVICE)["peak"]
    return Memory(between[-1] - before, peak - before)


def memory_of(name: str, option: str) -> Memory:
    """That of a step in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, name, "--memory", option]
    reply = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **COUNTED})
    return Memory(**json.loads(reply.stdout.splitlines()[-1]))


def rows_of(name: str, rounds: int) -> list[list[str]]:
    """The rows of the table for one network."""
    recurrence = NETWORKS[name]
    steps = {option: step_of(recurrence, value) for option, value in OPTIONS.items()}
    for _ in range(rounds):
        for step in steps.values():
            step.take_time()
    plain, rows = steps["none"], []
    for option, step in steps.items():
        memory, bound = memory_of(name, option), recurrence.bound(OPTIONS[option])
        rows.append(
            [
                recurrence.title,
                option,
                f"{step.seconds * 1000:.0f}",
                f"{step.seconds / plain.seconds:.2f}",
                f"{memory.kept / MEGA:.1f}",
                "–" if option == "none" else f"{memory.kept / bound:.2f}",
                f"{memory.peak / MEGA:.1f}",
                recurrence.caffe2.get(option, "–"),
            ]
        )
    return rows


HEAD = ["network", "recompute", "ms", "ratio", "kept MB", "of bound", "peak MB", "Caffe2"]
TEXT = f"""\
What ``recompute`` saves and costs: objective and gradients of one recurrent layer, {BATCH} sequences, {SIZE} features
and units. ``kept`` is what TensorFlow's allocator has in use between the forward and the backward pass, ``peak`` the
most that it has in the step, both without parameters and data. ``of bound`` is the part that is kept of the states of
all frames and, but for ``all``, of the products of the source (with attention also the keys). Caffe2's column is how
much its process grew in the first step of the same cell without and with its own recomputing, and how much longer a
step took then."""


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
    parser.add_argument("--memory", choices=OPTIONS, metavar="RECOMPUTE", help="prints the memory of one step here")
    options = parser.parse_args()
    if options.memory is not None:
        (name,) = options.networks
        print(json.dumps(asdict(memory_here(NETWORKS[name], OPTIONS[options.memory]))))
        return
    if options.write is not None and options.networks:
        parser.error("--write needs all networks")
    rows = [HEAD]
    for name in options.networks or NETWORKS:
        rows += rows_of(name, options.rounds)
        print(page.table([HEAD, *rows[-len(OPTIONS) :]]), flush=True)
    if options.write is not None:
        page.write(options.write, "recompute", page_section(rows, options.rounds))


if __name__ == "__main__":
    main()
