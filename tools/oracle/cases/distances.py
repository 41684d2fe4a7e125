"""Edit distances to a reference, label by label: rows of the table, and what each next label would cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..case import EXTERN_DATA, LENGTHS, Case, Net
from .search import search

DATA = {**EXTERN_DATA, "right": {"dim": 5, "sparse": True}}
LONGER = {**LENGTHS, "right": (3, 5, 2)}
TABLE = {"class": "edit_distance_table", "from": "label", "target": "layer:base:data:right"}
COSTS = {"class": "optimal_completions", "from": "prev:table", "target": "layer:base:data:right"}
OTHER_COUNT = "in RETURNN the costs of a row count the steps of the loop, here what the row says"
OTHER_STEPS = "in RETURNN the rows count the steps of the loop, not those under the mask"


def labels(source: str | list[str] = "data:source", size: int = 5) -> Net:
    return {
        "scores": {"class": "linear", "activation": None, "n_out": size, "from": source},
        "label": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "scores"},
    }


def looped(name: str, unit: Net, output: str, source: str | list[str] = "data:source", **options: Any) -> Case:
    """The layers in a loop over "frames", whose labels are the best of some scores; `output` is shown as floats."""
    size = options.pop("size", 5)
    shown = {"output": {"class": "cast", "dtype": "float32", "from": output}}
    network: Net = {
        "output": {"class": "rec", "from": "data:frames", "unit": {**labels(source, size), **unit, **shown}}
    }
    return Case(name, network, ("output",), extern_data=DATA, lengths=LONGER, optimize=(True, False), **options)


def fed_back(layer: str) -> Net:
    """What the labels of the next step depend on."""
    return {
        "number": {"class": "cast", "dtype": "float32", "from": layer},
        "least": {"class": "reduce", "mode": "max", "axis": "T" if layer == "table" else "F", "from": "number"},
        "wide": {"class": "expand_dims", "axis": "F", "from": "least"},
        "back": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "wide", "initial_output": 0},
    }


def masked(name: str, table: dict[str, int], kind: str, **options: Any) -> Case:
    """The table of the labels of some steps only."""
    unit = {**TABLE, **table, "from": "data"}
    mask: Net = {
        "first": {"class": "gather", "axis": "F", "position": 0, "from": "data:source"},
        "mask": {"class": "compare", "kind": kind, "value": 0.0, "from": "first"},
        "table": {"class": "masked_computation", "mask": "mask", "from": "label", "unit": unit},
    }
    return looped(name, mask, "table", **options)


def searched(name: str, blank: dict[str, int], steers: bool = False) -> Case:
    """The tables of the hypotheses of a search; with `steers` the costs have a part in the scores."""
    unit: Net = {
        "table": {**TABLE, **blank, "from": "output", "is_output_layer": True},
        "costs": {**COSTS, **blank, "is_output_layer": True},
    }
    if steers:
        unit |= {
            "cost": {"class": "cast", "dtype": "float32", "from": "costs"},
            "scaled": {"class": "eval", "eval": "source(0) * 3.0", "from": "s"},
            "logits": {"class": "linear", "activation": None, "n_out": 5, "from": "scaled"},
            "steered": {"class": "eval", "eval": "source(0) - source(1)", "from": ["logits", "cost"]},
            "output_prob": {"class": "activation", "activation": "softmax", "from": "steered", "target": "classes"},
        }
    case = search(name, unit=unit, layers=("output", "decision", "output/table", "output/costs"))
    return replace(case, name=name, extern_data=DATA, lengths=LONGER)


BACK = ["data:source", "prev:back"]

CASES = [
    looped("edit_distance_table.loop", {"table": TABLE}, "table"),
    looped("edit_distance_table.cycle", {"table": TABLE, **fed_back("table")}, "table", BACK),
    looped("edit_distance_table.prev.loop", {"table": TABLE}, "prev:table"),
    looped("edit_distance_table.blank.loop", {"table": {**TABLE, "blank_idx": 1}}, "table"),
    looped("edit_distance_table.more_blank.loop", {"table": {**TABLE, "blank_idx": 5}}, "table", size=6),
    looped("optimal_completions.loop", {"table": TABLE, "costs": COSTS}, "costs"),
    looped("optimal_completions.cycle", {"table": TABLE, "costs": COSTS, **fed_back("costs")}, "costs", BACK),
    looped(
        "optimal_completions.blank.loop",
        {"table": {**TABLE, "blank_idx": 1}, "costs": {**COSTS, "blank_idx": 1}},
        "costs",
    ),
    looped(
        "optimal_completions.more_blank.loop",
        {"table": {**TABLE, "blank_idx": 5}, "costs": {**COSTS, "blank_idx": 5}},
        "costs",
        size=6,
    ),
    looped(
        "optimal_completions.of_this_row.loop",
        {"table": TABLE, "costs": {**COSTS, "from": "table"}},
        "costs",
        differs=OTHER_COUNT,
    ),
    looped(
        "optimal_completions.of_this_row.blank.loop",
        {"table": {**TABLE, "blank_idx": 1}, "costs": {**COSTS, "blank_idx": 1, "from": "table"}},
        "costs",
    ),
    masked("edit_distance_table.masked", {}, "greater"),
    masked("edit_distance_table.masked.late", {}, "less", differs=OTHER_STEPS),
    masked("edit_distance_table.masked.late.blank", {"blank_idx": 1}, "less"),
    searched("edit_distance_table.search", {}),
    searched("edit_distance_table.search.blank", {"blank_idx": 1}),
    searched("edit_distance_table.search.steers", {}, steers=True),
]
