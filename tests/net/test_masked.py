"""Masked computation in a loop and outside: hand-made numbers, with and without optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

BOTH = pytest.mark.parametrize("optimize", [True, False])
LENGTHS = (5, 3)
X = np.array([[1, -2, 3, -4, 5], [-1, -2, 6, 7, 8]], "float32")[..., None]
"""Beyond the second sequence's end the masks here are true."""
POSITIVE = {"class": "compare", "kind": "greater", "value": 0, "from": "x"}
ABOVE = {"class": "compare", "kind": "greater", "value": 2, "from": "x"}
FRAME = {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"}
SUM = {"class": "cumsum", "from": "data"}
Net = dict[str, Any]


def masked(unit: Net, source: str = "data:source", mask: str = "m", **options: Any) -> Net:
    return {"class": "masked_computation", "mask": mask, "from": source, "unit": unit, **options}


def loop(unit: Net, **options: Any) -> Net:
    """A loop over the data with the masks m (positive) and n (above 2)."""
    return {"class": "rec", "from": "data", "unit": {"x": FRAME, "m": POSITIVE, "n": ABOVE, **unit}, **options}


def compiled(network: Net, optimize: bool = True) -> rl.Network:
    extern_data = {"data": {"dim": 1}, "few": {"dim": 1}}
    return rl.compile(network, extern_data=extern_data, mode="forward", behavior_version=21, optimize=optimize)


def frames(net: rl.Network, layer: str = "output", data: np.ndarray = X) -> list[list[float]]:
    """The real frames of each sequence of a layer with one feature."""
    few = np.array([[10, 20, 30], [40, 50, 60]], "float32")[..., None]
    out = net.run({"data": data, "few": few}, {"data": list(LENGTHS), "few": [3, 2]}).layers[layer]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0).reshape(len(LENGTHS), -1)
    (lengths,) = out.seq_lens.values()
    return [row[:length].tolist() for row, length in zip(value, lengths, strict=True)]


def in_loop(unit: Net, optimize: bool, more: Net | None = None) -> list[list[float]]:
    return frames(compiled({"output": loop(unit), **(more or {})}, optimize))


@BOTH
@pytest.mark.parametrize(("first", "expected"), [(None, 0.0), (0.5, 0.5), ("base:start", 7.0)])
@pytest.mark.parametrize("unmask", [False, True])
def test_a_value_is_held_from_the_initial_output_on(first: Any, expected: float, unmask: bool, optimize: bool) -> None:
    unit = {"class": "copy", "from": "data"} | ({} if first is None else {"initial_output": first})
    result = {"class": "unmask", "from": "y", "mask": "m"} if unmask else {"class": "copy", "from": "y"}
    start = {"start": {"class": "constant", "value": [7.0]}}
    assert in_loop({"y": masked(unit), "output": result}, optimize, start) == [[1, 1, 3, 3, 5], [expected] * 2 + [6]]


@BOTH
def test_the_step_before_starts_from_the_initial_output_of_the_unit(optimize: bool) -> None:
    unit = {"y": masked({"class": "copy", "from": "data", "initial_output": 0.5})}
    assert in_loop(unit | {"output": {"class": "copy", "from": "prev:y"}}, optimize) == [[0.5, 1, 1, 3, 3], [0.5] * 3]


@BOTH
@pytest.mark.parametrize("before", [False, True])
def test_a_unit_starts_from_its_state(before: bool, optimize: bool) -> None:
    cell = {"class": "rnn_cell", "unit": "basicrnn", "n_out": 1, "from": "data", "initial_state": 0.25}
    net = compiled(
        {"output": loop({"y": masked(cell), "output": {"class": "copy", "from": "prev:y" if before else "y"}})},
        optimize,
    )
    for parameter in net.params.values():
        parameter.assign(np.zeros(parameter.shape))
    held = [[0, 0, 0, 0, 0], [0.25, 0.25, 0]]
    assert frames(net) == ([[0.25, *row[:-1]] for row in held] if before else held)


def sub(**layers: Net) -> Net:
    return {"class": "subnetwork", "from": "data", "subnetwork": layers}


