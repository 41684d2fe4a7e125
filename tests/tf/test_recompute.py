"""Gradients through what is computed again are those through what is kept, to the last bit.

Recurrences compute several steps at once, which is the same where their features fill whole vectors of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.compiler import Network

EXTERN_DATA = {"data": {"dim": 5}, "classes": {"dim": 6, "sparse": True, "time_dim_axis": 1}}
SOFTMAX = {"class": "softmax", "loss": "ce", "target": "classes"}
LENGTHS = {"data": [6, 4, 3], "classes": [6, 4, 3]}
Layers = dict[str, Any]


@pytest.fixture(autouse=True)
def same_operations() -> Iterator[None]:
    """TensorFlow's arithmetic optimiser rewrites sums that nothing else reads: forwards nothing reads the insides of
    what is computed again, so that these would be other operations."""
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    yield
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})


def linear(source: Any, **options: Any) -> Layers:
    return {"class": "linear", "activation": "tanh", "n_out": 4, "from": source, **options}


def recurrent(unit: Any, **options: Any) -> Layers:
    rec = {"class": "rec", "unit": unit, "n_out": 16, "from": "data", **options}
    rec = {key: value for key, value in rec.items() if value is not None}
    return {"r": rec, "output": {**SOFTMAX, "from": "r"}}


def between_states() -> Layers:
    """The states before come from another layer; what is after the last step is read, too."""
    network = recurrent("milstm", initial_state="start")
    network["start"] = {"class": "reduce", "mode": "mean", "axis": "T", "from": "to_start"}
    network["to_start"] = linear("data", n_out=16)
    network["last"] = {"class": "get_last_hidden_state", "from": "r", "n_out": 32, "loss": "as_is"}
    return network


def attention() -> Layers:
    unit = {
        "s": {"class": "rnn_cell", "unit": "lstm", "n_out": 6, "from": ["prev:c", "data:source"]},
        "q": linear("s", activation=None),
        "tanh": {"class": "activation", "activation": "tanh", "from": "e_in"},
        "e_in": {"class": "combine", "kind": "add", "from": ["base:keys", "q"]},
        "e": linear("tanh", n_out=1, activation=None, with_bias=False),
        "a": {"class": "softmax_over_spatial", "from": "e"},
        "c": {"class": "generic_attention", "weights": "a", "base": "base:enc"},
        "output": linear(["s", "c"], dropout=0.3),
    }
    return {
        "enc": linear("data"),
        "keys": linear("enc", activation=None),
        "emb": linear("data:classes", activation=None),
        "r": {"class": "rec", "unit": unit, "from": "emb", "target": "classes"},
        "output": {**SOFTMAX, "from": "r"},
    }


def masked() -> Layers:
    unit = {
        "mask": {"class": "compare", "kind": "greater", "from": "data:source", "value": 0},
        "any": {"class": "reduce", "mode": "any", "axis": "F", "from": "mask"},
        "m": {
            "class": "masked_computation",
            "mask": "any",
            "from": "h",
            "unit": {"class": "rec", "unit": "lstm", "n_out": 4},
        },
        "h": linear(["data:source", "prev:m"]),
        "output": linear(["m", "h", "prev:output"]),
    }
    return recurrent(unit, n_out=None)


def nested() -> Layers:
    inner = {"h": linear(["prev:h", "data:source", "base:h"]), "output": linear(["h", "prev:output"])}
    unit = {
        "h": linear(["prev:output", "data:source"]),
        "in": {"class": "rec", "unit": inner, "from": "base:data:data"},
        "last": {"class": "get_last_hidden_state", "from": "in", "n_out": 4},
        "sum": {"class": "reduce", "mode": "sum", "axis": "T", "from": "in"},
        "output": linear(["sum", "h"]),
    }
    network = recurrent(unit, n_out=None, **{"from": "emb"}) | {"emb": linear("data:classes", activation=None)}
    network["r"]["target"] = "classes"
    return network


def subnetwork() -> Layers:
    inside = {"a": linear("data", dropout=0.2), "b": linear("a", activation="relu"), "output": linear(["a", "b"])}
    return {
        "r": {"class": "subnetwork", "from": "data", "subnetwork": inside},
        "output": {**SOFTMAX, "from": "r"},
    }


WRAPPED = [{"class": "dropout", "cell": "milstm", "state_dropout": 0.3, "output_dropout": 0.2}, "gru"]
BIG = [{"class": "milstm", "units": 192}]
NETWORKS: Mapping[str, tuple[Layers, Any, int]] = {
    "lstm": (recurrent("lstm"), "all", 1),
    "lstm backwards": (recurrent("lstm", direction=-1), "all", 1),
    "steps": (recurrent("lstm"), ["steps"], 1),
    "gru": (recurrent("gru"), "all", 1),
    "gru that resets after": (recurrent("keras.gru"), "all", 1),
    "rnn": (recurrent("rnn"), "all", 1),
    "generic": (recurrent("milstm"), "all", 1),
    "large factors": (recurrent(BIG, n_out=192), "all", 1),
    "layer norm": (recurrent("layernormlstm"), "all", 1),
    "stack": (recurrent(["lstm", "milstm"]), "all", 1),
    "both directions": (recurrent("lstm", direction="both", n_out=32), "all", 1),
    "dropout": (recurrent(WRAPPED), "all", 0),
    "its steps": (recurrent("milstm"), ["steps"], 1),
    "first and last states": (between_states(), "all", 1),
    "attention": (attention(), "all", 0),
    "a list": (attention(), ["e_in", "tanh", "a"], 2),
    "masked": (masked(), "all", 0),
    "nested": (nested(), "all", 0),
    "subnetwork": (subnetwork(), "all", 1),
}


def gradients(network: Layers, optimize: bool, config: Mapping[str, Any]) -> tuple[str, Mapping[str, np.ndarray]]:
    """The IR, and the gradients of all parameters, which are random; the config may say more than the network."""
    whole = {"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21, **config}
    compiled = Network(whole, "train", optimize, "float32", {}, 42)
    for name, variable in compiled.params.items():
        generator = np.random.default_rng(sum(map(ord, name)))
        variable.assign(generator.normal(0, 0.5, variable.shape).astype("float32"))
    generator = np.random.default_rng(3)
    data = {"data": generator.normal(size=(3, 6, 5)), "classes": generator.integers(0, 6, (3, 6))}
    return str(compiled.graph), compiled.gradients(data, LENGTHS)


def assert_same_bits(network: Layers, option: Any, optimize: bool) -> str:
    _, expected = gradients(network, optimize, {})
    text, found = gradients(network | {"r": {**network["r"], "recompute": option}}, optimize, {})
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert any(np.any(gradient) for gradient in expected.values())
    return text


@pytest.mark.one_in(12)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_have_the_same_bits(name: str) -> None:
    network, option, count = NETWORKS[name]
    text = assert_same_bits(network, option, optimize=True)
    assert text.count("recompute {") == count or (not count and "recompute {" in text)


@pytest.mark.one_in(12)
@pytest.mark.parametrize("name", NETWORKS)
def test_without_optimisation_too(name: str) -> None:
    network, option, _ = NETWORKS[name]
    assert "recompute {" in assert_same_bits(network, option, optimize=False)


@pytest.mark.one_in(4)
def test_a_whole_config() -> None:
    network = attention()
    _, expected = gradients(network, True, {})
    text, found = gradients(network, True, {"recompute": "all"})
    assert "recompute {" in text
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("unit", ["lstm", "milstm"])
def test_no_steps(unit: str, direction: int) -> None:
    """A batch whose sequences are all empty has gradients, all of them zero."""
    network = recurrent(unit, direction=direction, recompute="all")
    whole = {"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}
    compiled = Network(whole, "train", True, "float32", {}, 42)
    data = {"data": np.zeros((3, 0, 5), "float32"), "classes": np.zeros((3, 0), "int32")}
    found = compiled.gradients(data, {"data": [0, 0, 0], "classes": [0, 0, 0]})
    assert found and all(np.array_equal(d, np.zeros_like(d)) for d in found.values())


def test_what_no_gradient_needs_has_sizes_that_fit() -> None:
    """TensorFlow does not know the features of what is pooled; the sum of both is checked, though its gradient needs
    neither."""
    network = {
        "h": linear("data", n_out=5),
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "pooled": {"class": "pool", "mode": "avg", "pool_size": (2,), "padding": "same", "from": "h"},
        "sum": {"class": "reduce", "mode": "sum", "axis": "T", "from": "pooled"},
        "both": {"class": "combine", "kind": "add", "from": ["mean", "sum"]},
        "to_frames": linear("both", activation=None),
        "output": {**SOFTMAX, "from": ["data", "to_frames"]},
    }
    _, expected = gradients(network, True, {})
    text, found = gradients(network, True, {"recompute": "all"})
    assert "recompute {" in text
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("optimize", [True, False])
def test_a_search_in_training(optimize: bool) -> None:
    """Minimum risk: the scores of hypotheses are differentiated through the steps that made them."""
    unit = {
        "acc": linear(["prev:acc", "prev:embed"]),
        "prob": {"class": "softmax", "from": ["acc", "base:start"], "n_out": 6},
        "output": {
            "class": "choice",
            "from": "prob",
            "target": "classes",
            "beam_size": 3,
            "initial_output": 0,
            "search": True,
            "length_normalization": False,
        },
        "embed": linear("output", initial_output=0),
    }
    risk = {"loss": "expected_loss", "loss_opts": {"loss": {"class": "edit_distance"}, "loss_kind": "error"}}
    network = {
        "start": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "r": {"class": "rec", "from": [], "target": "classes", "unit": unit},
        "risk": {"class": "copy", "from": "r", "target": "classes", **risk},
    }
    assert "recompute {" in assert_same_bits(network, "all", optimize)
