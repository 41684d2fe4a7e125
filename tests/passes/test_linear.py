"""The work of building and of each pass grows with the network, not faster. It is counted, in calls, not timed."""

from __future__ import annotations

import cProfile
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from returnn_lite.compiler import ModeName, build, check, optimized
from returnn_lite.ir import Recompute, computed_once
from returnn_lite.ir.verify import verify
from returnn_lite.net import network
from returnn_lite.net.overlays import built_in_all
from returnn_lite.net.scope import Scope
from returnn_lite.passes.kernels.choice import kernels
from returnn_lite.passes.pipeline import OPTIMIZED, PLAIN, Pass
from returnn_lite.passes.recompute import recompute
from tools.bench.compiler import DATA, KINDS, SEARCHED

Result = TypeVar("Result")
Net = dict[str, dict[str, Any]]
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


def _lstm(*sources: str, **options: object) -> dict[str, Any]:
    return {"class": "rec", "unit": "lstm", "n_out": 4, "from": list(sources), **options}


def _stacked(layers: int) -> Net:
    """One group."""
    return {f"l{i}": _lstm(f"l{i - 1}" if i else "data") for i in range(layers)}


def _stacked_twice(layers: int) -> Net:
    """Two groups, of which one begins before the other, with whose states its layers but the lowest begin."""
    first = {"class": "get_last_hidden_state", "from": ["m0"], "key": "c"}
    above = {f"m{i}": _lstm(f"m{i - 1}", initial_state=f"l{i}") for i in range(1, layers)}
    return {"first": first, "m0": _lstm("data"), **above, **_stacked(layers)}


def _states_of_below(layers: int) -> Net:
    """Both directions of each layer are a group: one begins with the state of that below."""
    network = {}
    for i in range(layers):
        source, init = (("data",), {}) if i == 0 else ((f"f{i - 1}", f"b{i - 1}"), {"initial_state": f"f{i - 1}"})
        network |= {f"f{i}": _lstm(*source, **init), f"b{i}": _lstm(*source, direction=-1, **init)}
    return network


def _of_one_source(layers: int) -> Net:
    """Both directions of each layer are a group, and all read the same."""
    return {f"{i}{direction}": _lstm("data", direction=direction) for i in range(layers) for direction in (1, -1)}


def _dense(layers: int) -> Net:
    """Each reads all those before it, joined anew for each."""
    network: Net = {}
    for i in range(layers):
        network[f"l{i}"] = _lstm(f"j{i - 1}" if i else "data")
        network[f"j{i}"] = {"class": "copy", "from": [f"j{i - 1}", f"l{i}"] if i else [f"l{i}"]}
    return network


@pytest.mark.parametrize(
    ("network", "layers_of_group"),
    [(_stacked, None), (_stacked_twice, None), (_states_of_below, 1), (_of_one_source, 1), (_dense, 1)],
)
def test_choosing_kernels_is_linear(network: Callable[[int], Net], layers_of_group: int | None) -> None:
    few, times = 6, 4

    def calls(layers: int) -> int:
        net = network(layers)
        read = {source for layer in net.values() for source in layer["from"]}
        net |= {name: {**layer, "loss": "as_is"} for name, layer in net.items() if name not in read}
        made = build({"network": net, "extern_data": {"data": {"dim": 4}}})
        graph = optimized(made, keep=made.outputs.with_layers(()))
        found: Counter[str] = Counter()
        chosen = counted(lambda: kernels(graph, "gpu"), found, "kernels")
        assert chosen and all(choice.group is not None for choice in chosen.values())
        sizes = {len(choice.group.layers) for choice in chosen.values() if choice.group is not None}
        assert sizes == {layers_of_group or layers}
        return found["kernels"]

    assert calls(times * few) <= MOST * times * calls(few)