HALF = {"class": "copy", "from": "data", "initial_output": 0.5}
SAME = {"class": "copy", "from": "inside"}
PLUS_2 = {"class": "eval", "eval": "source(0) + 2", "from": "data", "initial_output": "apply(0)"}
QUARTER = {"class": "rnn_cell", "unit": "basicrnn", "n_out": 1, "from": "data", "initial_state": 0.25}
STATE = {"class": "get_last_hidden_state", "n_out": 1}
PARTS: dict[str, tuple[Net, Net, float]] = {
    "initial_output": (sub(inside=HALF, output=SAME), {"from": "y/inside"}, 0.5),
    "the unit has another": ({**sub(inside=HALF, output=SAME), "initial_output": 7}, {"from": "y/inside"}, 0.5),
    "the unit's is its own": ({**sub(inside=HALF, output=SAME), "initial_output": 7}, {"from": "y"}, 7),
    "that of the output is not the unit's": (sub(output=HALF), {"from": "y"}, 0),
    "the output as a layer": (sub(output=HALF), {"from": "y/output"}, 0.5),
    "deeper": (
        sub(deep=sub(inside=HALF, output=SAME), output={**SAME, "from": "deep"}), {"from": "y/deep/inside"}, 0.5
    ),
    "a sum": (sub(inside={**SUM, "initial_output": 0.5}, output=SAME), {"from": "y/inside"}, 0.5),
    "of a layer": (sub(inside={**HALF, "initial_output": "base:base:start"}, output=SAME), {"from": "y/inside"}, 7),
    "of zeros": (sub(inside=PLUS_2, output=SAME), {"from": "y/inside"}, 2),
    "none": (sub(inside={**HALF, "initial_output": None}, output=SAME), {"from": "y/inside"}, 0),
    "a cell": (sub(inside=QUARTER, output=SAME), {"from": "y/inside"}, 0.25),
    "a state": (QUARTER, {**STATE, "from": "y"}, 0.25),
    "a state inside": (sub(inside=QUARTER, output=SAME), {**STATE, "from": "y/inside"}, 0.25),
    "a result that is no layer": (
        {"class": "split", "axis": "F", "num_splits": 1, "from": "data", "initial_output": 0.5}, {"from": "y/0"}, 0
    ),
    "masks in masks": (
        sub(under=masked(sub(inside=HALF, output=SAME), "data", "base:n"), output={**SAME, "from": "under"}),
        {"from": "y/under/inside"},
        0.5,
    ),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_held_from_its_own_initial_output(name: str, before: bool, optimize: bool) -> None:
    """As in RETURNN, in a loop: `y/x` from that of x, also where the step before is read."""
    unit, result, first = PARTS[name]
    if before and (result.get("class") == STATE["class"] or result["from"] == "y/0"):
        pytest.skip("no 'prev:' of a state, and in RETURNN none of a result that is no layer")
    result = {"class": "copy", **result, "from": f"{'prev:' if before else ''}{result['from']}"}
    start = {"start": {"class": "constant", "value": [7.0]}}
    net = compiled({"output": loop({"y": masked(unit), "output": result}), **start}, optimize)
    for parameter in net.params.values():
        parameter.assign(np.zeros(parameter.shape))
    assert frames(net)[1][:2] == [first, first]
    assert frames(net)[0][0] == first if before else frames(net)[0][-1] in (0, 5, 9.5, 7)


@BOTH
@pytest.mark.parametrize("under", [False, True])
def test_the_step_before_of_labels_inside(under: bool, optimize: bool) -> None:
    best = {"class": "reduce", "mode": "argmax", "axis": "F", "from": "data"}
    unit = sub(inside=best, output={"class": "cast", "dtype": "float32", "from": "inside"})
    y = masked(unit) if under else {**unit, "from": "data:source"}
    network = {"y": y, "output": {"class": "copy", "from": "prev:y/inside"}}
    with pytest.raises(rl.ConfigError, match="the step before the first has no value: the output is sparse"):
        in_loop(network, optimize)
    best["initial_output"] = 9
    assert in_loop(network, optimize)[0] == [9, 0, 0, 0, 0]


@BOTH
def test_a_layer_reads_masked_and_other_values(optimize: bool) -> None:
    unit = {"y": masked(SUM), "output": {"class": "combine", "kind": "add", "from": ["y", "data:source"]}}
    assert in_loop(unit, optimize) == [[2, -1, 7, 0, 14], [-1, -2, 12]]


@BOTH
def test_masks_in_masks(optimize: bool) -> None:
    """The inner sum is over frames above 2 of the positive ones; between them it is held, on either clock."""
    inner = masked(SUM, "data", "base:n")
    both = {"class": "combine", "kind": "add", "from": ["sum", "data"]}
    sub = {"class": "subnetwork", "from": "data", "subnetwork": {"sum": inner, "output": both}}
    assert in_loop({"output": masked(sub)}, optimize) == [[1, 1, 6, 6, 13], [0, 0, 12]]


@BOTH
def test_a_mask_that_is_true_where_the_one_around_is_not(optimize: bool) -> None:
    """There nothing is computed, so nothing is held."""
    inner = masked({"class": "copy", "from": "data"}, "data", "base:not_m")
    both = {"class": "combine", "kind": "add", "from": ["inner", "data"]}
    sub = {"class": "subnetwork", "from": "data", "subnetwork": {"inner": inner, "output": both}}
    not_m = {"class": "eval", "eval": "tf.logical_not(source(0))", "from": "m"}
    assert in_loop({"not_m": not_m, "output": masked(sub)}, optimize) == [[1, 1, 3, 3, 5], [0, 0, 6]]


@BOTH
@pytest.mark.parametrize(
    ("first", "mask", "expected"),
    [
        (False, "k", [[0, 0, 3, -1, 4], [0, 0, 6]]),
        (True, "k", [[0, 0, 3, -1, 4], [-1, -3, 3]]),
        (True, "prev:k", [[1, 1, 1, -3, 2], [-1, -3, 3]]),
    ],
)
def test_a_mask_that_is_masked_itself_is_held(
    first: bool, mask: str, expected: list[list[float]], optimize: bool
) -> None:
    """k is whether the last positive frame was above 2."""
    above = {"class": "compare", "kind": "greater", "value": 2, "from": "data", "initial_output": first}
    assert in_loop({"k": masked(above, "x"), "output": masked(SUM, mask=mask)}, optimize) == expected


@BOTH
def test_what_no_step_changes_under_masks_in_masks(optimize: bool) -> None:
    """It is there from the inner mask's first frame on, and so is what is computed with it."""
    inner = masked({"class": "copy", "from": "data"}, "data", "base:n")
    both = {"class": "combine", "kind": "add", "from": ["inner", "data"]}
    sub = {"class": "subnetwork", "from": "data", "subnetwork": {"inner": inner, "output": both}}
    start = {"start": {"class": "constant", "value": [7.0]}}
    assert in_loop({"output": masked(sub, "base:start")}, optimize, start) == [[7, 7, 14, 14, 14], [0, 0, 14]]


@BOTH
def test_a_unit_reads_what_the_layer_around_may_read(optimize: bool) -> None:
    """Also the step before, which is that of the loop: not of the mask."""
    network = loop({"output": masked({"class": "combine", "kind": "add", "from": ["data", "x", "prev:x"]})})
    assert frames(compiled({"output": network}, optimize)) == [[2, 2, 4, 4, 6], [0, 0, 10]]
    unit = masked({"class": "combine", "kind": "add", "from": ["data", "base:start"]})
    start = {"class": "constant", "value": [7.0]}
    assert frames(compiled({"output": loop({"output": unit}), "start": start}, optimize)) == [
        [8, 8, 10, 10, 12],
        [0, 0, 13],
    ]


@BOTH
def test_a_unit_outside_of_loops_reads_other_layers(optimize: bool) -> None:
    network: Net = {"x": {**FRAME, "from": "data"}, "m": POSITIVE}
    network["output"] = masked({"class": "combine", "kind": "add", "from": ["data", "x"]}, "data")
    assert frames(compiled(network, optimize)) == [[2, 6, 10], [12]]


@BOTH
def test_a_loop_in_the_loop_reads_a_masked_value(optimize: bool) -> None:
    """It reads what is held: 30 or 50 is the largest frame of `few`."""
    inner = {"output": {"class": "combine", "kind": "add", "from": ["data:source", "base:y"]}}
    unit = {"y": masked(SUM), "inner": {"class": "rec", "from": "data:few", "unit": inner}}
    unit["output"] = {"class": "reduce", "mode": "max", "axis": "stag:few", "from": "inner"}
    assert in_loop(unit, optimize) == [[31, 31, 34, 34, 39], [50, 50, 56]]


@BOTH
@pytest.mark.parametrize("under", [False, True])
def test_a_mask_in_a_loop_in_the_loop(under: bool, optimize: bool) -> None:
    """Each step of the outer loop sums, of the frames of a loop of its own, those above ten times its own; what is held
    between them is shown. The inner loop may run under a mask itself."""
    inner = {
        "f": FRAME,
        "over": {"class": "eval", "eval": "source(0) - 10 * source(1)", "from": ["f", "base:data"]},
        "above": {"class": "compare", "kind": "greater", "value": 0, "from": "over"},
        "output": masked(SUM, "f", "above"),
    }
    steps = {
        "inner": {"class": "rec", "from": "base:base:data:few", "unit": inner},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "inner"},
    }
    shown = masked(sub(**steps), "x") if under else {**sub(**steps), "from": "x"}
    expected = []
    for row, few in zip(X[..., 0], ([10, 20, 30], [40, 50]), strict=True):
        sums = [sum(np.cumsum([f * (f > 10 * x) for f in few])) for x in row]
        if under:
            last = [max((t for t in range(step + 1) if row[t] > 0), default=None) for step in range(len(row))]
            sums = [0 if t is None else sums[t] for t in last]
        expected.append(sums)
    found = in_loop({"output": shown}, optimize)
    assert found == [sums[:length] for sums, length in zip(expected, LENGTHS, strict=True)]
    assert found[0] == ([70, 70, 0, 0, 0] if under else [70, 100, 0, 100, 0])


