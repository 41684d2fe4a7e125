"""The work of building and of each pass grows with the network, not faster. It is counted, in calls, not timed."""

from __future__ import annotations

import cProfile
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from returnn_lite.compiler import ModeName, build, check
from returnn_lite.ir import Recompute, computed_once
from returnn_lite.ir.verify import verify
from returnn_lite.net import network
from returnn_lite.net.overlays import built_in_all
from returnn_lite.net.scope import Scope
from returnn_lite.passes.pipeline import OPTIMIZED, PLAIN, Pass
from returnn_lite.passes.recompute import recompute
from tools.bench.compiler import DATA, KINDS, SEARCHED

Result = TypeVar("Result")
SMALL, TIMES = 40, 4
MOST = 1.2
"""How many times as many calls a layer may take in a network `TIMES` as large."""


def calls_of_passes(kind: str, mode: ModeName, layers: int, passes: tuple[Pass, ...]) -> dict[str, int]:
    """Calls and generator steps of each pass, C functions included."""
    found: Counter[str] = Counter()
    graph = counted(lambda: build(config_of(kind, layers), mode).graph, found, "building")
    for each in passes:
        graph = counted(functools.partial(each.run, graph), found, each.name)
    counted(functools.partial(verify, graph, "all passes"), found, "verify")
    return found


def config_of(kind: str, layers: int) -> dict[str, object]:
    return {"network": KINDS[kind](layers), "extern_data": DATA, "behavior_version": 21}


def counted(work: Callable[[], Result], found: Counter[str], name: str) -> Result:
    """The result of some work, whose calls are added under a name."""

    profile = cProfile.Profile()
    try:
        return profile.runcall(work)
    finally:
        found[name] += sum(entry.callcount for entry in profile.getstats())


def test_what_is_built_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each root: a network with a loss in each layer was quadratic, in C, where no calls are counted."""
    listed: list[Scope] = []

    def counted_list(scope: Scope) -> frozenset[str]:
        listed.append(scope)
        return built_in_all(scope)

    monkeypatch.setattr(network, "built_in_all", counted_list)
    assert len(build(config_of("losses", SMALL), "train").root_names) == SMALL
    assert len(listed) == 1


@pytest.mark.parametrize("passes", [OPTIMIZED, PLAIN], ids=["optimized", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_check_is_linear(kind: str, passes: tuple[Pass, ...]) -> None:
    mode: ModeName = "search" if kind in SEARCHED else "train"
    small = calls_of_passes(kind, mode, SMALL, passes)
    large = calls_of_passes(kind, mode, TIMES * SMALL, passes)
    growth = {name: round(large[name] / (TIMES * small[name]), 2) for name in small if large[name] > 1000}
    assert growth and {name: ratio for name, ratio in growth.items() if ratio > MOST} == {}


@pytest.mark.parametrize("every", [1, 2])
def test_recomputing_is_linear(every: int) -> None:
    """Each outermost layer is a group of its own, or every other one."""

    def calls(layers: int) -> int:
        config = config_of("chain", layers)
        network = config["network"]
        assert isinstance(network, dict)
        graph = check({**config, "recompute": list(network)[::every]}, optimize=False)
        plain = replace(graph, nodes=computed_once(graph.nodes))
        found: Counter[str] = Counter()
        again = counted(lambda: recompute(plain), found, "recompute")
        assert sum(isinstance(node.op, Recompute) for node in again.nodes) >= layers // every
        counted(lambda: verify(again, "recompute"), found, "verify")
        return found["recompute"] + found["verify"]

    assert calls(TIMES * SMALL) <= MOST * TIMES * calls(SMALL)
