"""initial_output beyond `prev:`: the start of a cumsum, and what rec_last_output gives where a loop has no steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.arange(1, 13, dtype="float32").reshape(2, 3, 2)
BOTH = pytest.mark.parametrize("optimize", [True, False])


def run(network: dict[str, Any], lengths: list[int], optimize: bool = True, mode: Any = "forward") -> Any:
    net = rl.compile(network, extern_data={"data": {"dim": 2}}, mode=mode, behavior_version=21, optimize=optimize)
    return net.run({"data": X}, {"data": lengths}).layers


@BOTH
@pytest.mark.parametrize("in_loop", [False, True])
def test_cumsum_begins_with_its_initial_output(in_loop: bool, optimize: bool) -> None:
    network: dict[str, Any] = {"output": {"class": "cumsum", "from": "data", "initial_output": 2}}
    if in_loop:
        network = {"output": {"class": "rec", "from": "data", "unit": network}}
    out = run(network, [3, 2], optimize)["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0)
    np.testing.assert_array_equal(value[0], 2 + np.cumsum(X[0], axis=0))
    np.testing.assert_array_equal(value[1, :2], 2 + np.cumsum(X[1, :2], axis=0))


@BOTH
def test_cumsum_of_prev_begins_with_a_layer(optimize: bool) -> None:
    """`prev:` of it and its own start are one option."""
    cumsum = {"class": "cumsum", "from": "data:source", "initial_output": "base:start"}
    unit = {"sum": cumsum, "output": {"class": "copy", "from": "prev:sum"}}
    network: dict[str, Any] = {"output": {"class": "rec", "from": "data", "unit": unit}}
    network["start"] = {"class": "reduce", "mode": "max", "axis": "T", "from": "data"}
    out = run(network, [3, 2], optimize)["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0)
    for found, x in ((value[0, :3], X[0]), (value[1, :2], X[1, :2])):
        np.testing.assert_array_equal(found, x.max(0) + np.cumsum(x, axis=0) - x)


@BOTH
@pytest.mark.parametrize(("initial", "expected"), [(None, [0.0, 0.0]), (7, [7.0, 7.0]), ("base:start", [13.0, 14.0])])
def test_last_output_of_a_loop_without_steps(initial: object, expected: list[float], optimize: bool) -> None:
    sum_ = {"class": "combine", "kind": "add", "from": ["prev:sum", "data:source"], "need_last": True}
    sum_ |= {} if initial is None else {"initial_output": initial}
    unit = {"sum": sum_, "output": {"class": "copy", "from": "sum"}}
    network: dict[str, Any] = {
        "start": {"class": "constant", "value": [13.0, 14.0]},
        "loop": {"class": "rec", "from": "data", "unit": unit},
        "output": {"class": "rec_last_output", "rec_layer": "loop", "sub_layer_name": "sum"},
    }
    value = np.asarray(run(network, [3, 0], optimize)["output"].value)
    np.testing.assert_array_equal(value[0], np.asarray(expected) + X[0].sum(0))
    np.testing.assert_array_equal(value[1], expected)


@BOTH
def test_dropout_of_a_subnetwork_is_on_its_data(optimize: bool) -> None:
    network: dict[str, Any] = {"output": {"class": "subnetwork", "from": "data", "subnetwork": {}}}
    network["output"] |= {"dropout": 0.5, "dropout_noise_shape": {"*": None}}
    network["output"]["subnetwork"] = {"output": {"class": "copy", "from": "data"}}
    value = np.asarray(run(network, [3, 3], optimize, "train")["output"].value)
    assert (np.isclose(value, 0) | np.isclose(value, 2 * X)).all()
    assert 0 < np.count_nonzero(value) < value.size
    network["output"]["concat_sources"] = False
    with pytest.raises(rl.ConfigError, match="joined sources"):
        run(network, [3, 3])


@BOTH
@pytest.mark.parametrize("initial", [3.0, [2.0, 3.0], {"h": "base:start"}])
def test_prev_of_a_recurrent_layer_begins_with_its_state(initial: Any, optimize: bool) -> None:
    """The output before the first step is h of the initial_state (a list is of c and h)."""
    cell = {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 2, "from": "data:source", "initial_state": initial}
    unit = {"s": cell, "output": {"class": "copy", "from": "prev:s"}}
    network: dict[str, Any] = {"output": {"class": "rec", "from": "data", "unit": unit}}
    network["start"] = {"class": "constant", "value": [3.0, 3.0]}
    out = run(network, [3, 2], optimize)["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0)
    np.testing.assert_array_equal(value[:, 0], np.full((2, 2), 3.0))
    assert (np.abs(value[0, 1:]) < 1).all()
    cell["initial_output"] = 1
    with pytest.raises(rl.ConfigError, match="initial_output"):
        run(network, [3, 2], optimize)


@BOTH
def test_data_that_a_loop_publishes_is_data_of_its_body(optimize: bool) -> None:
    unit = {
        "double": {"class": "eval", "eval": "source(0) * 2", "from": "data:source", "register_as_extern_data": "twice"},
        "output": {
            "class": "subnetwork",
            "from": [],
            "subnetwork": {"output": {"class": "copy", "from": "data:twice"}},
        },
    }
    network: dict[str, Any] = {"loop": {"class": "rec", "from": "data", "unit": unit}}
    network["output"] = {"class": "copy", "from": "loop"}
    out = run(network, [3, 2], optimize)["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0)
    np.testing.assert_array_equal(value[0], 2 * X[0])
    np.testing.assert_array_equal(value[1, :2], 2 * X[1, :2])
    network["output"] = {"class": "combine", "kind": "add", "from": ["loop", "data:twice"]}
    with pytest.raises(rl.ConfigError, match="'data:twice' is not there yet"):
        run(network, [3, 2], optimize)


@pytest.mark.parametrize("target", [{"a": "classes"}, ["data", "data"]])
def test_targets_that_a_layer_can_not_have(target: Any) -> None:
    with pytest.raises(rl.ConfigError, match="target"):
        run({"output": {"class": "linear", "n_out": 2, "from": "data", "target": target}}, [3, 2])
