"""Layers of a loop that look at steps to come: they leave the loop, or say in which cycle they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

LENGTHS = [5, 3]
X = np.random.default_rng(2).normal(size=(2, 5, 2)).astype("float32")
WINDOW = {"class": "window", "window_size": 3}
ATTENTION = {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 2}
BOTH = pytest.mark.parametrize("optimize", [True, False])


def run(network: dict[str, Any], optimize: bool, name: str = "output") -> tuple[np.ndarray, tuple[str, ...]]:
    net = rl.compile(network, extern_data={"data": {"dim": 2}}, mode="eval", behavior_version=21, optimize=optimize)
    for parameter, variable in sorted(net.params.items()):
        variable.assign(np.random.default_rng(len(parameter.split("/")[-1])).normal(size=variable.shape))
    out = net.run({"data": X}, {"data": LENGTHS}).layers[name]
    return out.value, out.dims


def looped(unit: dict[str, Any]) -> dict[str, Any]:
    return {"output": {"class": "rec", "from": "data", "unit": unit}}


@BOTH
@pytest.mark.parametrize("layer", [WINDOW, ATTENTION], ids=["window", "self_attention"])
def test_in_a_loop_as_outside(layer: dict[str, Any], optimize: bool) -> None:
    """With a layer that stays in the loop before it, and one after it."""
    total = {"class": "reduce", "mode": "sum", "axis": "stag:window"} if layer is WINDOW else {"class": "copy"}
    outside = {"h": {"class": "cumsum", "from": "data"}, "y": {**layer, "from": "h"}, "t": {**total, "from": "y"}}
    outside |= {"output": {"class": "cumsum", "from": "t"}}
    cycle = {"class": "eval", "eval": "source(0) + source(1)"}
    inside: dict[str, Any] = {"h": {**cycle, "from": ["prev:h", "data:source"]}, "y": {**layer, "from": "h"}}
    inside |= {"t": {**total, "from": "y"}, "output": {**cycle, "from": ["prev:output", "t"]}}
    expected, dims = run(outside, optimize)
    found, own = run(looped(inside), optimize)
    assert own[:2] == dims[:2] == ("B", "data:time")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_under_a_mask_the_frames_around_are_those_of_the_mask(optimize: bool) -> None:
    """Of 1, -1, 2, -3, 4 the positive ones with their neighbours among them: 1+2, 1+2+4, 2+4."""
    mask = {"class": "compare", "kind": "greater", "value": 0, "from": "x"}
    around = {
        "w": {"class": "window", "window_size": 3, "from": "data"},
        "output": {"class": "reduce", "mode": "sum", "axis": "stag:window", "from": "w"},
    }
    masked = {"class": "subnetwork", "from": "data", "subnetwork": around}
    unit = {
        "x": {"class": "squeeze", "axis": "F", "from": "data:source"},
        "m": mask,
        "output": {"class": "masked_computation", "mask": "m", "from": "x", "unit": masked},
    }
    data = np.array([[1, -1, 2, -3, 4]], "float32")[..., None]
    net = rl.compile(looped(unit), {"data": {"dim": 1}}, mode="eval", behavior_version=21, optimize=optimize)
    assert net.run({"data": data}, {"data": [5]}).layers["output"].value.ravel().tolist() == [3, 3, 7, 7, 6]


@BOTH
@pytest.mark.parametrize(
    ("layer", "hint"),
    [(WINDOW, "window_right: 0"), (ATTENTION, "attention_left_only: true")],
    ids=["window", "attention"],
)
def test_in_a_cycle_the_error_names_it(layer: dict[str, Any], hint: str, optimize: bool) -> None:
    unit = {
        "a": {"class": "linear", "activation": "tanh", "n_out": 2, "from": ["prev:b", "data:source"]},
        "y": {**layer, "from": "a"},
        "b": {"class": "reduce", "mode": "sum", "axis": "stag:window", "from": "y"} if layer is WINDOW else None,
        "output": {"class": "copy", "from": "b"},
    }
    unit["b"] = unit["b"] or {"class": "copy", "from": "y"}
    with pytest.raises(rl.ConfigError) as error:
        run(looped(unit), optimize)
    text = str(error.value)
    assert "network.output.unit.y" in text
    assert "needs all steps of the loop at once" in text
    assert "output/a" in text
    assert hint in text


@BOTH
@pytest.mark.parametrize("layer", [WINDOW, ATTENTION], ids=["window", "self_attention"])
def test_what_sequences_share_ends_with_each(layer: dict[str, Any], optimize: bool) -> None:
    """The number of the step has no batch, but a sequence has no steps beyond its length."""
    step = {"class": "linear", "activation": None, "n_out": 2, "from": "i"}
    cast = {"class": "cast", "dtype": "float32", "from": ":i"}
    unit = {"c": cast, "i": {"class": "expand_dims", "axis": "F", "from": "c"}, "x": step}
    unit |= {"output": {**layer, "from": "x"}, "read": {"class": "copy", "from": "data:source"}}
    found, dims = run(looped(unit), optimize)
    data, lengths = X[1:, : LENGTHS[1]], LENGTHS[1:]
    net = rl.compile(looped(unit), extern_data={"data": {"dim": 2}}, mode="eval", behavior_version=21)
    for parameter, variable in sorted(net.params.items()):
        variable.assign(np.random.default_rng(len(parameter.split("/")[-1])).normal(size=variable.shape))
    alone = net.run({"data": data}, {"data": lengths}).layers["output"]
    steps = dims.index("data:time")
    np.testing.assert_allclose(
        np.moveaxis(found, steps, 1)[1, : lengths[0]],
        np.moveaxis(alone.value, alone.dims.index("data:time"), 1)[0],
        rtol=1e-5,
    )


@BOTH
@pytest.mark.parametrize("layer", [WINDOW, ATTENTION], ids=["window", "self_attention"])
def test_behind_a_search_each_hypothesis_has_its_length(layer: dict[str, Any], optimize: bool) -> None:
    """Also where a layer reads nothing that a hypothesis has chosen."""
    unit = {
        "x": {"class": "positional_encoding", "add_to_input": True, "from": "base:context"},
        "behind": {**layer, "from": "x", "is_output_layer": True},
        "prob": {"class": "softmax", "from": "prev:embed", "target": "classes"},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 2, "initial_output": 1},
        "embed": {"class": "linear", "activation": None, "n_out": 2, "from": "output"},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    context = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    loop = {"class": "rec", "from": [], "target": "classes", "unit": unit, "max_seq_len": 4}
    extern = {"data": {"dim": 2}, "classes": {"dim": 3, "sparse": True, "available_for_inference": False}}
    net = rl.compile(
        {"context": context, "output": loop}, extern, mode="search", optimize=optimize, behavior_version=21
    )
    for variable in net.params.values():
        variable.assign(np.ones(variable.shape))
    net.params["output/rec/prob/b"].assign([1, 2, 0])
    out = net.run({"data": X}, {"data": LENGTHS}).layers
    lengths = out["output"].seq_lens["output:time"]
    behind = out["output/behind"]
    assert sorted(lengths[0].tolist()) == [3, 4]
    assert behind.dims[:2] == ("B", "output/output:beam")
    frames = np.moveaxis(behind.value, behind.dims.index("output:time"), 2)
    for number, length in enumerate(lengths[0]):
        if layer is WINDOW:
            assert frames[0, number, : length - 1, -1].all(), "the frame after each"
            assert not frames[0, number, length - 1, -1].any(), "after the last there is none"
    if layer is ATTENTION:
        assert not np.allclose(frames[0, 0, 0], frames[0, 1, 0]), "one sees a frame more"