@BOTH
def test_different_masks(optimize: bool) -> None:
    unit = {"not_m": {"class": "eval", "eval": "tf.logical_not(source(0))", "from": "m"}, "y": masked(SUM)}
    unit |= {"output": masked(SUM, "y", "not_m")}
    assert in_loop(unit, optimize) == [[0, 1, 1, 5, 5], [0, 0, 0]]


@BOTH
@pytest.mark.parametrize("unit", [SUM, {"class": "copy", "from": "data"}])
def test_a_mask_that_is_never_true(unit: Net, optimize: bool) -> None:
    never = {**POSITIVE, "value": 100}
    assert in_loop({"m": never, "output": masked({**unit, "initial_output": 2})}, optimize) == [[2] * 5, [2] * 3]


@BOTH
def test_steps_that_are_executed_are_counted(optimize: bool) -> None:
    count = {"class": "subnetwork", "from": "data", "subnetwork": {"output": {"class": "copy", "from": ":i"}}}
    unit = {"output": masked({**count, "initial_output": -1})}
    assert in_loop(unit, optimize) == [[0, 0, 1, 1, 2], [-1, -1, 0]]


@BOTH
@pytest.mark.parametrize("unmask", [False, True])
@pytest.mark.parametrize("reference", ["data:few", "base:same"])
def test_masked_from_gives_a_frame_to_each_true_step(reference: str, unmask: bool, optimize: bool) -> None:
    unit = {"y": masked(SUM, "data:source", masked_from=reference)}
    unit["output"] = {"class": "unmask", "from": "y", "mask": "m"} if unmask else {"class": "copy", "from": "y"}
    same = {"same": {"class": "copy", "from": "data:few"}}
    assert in_loop(unit, optimize, same) == [[10, 10, 30, 30, 60], [0, 0, 40]]


