"""concat, tile, stack and repeat: per sequence, in loops and outside, optimised and as built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

X = np.arange(12, dtype="float32").reshape(2, 3, 2)
Y = 100 + np.arange(16, dtype="float32").reshape(2, 4, 2)
LENGTHS = {"data": [3, 2], "other": [2, 4]}
EXTERN_DATA = {"data": {"dim": 2}, "other": {"dim": 2}}
BOTH = pytest.mark.parametrize("optimize", [True, False])


def compiled(network: dict[str, Any], optimize: bool = True) -> Any:
    return rl.compile(network, extern_data=EXTERN_DATA, mode="forward", behavior_version=21, optimize=optimize)


def frames(network: dict[str, Any], optimize: bool = True) -> list[np.ndarray]:
    """The real frames [T, F] of each sequence of the layer `output`, whose time comes first."""
    out = compiled(network, optimize).run({"data": X, "other": Y}, LENGTHS).layers["output"]
    value = np.asarray(out.value)
    (time,) = [dim for dim in out.dims if dim in out.seq_lens]
    value = np.moveaxis(value, [out.dims.index("B"), out.dims.index(time)], [0, 1])
    return [row[:length] for row, length in zip(value, out.seq_lens[time], strict=True)]


def message(network: dict[str, Any]) -> str:
    with pytest.raises(rl.ConfigError) as error:
        compiled(network)
    return str(error.value)


def test_concat_joins_sequences_behind_their_own_ends() -> None:
    concat = {"class": "concat", "from": [["data", "T"], ["data:other", "T"]]}
    first, second = frames({"output": concat})
    np.testing.assert_array_equal(first, [*X[0, :3], *Y[0, :2]])
    np.testing.assert_array_equal(second, [*X[1, :2], *Y[1, :4]])


@BOTH
def test_concat_of_features_in_a_loop(optimize: bool) -> None:
    """The same as the source list of a copy, as pairs; one of them the step before."""
    unit = {"output": {"class": "concat", "from": [("data:source", "F"), ("prev:x", "F")], "out_dim": 4}}
    unit["x"] = {"class": "eval", "eval": "source(0) * 2", "from": "data:source"}
    first, second = frames({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    for found, source, length in ((first, X[0], 3), (second, X[1], 2)):
        before = np.concatenate([np.zeros((1, 2)), 2 * source[: length - 1]])
        np.testing.assert_array_equal(found, np.concatenate([source[:length], before], axis=-1))


@BOTH
def test_concat_over_a_sequence_inside_of_a_loop(optimize: bool) -> None:
    """In each step, another sequence with the step's frame behind it: the sum of all of it."""
    unit = {
        "frame": {"class": "expand_dims", "axis": "spatial", "from": "data:source"},
        "all": {"class": "concat", "from": [["base:data:other", "T"], ["frame", "static:0"]]},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "all"},
    }
    first, second = frames({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    np.testing.assert_array_equal(first, X[0, :3] + Y[0, :2].sum(0))
    np.testing.assert_array_equal(second, X[1, :2] + Y[1, :4].sum(0))


def test_concat_broadcasts_only_where_it_may() -> None:
    least = {"class": "reduce", "mode": "min", "axis": "F", "from": "data"}
    concat = {"class": "concat", "from": [["data", "T"], ["least", "T"]]}
    assert "allow_broadcast" in message({"least": least, "output": concat})
    first, second = frames({"least": least, "output": {**concat, "allow_broadcast": True}})
    np.testing.assert_array_equal(first, [*X[0, :3], *np.repeat(X[0, :3, :1], 2, axis=-1)])
    np.testing.assert_array_equal(second, [*X[1, :2], *np.repeat(X[1, :2, :1], 2, axis=-1)])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"from": ["data"]}, "expected pairs of a layer and an axis"),
        ({"from": [["data", "B"], ["data", "B"]]}, "batch dim"),
        ({"from": [["data", "F"], ["length", "F"]]}, "axis 'F'"),
        ({"out_dim": 3}, "out_dim is 3"),
        ({"from": [["data", "F"], ["cast", "F"]]}, "one dtype"),
    ],
)
def test_wrong_concat(more: dict[str, Any], expected: str) -> None:
    length = {"class": "length", "from": "data"}
    cast = {"class": "cast", "dtype": "int32", "from": "data"}
    concat = {"class": "concat", "from": [["data", "F"], ["data", "F"]], **more}
    assert expected in message({"length": length, "cast": cast, "output": concat})


@BOTH
@pytest.mark.parametrize("in_loop", [False, True])
def test_tile_repeats_features(in_loop: bool, optimize: bool) -> None:
    tile = {"class": "tile", "multiples": {"F": 3}, "out_dims": {"F": 6}, "n_out": 6}
    network: dict[str, Any] = {"output": {**tile, "from": "data"}}
    if in_loop:
        unit = {
            "output": {**tile, "from": "x"},
            "x": {"class": "combine", "kind": "add", "from": ["data:source", "prev:x"]},
        }
        network = {"output": {"class": "rec", "from": "data", "unit": unit}}
    first, second = frames(network, optimize)
    rows = np.cumsum(X, axis=1) if in_loop else X
    np.testing.assert_array_equal(first, np.tile(rows[0, :3], (1, 3)))
    np.testing.assert_array_equal(second, np.tile(rows[1, :2], (1, 3)))


