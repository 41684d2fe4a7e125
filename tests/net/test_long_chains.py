"""Deep networks need no deep recursion."""

from __future__ import annotations

import returnn_lite as rl

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