@BOTH
def test_masked_from_is_what_is_read_then(optimize: bool) -> None:
    """Its own source may need it."""
    unit = {"y": masked(SUM, "z", masked_from="data:few"), "z": {"class": "copy", "from": "y"}}
    assert in_loop(unit | {"output": {"class": "copy", "from": "z"}}, optimize) == [[10, 10, 30, 30, 60], [0, 0, 40]]


@pytest.mark.parametrize("reference", ["data:source", "x", "base:start"])
def test_masked_from_must_be_a_sequence_from_around(reference: str) -> None:
    unit = {"output": masked(SUM, masked_from=reference)}
    with pytest.raises(rl.ConfigError, match=r"masked_from: .*is no sequence of masked frames from around the loop"):
        in_loop(unit, True, {"start": {"class": "constant", "value": [7.0]}})


@BOTH
def test_the_dim_of_the_masked_frames_in_a_loop(optimize: bool) -> None:
    """What runs over it is done step by step."""
    masked_frames = rl.Dim("masked", rl.DimKind.SPATIAL, None)
    unit = {"y": masked({**SUM, "axis": masked_frames}, out_spatial_dim=masked_frames)}
    assert in_loop(unit | {"output": {"class": "copy", "from": "y"}}, optimize) == [[1, 1, 4, 4, 9], [0, 0, 6]]


