"""Deep networks need no deep recursion."""

from __future__ import annotations

from typing import Any

import returnn_lite as rl
from returnn_lite.config.diagnostics import Diagnostic

LENGTH = 20_000


def test_a_chain_of_20000_layers() -> None:
    """Built, typed and optimised."""
    network = {
        f"l{index}": {"class": "activation", "activation": "tanh", "from": f"l{index - 1}" if index else "data"}
        for index in range(LENGTH)
    }
    network["output"] = {"class": "copy", "from": f"l{LENGTH - 1}"}
    graph = rl.check({"network": network, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21})
    assert len(graph.nodes) >= LENGTH


def test_a_chain_in_a_loop() -> None:
    """The same in the body of a loop, closed by `prev:`, so that it stays one."""
    unit = {
        f"l{index}": {"class": "activation", "activation": "tanh", "from": f"l{index - 1}" if index else "in"}
        for index in range(LENGTH // 10)
    }
    last = f"l{LENGTH // 10 - 1}"
    unit["in"] = {"class": "linear", "from": ["data:source", f"prev:{last}"], "n_out": 3, "activation": None}
    unit["output"] = {"class": "copy", "from": last}
    network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    graph = rl.check({"network": network, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21})
    assert any(len(getattr(node.op, "body", ())) >= LENGTH // 10 for node in graph.nodes)


DEPTH = 1_500
DEEPEST = 10_000
DATA = {"extern_data": {"data": {"dim": 3}}, "behavior_version": 21}


def nested(innermost: dict[str, Any], depth: int = DEPTH, **options: Any) -> dict[str, Any]:
    """A network in a network in a network."""
    network = {"output": innermost}
    for _ in range(depth):
        network = {"output": {"class": "subnetwork", **options, "subnetwork": network}}
    return network


def test_nested_networks() -> None:
    """Each is built while the one around waits; data are looked for in all of those around."""
    layer = {"class": "linear", "n_out": 3, "from": "data"}
    for network in (nested(layer, DEEPEST, **{"from": "data"}), nested(layer, **{"from": []})):
        assert len(rl.check({"network": network, **DATA}).nodes) < 10
    (mistake,) = mistakes(nested({**layer, "from": "dat"}, **{"from": "data"}))
    assert mistake.path[-3:] == ("subnetwork", "output", "from")


def test_nested_networks_in_a_loop() -> None:
    inside = nested({"class": "linear", "n_out": 3, "from": "data"}, **{"from": "data"})
    unit = {
        "a": {"class": "subnetwork", "from": "data:source", "subnetwork": inside},
        "output": {"class": "combine", "kind": "add", "from": ["a", "prev:output"]},
    }
    assert mistakes({"output": {"class": "rec", "from": "data", "unit": unit}}) == []


def test_a_cycle_of_many_layers_is_told() -> None:
    network = {f"l{i}": {"class": "copy", "from": f"l{(i + 1) % DEPTH}"} for i in range(DEPTH)}
    (mistake,) = mistakes({**network, "output": {"class": "copy", "from": "l0"}})
    assert "need each other in the same step" in mistake.message


def test_steps_before_of_many_layers() -> None:
    """Each layer reads the step before of the next, which is built for that alone."""
    unit = {f"l{i}": {"class": "copy", "from": f"prev:l{i + 1}"} for i in range(DEPTH)}
    unit |= {f"l{DEPTH}": {"class": "copy", "from": "data:source"}, "output": {"class": "copy", "from": "l0"}}
    assert mistakes({"output": {"class": "rec", "from": "data", "unit": unit}}) == []


def mistakes(network: dict[str, Any]) -> list[Diagnostic]:
    try:
        rl.check({"network": network, **DATA})
    except rl.ConfigError as error:
        return list(error.diagnostics)
    return []
