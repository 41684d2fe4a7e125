"""Random networks draw every cell and wrapper of the table, with each of its options."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.decoding import cell_of
from returnn_lite.layers.cells.registry import all_cells
from tests.properties.cell_options import options_of
from tests.properties.units import (
    FREQUENCIES,
    PLAIN,
    WRAPPERS,
    unit,
    unit_of_encoder,
    unit_of_inputs,
    unit_of_labels,
    unit_of_places,
    with_options,
    wrapped,
)

ONLY_AT_FIRST = {
    *("carry_bias_init", "initializer", "norm_gain", "norm_shift", "period_init_max", "period_init_min", "ratio_on"),
    *("transform_bias", "unit_forget_bias"),
}
"""Options that say what parameters start with: those of random networks have random values."""
SAME = {
    "data_format": "the data say it",
    "embedding_classes": "the labels say it",
    "input_shape": "it is only compared with the source",
}
"""Options that change nothing where the source says it, and why."""


@st.composite
def units(draw: st.DrawFn) -> list[Any]:
    """Units of any source, and a cell or wrapper of each name with some options."""
    known: list[Any] = [{"class": name, **options_of(draw, cls)} for name, cls in PLAIN.items()]
    known += [wrapped(draw, name, "rnn") for name in WRAPPERS] + [with_options(draw, cell) for cell in FREQUENCIES]
    drawn = [unit(draw) for _ in range(12)] + [unit_of_encoder(draw, "base:frames")[0] for _ in range(4)]
    drawn += [unit_of_places(draw)[1] for _ in range(5)]
    return [*known, *drawn, unit_of_inputs(draw), unit_of_labels(draw)]


def test_all_cells_and_options_are_drawn() -> None:
    found: dict[type[Cell], set[str]] = defaultdict(set)

    @settings(max_examples=35, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(units())
    def draw(several: list[Any]) -> None:
        for one in several:
            for cell in _all_in(cell_of(one, ("unit",))):
                found[type(cell)] |= {name for name, default in _options(type(cell)) if getattr(cell, name) != default}

    draw()
    assert set(all_cells()) == set(found)
    missing = {cls.__name__: {name for name, _ in _options(cls)} - found[cls] for cls in found}
    assert {name: options for name, options in missing.items() if options} == {}


def _all_in(cell: Cell) -> Iterator[Cell]:
    """A cell and those inside of it."""
    yield cell
    for inside in (getattr(cell, "cell", None), *getattr(cell, "cells", ())):
        if isinstance(inside, Cell):
            yield from _all_in(inside)


def _options(cls: type[Cell]) -> Iterator[tuple[str, object]]:
    """The options of a cell that say something about results, with their defaults."""
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # __init_subclass__ makes it one
        info = field.metadata["option"]
        is_silent = info.unsupported is not None or info.description.startswith("has no influence")
        if not is_silent and field.name not in ONLY_AT_FIRST | set(SAME):
            yield field.name, field.default