@BOTH
@pytest.mark.parametrize("first", [None, 7.0])
def test_other_layers_of_the_loop_use_the_dim_of_the_masked_frames(first: float | None, optimize: bool) -> None:
    """They run over these frames, in a chain, whatever they read, and are held between."""
    dim = rl.Dim("masked", rl.DimKind.SPATIAL, None)
    unit: Net = {
        "y": masked({"class": "copy", "from": "data"}, out_spatial_dim=dim),
        "z": {"class": "cumsum", "axis": dim, "from": "y"},
        "w": {"class": "window", "axis": dim, "window_size": 2, "window_right": 0, "from": "z"},
        "output": {"class": "reduce", "mode": "sum", "axis": "stag:window", "from": "w"},
    }
    assert in_loop(unit, optimize) == [[1, 1, 5, 5, 13], [0, 0, 6]]
    unit["z"] |= {"from": "data:source"} | ({} if first is None else {"initial_output": first})
    unit["output"] = {"class": "copy", "from": "z"}
    start = first or 0.0
    assert in_loop(unit, optimize) == [[start + x for x in (1, 1, 4, 4, 9)], [start, start, start + 6]]


def test_dims_that_do_not_fit() -> None:
    other = rl.Dim("other", rl.DimKind.SPATIAL, None)
    with pytest.raises(rl.ConfigError, match="there is no dim other"):
        compiled({"output": loop({"output": masked(SUM, in_spatial_dim=other)})})
    with pytest.raises(rl.ConfigError, match=r"out_spatial_dim: .*not static"):
        compiled({"output": loop({"output": masked(SUM, out_spatial_dim=3)})})


def test_labels_need_an_initial_output() -> None:
    unit = {"best": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "data:source"}}
    unit["output"] = masked({"class": "copy", "from": "data"}, "best")
    with pytest.raises(rl.ConfigError, match="unit: there is no value before the mask is first true"):
        in_loop(unit, True)
    unit["output"]["unit"]["initial_output"] = 9
    for optimize in (True, False):
        assert in_loop(unit, optimize) == [[0] * 5, [9, 9, 0]]


def test_one_initial_output() -> None:
    unit = {"output": masked({**SUM, "initial_output": 1}, initial_output=2)}
    with pytest.raises(rl.ConfigError, match="initial_output is that of the layer inside"):
        in_loop(unit, True)


# Outside of loops


@BOTH
def test_outside_of_loops_only_the_masked_frames_remain(optimize: bool) -> None:
    network = {"x": {**FRAME, "from": "data"}, "m": POSITIVE, "output": masked(SUM, "data")}
    assert frames(compiled(network, optimize)) == [[1, 4, 9], [6]]
    network["y"] = network["output"]
    network["output"] = {"class": "unmask", "from": "y", "mask": "m"}
    assert frames(compiled(network, optimize)) == [[1, 1, 4, 4, 9], [0, 0, 6]]


SEQUENCES = {
    "x": {**FRAME, "from": "data"},
    "m": POSITIVE,
    "y": masked(SUM, "data"),
    "padded": {"class": "pad", "axes": "T", "padding": [1, 0], "value": 7, "mode": "constant", "from": "y"},
}
"""The masked frames, and these after a 7."""


@BOTH
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("source", "skip_initial", "expected"),
    [
        ("y", False, [[1, 1, 4, 4, 9], [0, 0, 6]]),
        ("padded", True, [[1, 1, 4, 4, 9], [7, 7, 6]]),
    ],
)
def test_the_frame_before_the_mask_is_true(
    source: str, skip_initial: bool, expected: list[list[float]], inside: bool, optimize: bool
) -> None:
    """It is zero, or the first of the source; of a sequence from around a loop the steps take one after the other."""
    unmask = {"class": "unmask", "mask": "m", "skip_initial": skip_initial}
    output = {**unmask, "from": source}
    if inside:
        double = {"class": "eval", "eval": "source(0) * 2", "from": f"base:{source}"}
        one = {"class": "combine", "kind": "sub", "from": ["twice", "once"]}
        unit = {"double": double, "once": {**unmask, "from": f"base:{source}"}, "output": one}
        output = loop({**unit, "twice": {**unmask, "from": "double"}})
    assert frames(compiled({**SEQUENCES, "output": output}, optimize)) == expected


def test_skip_initial_is_for_masked_frames() -> None:
    network = {**SEQUENCES, "output": {"class": "unmask", "mask": "m", "from": "data", "skip_initial": True}}
    with pytest.raises(rl.ConfigError, match="is not masked"):
        compiled(network)


