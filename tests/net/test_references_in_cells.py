"""Layers that the options of a cell name: built before, found by all that follows references, told where they are."""

from __future__ import annotations

from typing import Any

import pytest

import returnn_lite as rl
from returnn_lite.compiler import build
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.verification.reduction_steps import _bypassed

DATA = {"data": {"dim": 3}, "other": {"dim": 3}}
ENCODER = {"class": "linear", "n_out": 4, "from": "data:other"}


def attention(encoder: str, **options: Any) -> dict[str, Any]:
    return {"class": "lstm_attention", "units": 5, "encoder": encoder, **options}


UNITS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "in a dict": ({"unit": attention("enk")}, ("unit", "encoder")),
    "in a list": ({"unit": ["lstm", attention("enk")]}, ("unit", 1, "encoder")),
    "in a wrapper": (
        {"unit": {"class": "residual", "cell": {"class": "attention", "cell": "gru", "encoder": "enk"}}},
        ("unit", "cell", "encoder"),
    ),
    "around another": (
        {"unit": {"class": "attention", "encoder": "encoder", "cell": attention("enk")}},
        ("unit", "cell", "encoder"),
    ),
    "under another name": ({"unit": attention("encoder", keys="enk")}, ("unit", "keys")),
    "beside the name": (
        {"unit": "lstm_attention", "unit_opts": {"encoder": "enk", "units": 5}},
        ("unit_opts", "encoder"),
    ),
}


def network(layer: dict[str, Any], in_loop: bool) -> dict[str, Any]:
    if not in_loop:
        return {"output": {"class": "rec", "from": "data", "n_out": 5, **layer}, "encoder": ENCODER}
    loop = {
        "output": {"class": "rnn_cell", "from": "data:source", "n_out": 5, **layer},
        "encoder": {"class": "copy", "from": "base:encoder"},
    }
    return {"output": {"class": "rec", "from": "data", "unit": loop}, "encoder": ENCODER}


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("name", UNITS)
def test_a_name_that_is_wrong_is_told_where_it_is(name: str, in_loop: bool) -> None:
    layer, path = UNITS[name]
    with pytest.raises(ConfigError) as raised:
        build({"network": network(layer, in_loop), "extern_data": DATA, "behavior_version": 21}, "train")
    (found,) = raised.value.diagnostics
    assert found.path == ("network", "output", *(("unit", "output") if in_loop else ()), *path)
    assert "there is no layer 'enk'" in found.message
    assert "encoder" not in found.hint or "Did you mean 'encoder'" in found.hint


def test_what_is_no_reference() -> None:
    layers = network({"unit": ["gru", attention("prev:prev:encoder")]}, False)
    with pytest.raises(ConfigError) as raised:
        build({"network": layers, "extern_data": DATA, "behavior_version": 21}, "train")
    (found,) = raised.value.diagnostics
    assert found.path == ("network", "output", "unit", 1, "encoder")


@pytest.mark.parametrize("mode", ["train", "search"])
def test_layers_are_built_whatever_their_order(mode: Any) -> None:
    """The encoder comes after what names it, is made of layers that come after it, and only the cell needs it."""
    layers = network({"unit": attention("encoder")}, False)
    layers["encoder"] = {"class": "linear", "n_out": 4, "from": "below"}
    layers["below"] = {"class": "linear", "n_out": 4, "from": "data:other"}
    net = rl.compile(layers, DATA, mode, behavior_version=21)
    assert set(net.params) >= {"encoder/W", "below/W"}


def test_cells_in_layers_inside_of_others() -> None:
    inside = {"class": "rec", "from": "data", "unit": attention("base:encoder")}
    subnetwork = {"class": "subnetwork", "from": "data", "subnetwork": {"output": inside}}
    mask = {"class": "compare", "kind": "greater", "value": 0, "from": "one"}
    one = {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"}
    cell = {"class": "rnn_cell", "from": "data", "unit": attention("base:encoder")}
    masked = {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": cell}
    loop = {"class": "rec", "from": "data", "unit": {"output": masked, "mask": mask, "one": one}}
    for output in (subnetwork, loop):
        layers = {"output": output, "encoder": ENCODER}
        assert "encoder/W" in rl.compile(layers, DATA, "train", behavior_version=21).params


def test_a_reduction_follows_them() -> None:
    """Taking out a layer has what named it name its source; the options of a cell name layers of its own network."""
    config = {"network": network({"unit": ["gru", attention("encoder")]}, False)}
    reduced = _bypassed(config, ("network", "encoder"), ["data:other"])
    assert reduced["network"]["output"]["unit"] == ["gru", attention("data:other")]
    config = {"network": network({"unit": attention("encoder")}, False)}
    reduced = _bypassed(config, ("network", "encoder"), ["data:other"])
    assert reduced["network"]["output"]["unit"] == attention("data:other")
