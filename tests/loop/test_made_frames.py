"""Frames that are made under a mask in a loop: read under it they are right, and elsewhere refused. Numbers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

BOTH = pytest.mark.parametrize("optimize", [True, False])
X = np.array([[1, -2, 3, -4, 5], [-1, -2, 6, 7, 8]], "float32")[..., None]
LENGTHS = [5, 3]
FEW = np.array([[10, 20, 30], [40, 50, 60]], "float32")[..., None]
FEW_LENGTHS = [3, 2]
Layers = dict[str, Any]
DATA = "data:source"
SUM = {"class": "reduce", "mode": "sum", "axis": "except_batch", "from": "data"}
COPY = {"class": "copy", "from": "data"}
COUNT = {
    "ints": {"class": "cast", "dtype": "int32", "from": "data"},
    "count": {"class": "reduce", "mode": "sum", "axis": "F", "from": "ints"},
}


def history(source: str = "data") -> Layers:
    return {"class": "cum_concat", "from": source, "out_spatial_dim": rl.Dim("history")}


def unit(**layers: Layers) -> Layers:
    return {"class": "subnetwork", "from": "data", "subnetwork": layers}


def masked(inner: Layers, source: str = DATA, mask: str = "positive", **options: Any) -> Layers:
    return {"class": "masked_computation", "mask": mask, "from": source, "unit": inner, **options}


def counting(limit: str) -> Layers:
    """1, 2, 3, ... up to the number before the limit, at which it ends."""
    more = {"class": "eval", "from": "prev:i", "eval": "source(0) + 1", "initial_output": 0}
    return {"class": "rec", "from": [], "max_seq_len": 9, "unit": {
        "i": {**more, "out_type": {"dtype": "int32", "shape": ()}},
        "end": {"class": "compare", "kind": "greater_equal", "from": ["i", limit]},
        "output": {"class": "cast", "dtype": "float32", "from": "i"},
    }}  # fmt: skip


MADE: dict[str, tuple[Layers, list[float]]] = {
    "cum_concat": (history(), [1, 4, 9, 6]),
    "cum_concat inside": (unit(c=history(), output={"class": "copy", "from": "c"}), [1, 4, 9, 6]),
    "padded": (
        unit(c=history(), output={"class": "pad", "axes": "stag:history", "padding": (1, 0), "value": 2, "from": "c"}),
        [3, 6, 11, 8],
    ),
    "postfix": (unit(c=history(), output={"class": "postfix_in_time", "postfix": 7.0, "from": "c"}), [8, 11, 16, 13]),
    "range": (unit(**COUNT, output={"class": "range_from_length", "from": "count"}), [0, 3, 10, 15]),
    "slice": (unit(**COUNT, output={"class": "slice_nd", "from": "base:base:few", "start": "count", "size": None}),
              [50, 0, 0, 0]),
    "boolean_mask": (
        unit(
            moved={"class": "combine", "kind": "add", "from": ["data", "base:base:few"]},
            level={"class": "reduce", "mode": "sum", "axis": "F", "from": "moved"},
            mask={"class": "compare", "kind": "greater", "value": 21.5, "from": "level"},
            output={"class": "boolean_mask", "from": "moved", "mask": "mask", "dims": "T"},
        ),
        [31, 56, 60, 102],
    ),
    "loop that ends itself": (unit(**COUNT, output=counting("base:count")), [0, 3, 10, 15]),
    "such a loop of what no step changes": (counting("base:base:number"), [3, 3, 3, 1]),
}  # fmt: skip
"""What is made of a frame under the mask, and the sums over it for 1, 3 and 5 of the first sequence and 6 of the
second: `cum_concat` has [1], [1, 3], [1, 3, 5] and [6]."""


def network(layers: Layers) -> Layers:
    level = {"class": "reduce", "mode": "sum", "axis": "F", "from": DATA}
    masks = {
        "level": level,
        "positive": {"class": "compare", "kind": "greater", "value": 0, "from": "level"},
        "large": {"class": "compare", "kind": "greater", "value": 2, "from": "level"},
    }
    few = {"few": {"class": "copy", "from": "data:few"}, "number": {"class": "length", "axis": "T", "from": "few"}}
    return {**few, "output": {"class": "rec", "from": "data", "unit": {**masks, **layers}}}


def compiled(layers: Layers, optimize: bool, mode: Any = "forward") -> rl.Network:
    data = {"data": {"dim": 1}, "few": {"dim": 1}}
    return rl.compile(network(layers), extern_data=data, mode=mode, behavior_version=21, optimize=optimize)


def found(layers: Layers, optimize: bool) -> list[list[float]]:
    out = compiled(layers, optimize).run({"data": X, "few": FEW}, {"data": LENGTHS, "few": FEW_LENGTHS})
    value = np.asarray(out.layers["output"].value).reshape(2, 5)
    return [row[:length].tolist() for row, length in zip(value, LENGTHS, strict=True)]


def refused(layers: Layers, optimize: bool = True) -> str:
    config = {"network": network(layers), "extern_data": {"data": {"dim": 1}, "few": {"dim": 1}}}
    with pytest.raises(rl.ConfigError) as caught:
        rl.check({**config, "behavior_version": 21}, mode="forward", optimize=optimize)
    return str(caught.value)


def held(sums: list[float]) -> list[list[float]]:
    """Sums at the four true masks, held from each to the next, and zero before."""
    one, three, five, six = sums
    return [[one, one, three, three, five], [0, 0, six]]


@BOTH
@pytest.mark.parametrize("name", MADE)
def test_under_the_same_mask(name: str, optimize: bool) -> None:
    """Without optimisation, too, where all layers are shown that can be."""
    made, sums = MADE[name]
    layers = {"made": masked(made), "sum": masked(SUM, "made"), "output": {"class": "copy", "from": "sum"}}
    assert found(layers, optimize) == held(sums)


@BOTH
@pytest.mark.parametrize("name", [name for name in MADE if "no step" not in name and "cum" not in name])
def test_made_at_each_step_and_read_under_a_mask(name: str, optimize: bool) -> None:
    made, sums = MADE[name]
    if name in ("padded", "postfix"):  # of a history that sees each frame
        added = 2 if name == "padded" else 7
        sums = [1 + added, 2 + added, 3 + added, 3 + added]
    layers = {"made": {**made, "from": DATA}, "sum": masked(SUM, "made"), "output": {"class": "copy", "from": "sum"}}
    assert found(layers, optimize) == held(sums)


@BOTH
def test_a_history_of_all_steps_read_under_a_mask(optimize: bool) -> None:
    """1; 1 - 2 + 3; 1 - 2 + 3 - 4 + 5; -1 - 2 + 6."""
    layers = {"made": history(DATA), "sum": masked(SUM, "made"), "output": {"class": "copy", "from": "sum"}}
    assert found(layers, optimize) == held([1, 2, 3, 3])


@BOTH
def test_a_mask_in_the_mask(optimize: bool) -> None:
    """The sum is taken where the frame is above 2, of a history of the positive ones."""
    inner = unit(made=history(), sum=masked(SUM, "made", "base:large"), output={"class": "copy", "from": "sum"})
    layers = {"both": masked(inner), "output": {"class": "copy", "from": "both"}}
    assert found(layers, optimize) == [[0, 0, 4, 4, 9], [0, 0, 6]]


@BOTH
@pytest.mark.parametrize(
    ("further", "sums"), [("positive", held([1, 4, 9, 6])), ("large", [[0, 0, 3, 3, 8], [0, 0, 6]])], ids=str
)
def test_frames_of_a_mask_in_the_mask_stay_there(further: str, sums: list[list[float]], optimize: bool) -> None:
    """The history of the frames at which both masks are true is read where it is made; others see its sum alone."""
    inner = masked(unit(made=history(), output={**SUM, "from": "made"}), "data", f"base:{further}")
    outer = masked(unit(inner=inner, output={"class": "copy", "from": "inner"}))
    assert found({"outer": outer, "output": {"class": "copy", "from": "outer"}}, optimize) == sums


@BOTH
def test_its_length_is_a_number_that_is_held(optimize: bool) -> None:
    layers = {"made": masked(history()), "output": {"class": "length", "axis": "T", "from": "made"}}
    assert found(layers, optimize) == [[1, 1, 2, 2, 3], [0, 0, 1]]


@BOTH
def test_a_state_along_frames_that_no_step_changes(optimize: bool) -> None:
    """0, 1, 2 (the second sequence: 0, 1) are added up at each true mask: 3, 6, 9; 1."""
    numbers = {
        "range": {"class": "range_from_length", "from": "base:base:number"},
        "frames": {"class": "cast", "dtype": "float32", "from": "range"},
    }
    so_far = unit(**numbers, output={"class": "combine", "kind": "add", "from": ["frames", "prev:output"]})
    layers = {"made": masked(so_far), "sum": masked(SUM, "made"), "output": {"class": "copy", "from": "sum"}}
    assert found(layers, optimize) == held([3, 6, 9, 1])


@BOTH
def test_gradients_through_it(optimize: bool) -> None:
    """d/dw of the sum of w times the frames so far, at each step: 1 + 1 + 4 + 4 + 9 and 6."""
    linear = unit(c=history(), output={"class": "linear", "n_out": 1, "with_bias": False, "from": "c"})
    layers = {"made": masked(linear), "sum": masked(SUM, "made"),
              "output": {"class": "copy", "from": "sum", "loss": "as_is"}}  # fmt: skip
    net = compiled(layers, optimize, "train")
    (gradient,) = net.gradients({"data": X, "few": FEW}, {"data": LENGTHS, "few": FEW_LENGTHS}).values()
    np.testing.assert_allclose(gradient, [[25]])


READERS: dict[str, tuple[Layers, str]] = {
    "each step": ({"output": {**SUM, "from": "made"}}, "output"),
    "unmask": (
        {"whole": {"class": "unmask", "from": "made", "mask": "positive"}, "output": {**SUM, "from": "whole"}},
        "output",
    ),
    "another mask": (
        {"other": masked(SUM, "made", "large"), "output": {"class": "copy", "from": "other"}}, "other.unit",
    ),
    "the result": ({"output": {"class": "copy", "from": "made"}}, "output"),
    "an output": (
        {"y": {**COPY, "from": "made", "is_output_layer": True}, "output": {**COPY, "from": DATA}}, "y",
    ),
    "a loop": (
        {"inner": {"class": "rec", "from": "made", "unit": {"output": {**COPY, "from": DATA}}},
         "output": {**SUM, "from": "inner"}},
        "inner",
    ),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["cum_concat", "padded", "range", "loop that ends itself"])
def test_outside_of_the_mask_they_are_refused(name: str, reader: str, optimize: bool) -> None:
    layers, where = READERS[reader]
    said = refused({"made": masked(MADE[name][0]), **layers}, optimize)
    assert f"network.output.unit.{where}: there may be other frames" in said
    assert "each time that the mask 'output/positive' is true" in said
    assert "Reduce or pick frames under the mask" in said


@BOTH
def test_values_along_frames_of_each_step_are_not_held(optimize: bool) -> None:
    """What is computed of them under a mask has those of that step, of which there are more at the next."""
    layers = {"made": history(DATA), "y": masked({"class": "activation", "activation": "tanh", "from": "data"}, "made"),
              "output": {**SUM, "from": "y"}}  # fmt: skip
    assert "network.output.unit.output: there may be other frames (history)" in refused(layers, optimize)


@BOTH
def test_frames_that_no_step_changes_are_held(optimize: bool) -> None:
    """Two of 10, 20, 30 are above 11, and both of 40 and 50."""
    picked = unit(
        level={"class": "reduce", "mode": "sum", "axis": "F", "from": "base:base:few"},
        mask={"class": "compare", "kind": "greater", "value": 11, "from": "level"},
        output={"class": "boolean_mask", "from": "base:base:few", "mask": "mask", "dims": "T"},
    )
    assert found({"made": masked(picked), "output": {**SUM, "from": "made"}}, optimize) == held([50, 50, 50, 90])


def test_a_layer_that_is_not_there_at_each_step_is_not_shown() -> None:
    net = compiled({"made": masked(history()), "output": masked(SUM, "made")}, optimize=False)
    with pytest.raises(ValueError, match="no layer 'output/made'"):
        net.run({"data": X, "few": FEW}, {"data": LENGTHS, "few": FEW_LENGTHS}, layers=["output/made"])


@BOTH
@pytest.mark.parametrize("layer", [True, False])
def test_they_can_be_printed(layer: bool, optimize: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """A print is asked for at each step, though nothing else reads them there: by a layer, and beside one."""
    if layer:
        inner = unit(made=history(), shown={"class": "print", "from": "made"}, output={**SUM, "from": "shown"})
    else:
        inner = unit(shown={**history(), "debug_print_layer_output": True}, output={**SUM, "from": "shown"})
    assert found({"sum": masked(inner), "output": {"class": "copy", "from": "sum"}}, optimize) == held([1, 4, 9, 6])
    assert "output/sum/unit/shown" in "".join(capfd.readouterr())


OUTSIDE = {
    "a loop's histories": {"class": "rec", "from": "data", "unit": {
        "c": history(DATA), "output": {"class": "copy", "from": "c"}}},
    "ranges": MADE["range"][0],
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_of_loops_they_are_not_unmasked(name: str, optimize: bool) -> None:
    """They were as many in each frame as in the frame of their number among the masked ones."""
    layers = {
        "level": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data"},
        "positive": {"class": "compare", "kind": "greater", "value": 0, "from": "level"},
        "made": masked(OUTSIDE[name], "data"),
        "output": {"class": "unmask", "from": "made", "mask": "positive"},
    }
    config = {"network": layers, "extern_data": {"data": {"dim": 1}}, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match=r"network\.output\.from: how many .* differs between the frames"):
        rl.check(config, mode="forward", optimize=optimize)