def test_tile_repeats_each_sequence() -> None:
    """Twice in a row without what was padded."""
    first, second = frames({"output": {"class": "tile", "multiples": {"T": 2}, "from": "data"}})
    np.testing.assert_array_equal(first, [*X[0, :3], *X[0, :3]])
    np.testing.assert_array_equal(second, [*X[1, :2], *X[1, :2]])


def test_wrong_tile() -> None:
    assert "B can't be repeated" in message({"output": {"class": "tile", "multiples": {"B": 2}, "from": "data"}})
    assert "0 times" in message({"output": {"class": "tile", "multiples": {"T": 0}, "from": "data"}})
    assert "not in multiples" in message(
        {"output": {"class": "tile", "multiples": {"T": 2}, "out_dims": {"F": 2}, "from": "data"}}
    )


@BOTH
@pytest.mark.parametrize("in_loop", [False, True])
def test_stack_aligns_its_sources(in_loop: bool, optimize: bool) -> None:
    """Two maps to features of the same size by other names are stacked; the sum over the new axis is theirs."""
    network: dict[str, Any] = {}
    for name, value in (("a", 1.0), ("b", 2.0)):
        network[name] = {
            "class": "linear",
            "from": "data",
            "n_out": 3,
            "with_bias": False,
            "forward_weights_init": value,
        }
    network["stack"] = {"class": "stack", "from": ["a", "b"], "axis": -1}
    network["output"] = {"class": "reduce", "mode": "sum", "axis": "static:0", "from": "stack"}
    if in_loop:
        network = {"output": {"class": "rec", "from": "data", "unit": network}}
    first, second = frames(network, optimize)
    for found, source, length in ((first, X[0], 3), (second, X[1], 2)):
        np.testing.assert_array_equal(found, np.repeat(3 * source[:length].sum(-1, keepdims=True), 3, axis=-1))


def test_stack_of_ints_keeps_the_larger_range() -> None:
    """300 does not fit into the int8 that the other source has."""
    network: dict[str, Any] = {
        "small": {"class": "cast", "dtype": "int8", "from": "data"},
        "large": {"class": "eval", "eval": "tf.cast(source(0), 'int32') * 0 + 300", "from": "data"},
        "output": {"class": "stack", "from": ["small", "large"]},
    }
    value = np.asarray(compiled(network).run({"data": X}, {"data": [3, 3]}).layers["output"].value)
    assert value.dtype == np.int32
    assert set(value.ravel().tolist()) == {300, *range(12)}


def test_wrong_stack() -> None:
    stack = {"class": "stack", "from": ["data", "data"], "out_spatial_dim": 3}
    assert "2 sources" in message({"output": stack})
    assert "expected an int" in message({"output": {"class": "stack", "from": ["data", "data"], "axis": "F"}})


def test_repeat_gives_its_dim_the_name() -> None:
    time = rl.Dim("R", rl.DimKind.SPATIAL, None)
    network = {"output": {"class": "repeat", "repetitions": 2, "axis": "T", "out_dim": time, "from": "data"}}
    out = compiled(network).run({"data": X}, {"data": LENGTHS["data"]}).layers["output"]
    assert out.seq_lens["R"].tolist() == [6, 4]
    network["output"] |= {"axis": "F", "out_dim": 5}
    assert "out_dim is 5" in message(network)
    network["output"] |= {"out_dim": 4, "n_out": 4}
    first, second = frames(network)
    np.testing.assert_array_equal(first, np.repeat(X[0, :3], 2, axis=-1))
    np.testing.assert_array_equal(second, np.repeat(X[1, :2], 2, axis=-1))


@BOTH
@pytest.mark.parametrize("in_loop", [True, False])
def test_cum_concat_of_bools(in_loop: bool, optimize: bool) -> None:
    """Whether any feature so far was above 2, and how many frames were."""
    layers: dict[str, Any] = {
        "level": {"class": "reduce", "mode": "max", "axis": "F", "from": "data:source" if in_loop else "data"},
        "above": {"class": "compare", "kind": "greater", "value": 2, "from": "level"},
        "history": {"class": "cum_concat", "from": "above", "out_spatial_dim": rl.Dim("history")},
        "counted": {"class": "cast", "dtype": "float32", "from": "history"},
        "sum": {"class": "reduce", "mode": "sum", "axis": "stag:history", "from": "counted"},
    }
    summed = {"class": "expand_dims", "axis": "F", "from": "sum"}
    network = {"output": {"class": "rec", "from": "data", "unit": {**layers, "output": summed}}}
    first, second = frames(network if in_loop else {**layers, "output": summed}, optimize)
    np.testing.assert_array_equal(first[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(second[:, 0], [1, 2])


@BOTH
def test_frames_so_far_merged_with_the_batch(optimize: bool) -> None:
    """Each frame has its own number of them, which what is merged does not say any more: its padding is zero."""
    history = {"class": "cum_concat", "from": "data", "out_spatial_dim": rl.Dim("history")}
    network = {"history": history, "output": {"class": "merge_dims", "axes": ["B", "stag:history"], "from": "history"}}
    out = compiled(network, optimize).run({"data": X, "other": Y}, LENGTHS).layers["output"]
    assert sorted(out.value.shape) == [2, 3, 6]
