"""Parameters are no values: who shares them, from where, with which dims and under which names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build

X = np.random.default_rng(0).normal(size=(2, 3, 3)).astype("float32")
W = np.random.default_rng(1).normal(size=(3, 3)).astype("float32")
LINEAR = {"class": "linear", "activation": None, "with_bias": False, "n_out": 3}
NETWORKS: dict[str, dict[str, Any]] = {
    "of the layer below": {"a": {**LINEAR, "from": "data"}, "output": {**LINEAR, "from": "a", "reuse_params": "a"}},
    "by name": {
        "a": {**LINEAR, "from": "data", "name_scope": "w"},
        "output": {**LINEAR, "from": "a", "name_scope": "w"},
    },
    "of a layer that reads this one": {
        "a": {**LINEAR, "from": "data", "reuse_params": "b"},
        "b": {**LINEAR, "from": "a"},
        "output": {"class": "copy", "from": "b"},
    },
    "of a layer behind copies of this one": {
        "a": {**LINEAR, "from": "data", "reuse_params": {"reuse_layer": "b"}},
        "c": {"class": "copy", "from": "a"},
        "b": {**LINEAR, "from": "c"},
        "output": {"class": "copy", "from": "b"},
    },
    "of a layer around that reads this one": {
        "s": {
            "class": "subnetwork",
            "from": "data",
            "subnetwork": {"output": {**LINEAR, "from": "data", "reuse_params": "base:output"}},
        },
        "output": {**LINEAR, "from": "s"},
    },
    "by a map of a layer that reads this one": {
        "a": {**LINEAR, "from": "data", "reuse_params": {"map": {"W": {"reuse_layer": "output"}}}},
        "output": {**LINEAR, "from": "a"},
    },
    "as the output of a layer": {
        "w": {"class": "variable", "shape": [3, 3]},
        "a": {**LINEAR, "from": "data", "reuse_params": {"map": {"W": {"layer_output": "w"}}}},
        "output": {**LINEAR, "from": "a", "reuse_params": {"map": {"W": {"layer_output": "w"}}}},
    },
    "with the same Dim on both sides": {
        "a": {**LINEAR, "from": "data", "out_dim": rl.Dim("f", rl.DimKind.FEATURE, 3), "n_out": 3},
        "output": {**LINEAR, "from": "a", "reuse_params": "a"},
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_matrix_used_twice(name: str) -> None:
    """x W W, whatever the dims of the two uses are called."""
    net = rl.compile(NETWORKS[name], extern_data={"data": {"dim": 3}}, mode="forward", behavior_version=21)
    (parameter,) = net.params.values()
    parameter.assign(W)
    out = net.run({"data": X}, {"data": np.array([3, 3])}).layers["output"].value
    np.testing.assert_allclose(out, X @ W @ W, rtol=1e-5, atol=1e-5)


def test_the_owner_says_how_a_parameter_begins() -> None:
    """Also where another layer asks for it first."""
    network = {
        "a": {**LINEAR, "from": "data", "reuse_params": "output", "forward_weights_init": 5.0},
        "output": {**LINEAR, "from": "a", "forward_weights_init": 7.0},
    }
    built = build({"network": network, "extern_data": {"data": {"dim": 3}}}, "forward")
    (parameter,) = built.parameters.values()
    assert parameter.name == "output/W"
    assert dict(parameter.initializer.arguments) == {"value": 7.0}


def test_who_share_each_others_parameters_is_told() -> None:
    network = {
        "a": {**LINEAR, "from": "data", "reuse_params": "output"},
        "output": {**LINEAR, "from": "a", "reuse_params": "a"},
    }
    with pytest.raises(rl.ConfigError, match="share each other's parameters"):
        build({"network": network, "extern_data": {"data": {"dim": 3}}}, "forward")


LSTM = {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": "data"}
CELL = {"class": "rnn_cell", "unit": "gru", "n_out": 3, "from": "data:source"}
BODY = {"layer1": {**LINEAR, "from": "data:source"}, "output": {"class": "copy", "from": "layer1"}}
NAMES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "loop": ({"class": "rec", "from": "data", "unit": BODY}, ["output/rec/layer1/W"]),
    "loop without a scope": ({"class": "rec", "from": "data", "unit": BODY, "name_scope": ""}, ["layer1/W"]),
    "loop with a scope": ({"class": "rec", "from": "data", "unit": BODY, "name_scope": "x"}, ["x/layer1/W"]),
    "loop with an absolute scope": ({"class": "rec", "from": "data", "unit": BODY, "name_scope": "/x"}, ["x/layer1/W"]),
    "unit": (LSTM, ["output/rec/W", "output/rec/W_re", "output/rec/b"]),
    "unit without a scope": ({**LSTM, "name_scope": ""}, ["W", "W_re", "b"]),
    "unit with a scope": ({**LSTM, "name_scope": "x"}, ["x/W", "x/W_re", "x/b"]),
    "cell": (
        {"class": "rec", "from": "data", "unit": {"output": {**CELL, "name_scope": "c"}}},
        [f"output/rec/c/gru_cell/{part}/{name}" for part in ("candidate", "gates") for name in ("bias", "kernel")],
    ),
    "state": ({**LSTM, "name_scope": "x", "initial_state": "var"}, ["W", "W_re", "b", "initial_c", "initial_h"]),
    "unit under a mask": (
        {"class": "masked_computation", "mask": "m", "from": "data", "name_scope": "x", "unit": {**LSTM}},
        ["x/rec/W", "x/rec/W_re", "x/rec/b"],
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_scope_stands_for_rec(name: str) -> None:
    """RETURNN's names: `rec/` is left out where a name_scope is given."""
    layer, expected = NAMES[name]
    network = {
        "output": layer,
        "s": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data"},
        "m": {"class": "compare", "kind": "greater", "from": "s", "value": 0},
    }
    built = build({"network": network, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}, "train")
    if name == "state":
        expected = [f"x/{one}" for one in expected]
    assert sorted(built.parameters) == sorted(expected)