@BOTH
def test_other_layers_use_the_dim_of_the_masked_frames(optimize: bool) -> None:
    dim = rl.Dim("masked", rl.DimKind.SPATIAL, None)
    network = {"x": {**FRAME, "from": "data"}, "m": POSITIVE, "y": masked(SUM, "data", out_spatial_dim=dim)}
    copied = {"class": "rec", "from": "y", "axis": dim, "unit": {"output": {"class": "copy", "from": "data:source"}}}
    network |= {"sum": {"class": "cumsum", "from": "y", "axis": dim}, "loop": copied}
    network["output"] = {"class": "combine", "kind": "add", "from": ["sum", "loop"]}
    assert frames(compiled(network, optimize)) == [[2, 9, 23], [12]]


# What it costs


def work(network: Net) -> list[str]:
    """The primitives of the optimised graph, sorted."""
    return sorted(node.op.label for node in compiled(network).graph.nodes)


def test_an_explicit_unmask_costs_nothing() -> None:
    plain = {"y": masked(SUM), "output": {"class": "copy", "from": "y"}}
    explicit = plain | {"output": {"class": "unmask", "from": "y", "mask": "m"}}
    assert work({"output": loop(plain)}) == work({"output": loop(explicit)})


def test_a_chain_under_one_mask_stays_on_the_masked_frames() -> None:
    """One conversion there and one back, with explicit unmask layers in between or without."""
    chain = {
        "y": masked(SUM),
        "u": {"class": "unmask", "from": "y", "mask": "m"},
        "z": masked({"class": "linear", "activation": "tanh", "n_out": 2, "from": "data"}, "u"),
        "output": masked(SUM, "z"),
    }
    labels = work({"output": loop(chain)})
    assert labels.count("compress") == 1
    assert labels.count("hold") == 1


@pytest.mark.parametrize("parts", [["y"], ["y", "data:source"]])
def test_a_loop_over_masked_values_leaves_no_loop(parts: Sequence[str]) -> None:
    unit = {"y": masked(SUM), "output": {"class": "linear", "activation": None, "n_out": 1, "from": list(parts)}}
    assert "loop" not in work({"output": loop(unit)})


def sums_of_two(right: int) -> Net:
    """Each frame and the one before it, or the one after it, added up."""
    window = {"class": "window", "window_size": 2, "window_right": right, "from": "data"}
    total = {"class": "reduce", "mode": "sum", "axis": "stag:window", "from": "window"}
    return sub(window=window, output=total)


START = {"start": {"class": "constant", "value": [7.0]}}


@BOTH
def test_the_steps_before_of_what_no_step_changes(optimize: bool) -> None:
    """A window's first frame is zero, where the mask is first true; the steps of the mask are known by then."""
    unit = {"output": masked(sums_of_two(0), "base:start", "prev:m"), "m": {**POSITIVE, "initial_output": False}}
    assert in_loop(unit, optimize, START) == [[0, 7, 7, 14, 14], [0, 0, 0]]


@BOTH
def test_the_steps_to_come_of_what_no_step_changes(optimize: bool) -> None:
    """There are as many as the mask has, which has to be known by then."""
    assert in_loop({"output": masked(sums_of_two(1), "base:start")}, optimize, START) == [
        [14, 14, 14, 14, 7],
        [0, 0, 7],
    ]


def test_a_history_under_a_mask_beside_a_search() -> None:
    """Neither the mask nor what it masks depends on the hypotheses, so that both leave the search: as in a loop."""
    attention = {
        "class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": 2, "attention_left_only": True,
        "from": "data",
    }  # fmt: skip
    unit = {
        "x": FRAME,
        "m": POSITIVE,
        "y": {**masked(attention), "is_output_layer": True},
        "embed": {"class": "linear", "activation": None, "n_out": 2, "from": "prev:output"},
        "prob": {"class": "softmax", "from": ["y", "embed"], "target": "classes"},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 2, "initial_output": 0},
    }
    network = {"output": {"class": "rec", "from": "data", "target": "classes", "unit": unit}}
    classes = {"dim": 3, "sparse": True, "available_for_inference": False, "same_dim_tags_as": {"t": "data"}}
    found = []
    for optimize in (True, False):
        net = rl.compile(
            network, {"data": {"dim": 1}, "classes": classes}, "search", optimize=optimize, behavior_version=21
        )
        for name, parameter in net.params.items():
            parameter.assign(np.random.default_rng(len(name)).normal(size=parameter.shape))
        found.append(net.run({"data": X}, {"data": list(LENGTHS)}).layers)
    for name in ("output", "output/y"):
        np.testing.assert_allclose(found[0][name].value, found[1][name].value, rtol=1e-5, err_msg=name)
