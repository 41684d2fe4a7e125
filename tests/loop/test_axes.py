"""Axes in a step mean the same where the layer has left its loop: inner frames, numbers, and names of sets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.loop.probing import Layers, add, check, everywhere, linear, over_inner_frames, refused

FLOAT = {"class": "cast", "dtype": "float32", "from": "n"}
CONV = {"class": "conv", "filter_size": (3,), "padding": "same", "n_out": 3, "activation": None, "with_bias": True}


def of_x(layer: str, **options: Any) -> dict[str, Any]:
    return {"class": layer, "from": "x", **options}


INNER: dict[str, Layers] = {
    "conv": {"probe": {**CONV, "from": "x"}},
    "conv valid": {"probe": {**CONV, "padding": "valid", "in_spatial_dims": ["T"], "from": "x"}},
    "conv strides": {"probe": {**CONV, "strides": 2, "from": "x"}},
    "transposed_conv": {"probe": {**CONV, "class": "transposed_conv", "strides": (2,), "from": "x"}},
    "pool max": {"probe": of_x("pool", mode="max", pool_size=(2,), padding="same", in_spatial_dims=["T"])},
    "pool avg": {"probe": of_x("pool", mode="avg", pool_size=(2,), padding="valid")},
    **{f"reduce {m}": {"probe": of_x("reduce", mode=m, axis="T")} for m in ("mean", "max", "min", "sum", "logsumexp")},
    "reduce argmax": {
        "best": of_x("reduce", mode="argmax", axis="T"),
        "probe": of_x("gather", position="best", axis="T"),
    },
    "softmax_over_spatial": {"probe": of_x("softmax_over_spatial")},
    "slice": {"probe": of_x("slice", axis="T", slice_start=1)},
    "slice step": {"probe": of_x("slice", axis="T", slice_step=2)},
    "length": {"n": of_x("length", axis="T"), "f": FLOAT, "probe": add("x", "f")},
    "range_in_axis": {"n": of_x("range_in_axis", axis="T"), "f": FLOAT, "probe": add("x", "f")},
    "shift_axis": {"probe": of_x("shift_axis", axis="T", amount=1)},
    "shift_axis left": {"probe": of_x("shift_axis", axis="T", amount=-1)},
    "prefix_in_time": {"probe": of_x("prefix_in_time", prefix=0.5)},
    "postfix_in_time": {
        "mean": of_x("reduce", mode="mean", axis="T"),
        "probe": of_x("postfix_in_time", postfix="mean"),
    },
    "pad": {"probe": of_x("pad", axes="T", padding=(1, 1), mode="constant", value=0.5)},
    "repeat": {"probe": of_x("repeat", repetitions=2)},
    "concat": {"probe": {"class": "concat", "from": (("x", "T"), ("memory", "T"))}},
    "seq_len_mask": {"probe": of_x("seq_len_mask", axis="T", mask_value=0.0)},
    "split_dims": {
        "pieces": of_x("split_dims", axis="T", dims=(-1, 2)),
        "probe": {"class": "reduce", "mode": "mean", "axis": "static:0", "from": "pieces"},
    },
    "positional_encoding": {"probe": of_x("positional_encoding", add_to_input=True)},
    "spatial": {"probe": of_x("softmax_over_spatial", axis="spatial")},
    "dyn:0": {"probe": of_x("reduce", mode="mean", axis="dyn:0")},
    "spatial:0": {"probe": of_x("reduce", mode="max", axis="spatial:0")},
    "stag": {"probe": of_x("reduce", mode="mean", axis="stag:memory")},
    "except_batch": {"mean": of_x("reduce", mode="mean", axis="except_batch"), "probe": add("x", "mean")},
    "except_time": {"mean": of_x("reduce", mode="mean", axis="except_time"), "probe": add("x", "mean")},
    "a number": {"probe": of_x("eval", eval="tf.nn.softmax(source(0), axis=2)")},
    "norm except_batch": {"probe": of_x("norm", axes="except_batch")},
}


@pytest.mark.one_in(2)
@over_inner_frames
@pytest.mark.parametrize("name", INNER)
def test_inner_frames(name: str, place: str) -> None:
    """In a step "T" is the axis of the inner frames; so it is outside."""
    check(INNER[name], place, inner=True)


HALVES = of_x("split_dims", axis="F", dims=(2, 2))
STEP: dict[str, Layers] = {
    "axis 1": {"probe": of_x("eval", eval="tf.nn.softmax(source(0), axis=1)")},
    "axis -1": {"probe": of_x("eval", eval="tf.reduce_sum(source(0), axis=-1, keepdims=True) * source(0)")},
    **{
        f"merge {axes}": {"y": HALVES, "probe": {"class": "merge_dims", "axes": axes, "from": "y"}}
        for axes in ("except_batch", "static")
    },
    "merge several": {"y": HALVES, "probe": {"class": "merge_dims", "axes": ["static:0", "F"], "from": "y"}},
    "expand spatial": {
        "y": of_x("expand_dims", axis="spatial"),
        "probe": {"class": "squeeze", "axis": "dim:1", "from": "y"},
    },
    "swap_axes": {
        "y": HALVES,
        "z": {"class": "swap_axes", "axis1": "static:0", "axis2": "static:1", "from": "y"},
        "probe": {"class": "merge_dims", "axes": ["static:0", "static:1"], "from": "z"},
    },
    "split": {
        "y": of_x("split", axis="F", num_splits=2),
        "probe": {"class": "combine", "kind": "mul", "from": ["y/0", "y/1"]},
    },
}


@everywhere
@pytest.mark.parametrize("name", STEP)
def test_axes_of_one_step(name: str, place: str) -> None:
    """Numbers count the batch first, and the loop is none of a step's axes."""
    check(STEP[name], place)


DOTS: dict[str, Any] = {
    "reduce": {"reduce": "F"},
    "red": {"red1": "F", "red2": "F"},
    "var": {"red1": "F", "red2": "F", "var1": "T", "var2": "T?"},
    "var auto": {"red1": "F", "red2": "F", "var1": "auto", "var2": "auto"},
    "var none": {"red1": "F", "red2": "F", "var1": "T", "var2": None},
    "static": {"red1": "static:0", "red2": "static:0", "var1": "T", "var2": None},
}


@pytest.mark.one_in(2)
@everywhere
@pytest.mark.parametrize("name", DOTS)
def test_dot(name: str, place: str) -> None:
    """Energies of inner frames: the steps are none of the operands' own axes."""
    attention = {
        "energy": {"class": "dot", "from": ["memory", "x"], **DOTS[name]},
        "weights": {"class": "softmax_over_spatial", "axis": "stag:memory", "from": "energy"},
        "probe": {"class": "generic_attention", "weights": "weights", "base": "memory", "from": []},
    }
    check(attention, place)


@pytest.mark.parametrize(
    "layer", [of_x("postfix_in_time"), of_x("prefix_in_time"), of_x("shift_axis", axis="T", amount=1)]
)
def test_steps_are_no_axis(layer: dict[str, Any]) -> None:
    """What lengthens or shifts a sequence has no meaning for one step."""
    refused({"y": layer, "probe": linear("y")}, "labels", "there is no axis 'T'")
