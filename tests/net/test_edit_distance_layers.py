"""edit_distance_table and optimal_completions, in loops and on whole sequences, against the dynamic programme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

DATA = {"data": {"dim": 5, "sparse": True}, "right": {"dim": 5, "sparse": True}}
DRAW = np.random.default_rng(3)
LENGTHS = {"data": [7, 3, 1, 5], "right": [6, 1, 4, 3]}
FEED = {"data": DRAW.integers(0, 5, (4, 7)), "right": DRAW.integers(0, 5, (4, 6))}
TABLE = {"class": "edit_distance_table", "from": "data", "target": "right"}
STEP = {**TABLE, "from": "data:source", "target": "layer:base:data:right"}
COSTS = {"class": "optimal_completions", "from": "table", "target": "right"}
COSTS_OF_STEP = {**COSTS, "from": "prev:table", "target": "layer:base:data:right"}
ROWS = rl.Dim("rows", rl.DimKind.SPATIAL)

Rows = list[list[int]]


def rows_of(labels: list[int], right: list[int], blank: int | None = None) -> Rows:
    """The row before any label, and those after each (Wagner and Fischer 1974)."""
    rows = [list(range(len(right) + 1))]
    for label in labels:
        before = rows[-1]
        row = [before[0] + 1]
        for j, wanted in enumerate(right):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (label != wanted)))
        rows.append(before if label == blank else row)
    return rows


def completions(row: list[int], right: list[int], blank: int | None = None) -> list[int]:
    """The least distance with any labels after the given one, by trying: those of the reference from j on are best."""
    classes = range(max(5, -1 if blank is None else blank + 1))
    found = []
    for label in classes:
        after = row if label == blank else [row[0] + 1]
        for j, wanted in enumerate(right if label != blank else []):
            after.append(min(row[j + 1] + 1, after[j] + 1, row[j] + (label != wanted)))
        found.append(min(after))
    return found


def sequences(
    feed: dict[str, Any] = FEED, lengths: dict[str, list[int]] = LENGTHS
) -> list[tuple[list[int], list[int]]]:
    """Labels and right ones of each sequence."""
    return [
        (feed["data"][i, :n].tolist(), feed["right"][i, :m].tolist())
        for i, (n, m) in enumerate(zip(lengths["data"], lengths["right"], strict=True))
    ]


def output(network: dict[str, Any], optimize: bool = True, data: dict[str, Any] = DATA, **given: Any) -> Any:
    net = rl.compile(network, extern_data=data, mode="eval", optimize=optimize, behavior_version=21)
    return net.run(given.get("feed", FEED), seq_lens=given.get("lengths", LENGTHS)).layers["output"]


def in_loop(unit: dict[str, Any]) -> dict[str, Any]:
    return {"output": {"class": "rec", "from": "data", "unit": unit}}


def assert_is(found: Any, expected: list[Any]) -> None:
    """At the real frames and entries of each sequence."""
    assert found.dims[0] == "B"
    for value, rows in zip(found.value, expected, strict=True):
        wanted = np.array(rows)
        np.testing.assert_array_equal(value[tuple(slice(0, n) for n in wanted.shape)], wanted)


@pytest.mark.parametrize("blank", [None, 2])
def test_a_table_is_the_same_in_and_out_of_the_loop(blank: int | None) -> None:
    given = {} if blank is None else {"blank_idx": blank}
    expected = [rows_of(labels, right, blank)[1:] for labels, right in sequences()]
    whole = output({"output": {**TABLE, **given}})
    assert whole.dims == ("B", "data:time", "right:time+1")
    assert whole.seq_lens["right:time+1"].tolist() == [7, 2, 5, 4]
    assert_is(whole, expected)
    for optimize in (True, False):
        assert_is(output(in_loop({"output": {**STEP, **given}}), optimize), expected)


@pytest.mark.parametrize("blank", [None, 2, 5])
def test_costs_are_the_same_in_and_out_of_the_loop(blank: int | None) -> None:
    given = {} if blank is None else {"blank_idx": blank}
    many = DATA if blank != 5 else {**DATA, "data": {"dim": 6, "sparse": True}}
    each = [(rows_of(labels, right, blank), right) for labels, right in sequences()]
    expected = [[completions(row, right, blank) for row in rows[1:]] for rows, right in each]
    assert_is(output({"output": {**COSTS, **given}, "table": {**TABLE, **given}}, data=many), expected)
    expected = [[completions(row, right, blank) for row in rows[:-1]] for rows, right in each]
    for optimize in (True, False):
        unit = {"table": {**STEP, **given}, "output": {**COSTS_OF_STEP, **given}}
        assert_is(output(in_loop(unit), optimize, many), expected)


def test_the_table_leaves_its_loop() -> None:
    network = in_loop({"table": STEP, "output": COSTS_OF_STEP})
    net = rl.compile(network, extern_data=DATA, mode="eval", behavior_version=21)
    assert "edit_distance_table(" in str(net.graph)
    assert "loop" not in str(net.graph)


def test_before_the_first_label_the_row_counts_the_right_ones() -> None:
    expected = [rows_of(labels, right)[:-1] for labels, right in sequences()]
    for optimize in (True, False):
        unit = {"table": STEP, "output": {"class": "copy", "from": "prev:table"}}
        assert_is(output(in_loop(unit), optimize), expected)


def test_before_the_first_label_a_copy_of_the_row_is_zero() -> None:
    """As of any other layer that does not say what it starts from."""
    for optimize in (True, False):
        unit = {"table": STEP, "copy": {"class": "copy", "from": "table"}}
        unit["output"] = {"class": "copy", "from": "prev:copy"}
        rows = [rows_of(labels, right) for labels, right in sequences()]
        assert_is(output(in_loop(unit), optimize), [[[0] * len(one[0]), *one[1:-1]] for one in rows])


@pytest.mark.parametrize("optimize", [True, False])
def test_under_a_mask_only_its_labels_count(optimize: bool) -> None:
    mask = {"class": "compare", "kind": "greater", "value": 1, "from": "data:source"}
    under = {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": {**STEP, "from": "data"}}
    expected = []
    for labels, right in sequences():
        held = [rows_of([x for x in labels[: t + 1] if x > 1], right)[-1] for t in range(len(labels))]
        expected.append(held)
    assert_is(output(in_loop({"mask": mask, "output": under}), optimize), expected)
    before = [[rows_of([], right)[0], *rows[:-1]] for rows, (_, right) in zip(expected, sequences(), strict=True)]
    unit = {"mask": mask, "under": under, "output": {"class": "copy", "from": "prev:under"}}
    assert_is(output(in_loop(unit), optimize), before)


def test_masked_outside_of_a_loop() -> None:
    mask = {"class": "compare", "kind": "greater", "value": 1, "from": "data"}
    under = {"class": "masked_computation", "mask": "mask", "from": "data", "unit": TABLE}
    expected = [rows_of([x for x in labels if x > 1], right)[1:] for labels, right in sequences()]
    found = output({"mask": mask, "output": under})
    assert found.dims[0] == "B"
    for value, rows in zip(found.value, expected, strict=True):
        for row, wanted in zip(value, rows, strict=False):
            assert row[: len(wanted)].tolist() == wanted


@pytest.mark.parametrize("optimize", [True, False])
def test_labels_and_target_may_have_the_same_time(optimize: bool) -> None:
    data = {**DATA, "right": {**DATA["right"], "same_dim_tags_as": {"t": "data"}}}
    lengths = {"data": LENGTHS["data"], "right": LENGTHS["data"]}
    feed = {"data": FEED["data"], "right": FEED["data"][:, ::-1].copy()}
    expected = [rows_of(labels, right)[1:] for labels, right in sequences(feed, lengths)]
    for network in ({"output": TABLE}, in_loop({"output": STEP})):
        assert_is(output(network, optimize, data, feed=feed, lengths=lengths), expected)


@pytest.mark.parametrize("optimize", [True, False])
def test_a_row_may_have_a_name(optimize: bool) -> None:
    each = [(rows_of(labels, right), right) for labels, right in sequences()]
    found = output({"output": {**TABLE, "out_dim": ROWS}}, optimize)
    assert found.dims == ("B", "data:time", "rows")
    assert_is(found, [rows[1:] for rows, _ in each])
    unit = {"table": {**STEP, "out_dim": ROWS}, "output": COSTS_OF_STEP}
    expected = [[completions(row, right) for row in rows[:-1]] for rows, right in each]
    assert_is(output(in_loop(unit), optimize), expected)


@pytest.mark.parametrize("optimize", [True, False])
def test_the_target_may_be_a_layer_that_is_not_built_yet(optimize: bool) -> None:
    """The row of `prev:table` is known before table, whose label needs the costs, and the target are built."""
    target = {"target": "layer:base:wanted"}
    unit = {
        "cost": {"class": "cast", "dtype": "float32", "from": "costs"},
        "costs": {**COSTS_OF_STEP, **target},
        "output": {"class": "reduce", "mode": "argmin", "axis": "F", "from": "cost"},
        "table": {**STEP, **target, "from": "output"},
    }
    network = in_loop(unit) | {"wanted": {"class": "copy", "from": "data:right"}}
    expected = []
    for labels, right in sequences():
        chosen: list[int] = []
        for _ in labels:
            chosen.append(int(np.argmin(completions(rows_of(chosen, right)[-1], right))))
        expected.append(chosen)
    assert_is(output(network, optimize), expected)


def test_debug_prints(capfd: pytest.CaptureFixture[str]) -> None:
    output({"output": {**COSTS, "debug": True}, "table": {**TABLE, "debug": True}})
    printed = capfd.readouterr()
    text = printed.out + printed.err
    for what in ("table labels", "table target", "table rows", "output row", "output target", "output costs"):
        assert what in text
    output(in_loop({"output": {**STEP, "debug": True}}), optimize=False)
    printed = capfd.readouterr()
    text = printed.out + printed.err
    for what in ("label", "before", "after"):
        assert text.count(f"output/output {what}") == max(LENGTHS["data"])
    assert "output/output target" in text


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"output": {**TABLE, "from": "x"}, "x": {"class": "linear", "from": "data", "n_out": 5}},
            "must be labels of 5",
        ),
        (in_loop({"output": {**STEP, "target": "right"}}), "a whole sequence.*layer:base:data:KEY"),
        ({"output": {**TABLE, "blank_idx": 7}}, "labels of 8 classes"),
        ({"output": {**TABLE, "axis": "F"}}, "axis"),
        ({"output": {**COSTS, "from": "data"}}, "rows of an edit_distance_table"),
        (in_loop({"output": {**STEP, "initial_output": 3}}), "0, 1, 2.*Leave it out"),
        ({"output": {**TABLE, "n_out": 3}}, "n_out is 3"),
        ({"output": COSTS | {"n_out": 6}, "table": TABLE}, "n_out is 6.*n_out: 5"),
        ({"output": {**TABLE, "blank_idx": -1}}, "blank_idx"),
    ],
)
def test_mistakes(network: dict[str, Any], message: str) -> None:
    with pytest.raises(rl.ConfigError, match=message):
        output(network)
