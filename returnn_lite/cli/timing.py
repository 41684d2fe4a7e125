"""What building and each pass took and made, for `check --timing` and `explain --passes`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from returnn_lite.explain.columns import columns
from returnn_lite.ir import Graph
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.passes.pipeline import PassRun, pass_run

HEADER = ("mode", "pass", "seconds", "nodes before", "nodes", "loops")


@dataclasses.dataclass(frozen=True)
class TimedRun:
    """A pass, or building, of the compilation for one mode."""

    mode: str
    run: PassRun


def timed_build(build: Callable[[], BuiltNetwork]) -> tuple[BuiltNetwork, PassRun]:
    """What is built, and what that took."""
    start = time.process_time()
    built = build()
    return built, pass_run("building", time.process_time() - start, Graph((), ()), built.graph)


def table(runs: Sequence[TimedRun]) -> str:
    """A line for each run, with CPU seconds."""
    rows = [
        (each.mode, each.run.name, f"{each.run.seconds:.4f}", *map(str, dataclasses.astuple(each.run)[2:]))
        for each in runs
    ]
    return columns(HEADER, rows)


def as_json(timed: TimedRun) -> dict[str, Any]:
    """The same for programs."""
    return {"mode": timed.mode, **dataclasses.asdict(timed.run)}


def in_words(run: PassRun) -> str:
    """`12 nodes, 1 loop, 0.0031 s`."""
    counts = ((run.nodes, "node"), (run.loops, "loop"))
    parts = [f"{number} {what}" if number == 1 else f"{number} {what}s" for number, what in counts]
    return ", ".join([*parts, f"{run.seconds:.4f} s"])
