"""The work of each pass grows with the network, not faster. It is counted, in calls, not timed."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType

import pytest

from returnn_lite.compiler import ModeName, build
from returnn_lite.passes.pipeline import OPTIMIZED, PLAIN, Stage
from tools.bench.compiler import DATA, KINDS, SEARCHED

SMALL, TIMES = 40, 4
MOST = 1.2
"""How many times as many calls a layer may take in a network `TIMES` as large."""


def calls_of_passes(kind: str, mode: ModeName, layers: int, stages: tuple[Stage, ...]) -> dict[str, int]:
    """Calls and generator steps of each pass, C functions included."""
    config = {"network": KINDS[kind](layers), "extern_data": DATA, "behavior_version": 21}
    graph = build(config, mode).graph
    found: Counter[str] = Counter()
    for stage in stages:

        def count(frame: FrameType, event: str, argument: object, name: str = stage.name) -> None:
            found[name] += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            graph = stage.run(graph)
        finally:
            sys.setprofile(None)
    return found


@pytest.mark.parametrize("stages", [OPTIMIZED, PLAIN], ids=["optimized", "plain"])
@pytest.mark.parametrize("kind", ["chain", "cycles", "one_cycle", "leaving", "masked", "searching"])
def test_passes_are_linear(kind: str, stages: tuple[Stage, ...]) -> None:
    mode: ModeName = "search" if kind in SEARCHED else "train"
    small = calls_of_passes(kind, mode, SMALL, stages)
    large = calls_of_passes(kind, mode, TIMES * SMALL, stages)
    growth = {name: round(large[name] / (TIMES * small[name]), 2) for name in small if large[name] > 1000}
    assert growth and {name: ratio for name, ratio in growth.items() if ratio > MOST} == {}
