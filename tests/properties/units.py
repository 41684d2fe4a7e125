"""Units of recurrent layers from the whole table of cells, with options, in stacks and under wrappers; also those of
other sources: frequencies, places, several inputs, labels, an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from returnn_lite.config.decode import option_names
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.registry import all_cells, cell_class
from tests.properties.cell_options import one_in, options_of
from tests.properties.parts import SIZE, Draw

FREQUENCIES: tuple[dict[str, Any], ...] = (
    {"class": "timefrequencylstm", "feature_size": 1},
    {"class": "timefrequencylstm", "feature_size": 1, "units": 1},
    {"class": "timefrequencylstm", "feature_size": 1, "frequency_skip": 2, "units": 2},
    {"class": "gridlstm", "feature_size": 2, "num_frequency_blocks": [2], "units": 1},
    {"class": "gridlstm", "feature_size": 1, "num_frequency_blocks": [1, 2], "units": 1,
     "start_freqindex_list": [0, 1], "end_freqindex_list": [1, 3]},
    {"class": "gridlstm", "feature_size": 1, "frequency_skip": 2, "num_frequency_blocks": [2], "units": 2},
    {"class": "bidirectionalgridlstm", "feature_size": 2, "num_frequency_blocks": [2], "units": 1,
     "backward_slice_offset": 1},
    {"class": "bidirectionalgridlstm", "feature_size": 1, "num_frequency_blocks": [3], "units": 1,
     "backward_slice_offset": -1},
    {"class": "bidirectionalgridlstm", "feature_size": 1, "frequency_skip": 2, "num_frequency_blocks": [1, 1],
     "start_freqindex_list": [0, 2], "end_freqindex_list": [1, 3], "units": 1},
)  # fmt: skip
"""Cells along the frequency axis; their outputs are as large as their options make them."""
Sizes = tuple[int, ...]
PLACES: tuple[tuple[Sizes, dict[str, Any]], ...] = (
    ((3, 1), {"class": "conv1dlstm", "kernel_size": 2, "units": 2}),
    ((3, 2), {"class": "conv1dlstm", "kernel_size": 3, "units": 2, "skip_connection": True}),
    ((3, 1), {"class": "convlstm", "conv_ndims": 1, "kernel_size": 1, "units": 1}),
    ((2, 3, 1), {"class": "conv2dlstm", "kernel_size": 2, "units": 2}),
    ((3, 2, 2), {"class": "conv2dlstm", "kernel_size": (1, 3), "units": 1, "skip_connection": True}),
    ((1, 3, 2), {"class": "convlstm", "kernel_size": (3, 2), "units": 2}),
    ((2, 1, 2, 1), {"class": "conv3dlstm", "kernel_size": 2, "units": 2}),
    ((2, 2, 1, 2), {"class": "convlstm", "kernel_size": (1, 2, 3), "units": 1}),
    ((3, 1), {"class": "keras.convlstm1d", "kernel_size": 2, "units": 2}),
    ((3, 2), {"class": "keras.convlstm1d", "kernel_size": 2, "strides": 2, "padding": "same", "units": 1}),
    ((3, 1), {"class": "keras.v1.convlstm1d", "kernel_size": 3, "units": 2}),
    ((3, 1), {"class": "keras.convlstm1d", "kernel_size": 2, "dilation_rate": 2, "units": 2}),
    ((3, 2, 1), {"class": "keras.convlstm2d", "kernel_size": (2, 1), "units": 2}),
    ((2, 3, 2), {"class": "convlstm2d", "kernel_size": 2, "padding": "same", "units": 1}),
    ((3, 3, 1), {"class": "keras.v2.convlstm2d", "kernel_size": (2, 2), "strides": (1, 2), "units": 2}),
    ((3, 2, 1), {"class": "keras.convlstm2d", "kernel_size": 2, "dilation_rate": (2, 1), "units": 1}),
    ((2, 1, 2, 1), {"class": "keras.convlstm3d", "kernel_size": (2, 1, 2), "units": 2}),
    ((2, 2, 1, 2), {"class": "convlstm3d", "kernel_size": 2, "padding": "same", "strides": (1, 2, 1), "units": 1}),
    ((3, 1), {"class": "gru", "units": 2}),
    ((2, 2, 2), {"class": "layernormlstm", "units": 2}),
)
"""Cells of a source with spatial dims, beside the sizes of its dims, the last that of the features."""
KINDS = ("regular", "recurrent", "dot", "soft_coverage")
WRAPPERS: Mapping[str, dict[str, Any]] = {
    "device": {"device": "/cpu:0"},
    "dropout": {},
    "highway": {},
    "inputprojection": {"projection": SIZE},
    "intraattention": {"attn_length": 2},
    "outputprojection": {},
    "residual": {},
}
"""Wrappers of cells from features to features, with options that they need."""
OTHER_SOURCES: tuple[dict[str, Any], ...] = ({"projection": 2}, {"input_size": 2})
"""What gives the cell inside another source than `SIZE` features."""
SIZED: Mapping[str, tuple[dict[str, Any], ...]] = {
    "inputprojection": ({}, OTHER_SOURCES[0]),
    "intraattention": ({}, {"attn_length": 1}, OTHER_SOURCES[1], {"attn_size": SIZE}),
    "outputprojection": ({}, {"units": SIZE}),
}
"""Sizes that some of them may have."""
ELSEWHERE = ("attention", "convlstm", "convlstm1d", "embedding", "lstmattention", "phasedlstm")
"""Cells whose source is no vector of features, or that read another layer."""
PLAIN: Mapping[str, type[Cell]] = {
    cls.cell_names[0]: cls
    for cls in all_cells()
    if "cell" not in option_names(cls) and not cls.lists_of_cells and cls.cell_names[0] not in ELSEWHERE
    if cls.cell_names[0] not in {cell["class"] for cell in FREQUENCIES}
}
"""Cells from features to as many features as one likes."""


def unit(draw: Draw, depth: int = 2) -> Any:
    """A unit whose source and output have `SIZE` features."""
    form = draw(st.sampled_from(["name", "options", "options", "stack", "wrapper"] if depth else ["name", "options"]))
    if form == "stack":
        return [unit(draw, depth - 1) for _ in range(draw(st.integers(1, 2)))]
    if form == "wrapper":
        return wrapped(draw, draw(st.sampled_from(sorted(WRAPPERS))), unit(draw, depth - 1))
    name = draw(st.sampled_from(sorted({*PLAIN, *_along_frequencies()})))
    if name in _along_frequencies():
        cell = with_options(draw, draw(st.sampled_from([cell for cell in FREQUENCIES if cell["class"] == name])))
        return {"class": "outputprojection", "cell": cell} if "units" in cell else cell
    return name if form == "name" else {"class": name, **options_of(draw, PLAIN[name])}


def wrapped(draw: Draw, name: str, cell: Any) -> dict[str, Any]:
    """A cell of features in a wrapper of a name."""
    sizes = [size for size in SIZED.get(name, ({},)) if size not in OTHER_SOURCES or fits_any_source(cell)]
    own = {**WRAPPERS[name], **options_of(draw, cell_class(name), sized=False), **draw(st.sampled_from(sizes))}
    return {"class": name, "cell": cell, **own}


def with_options(draw: Draw, cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with some more options, of the sizes that it has."""
    return {**options_of(draw, cell_class(cell["class"]), sized=False), **cell}


def unit_of_encoder(draw: Draw, encoder: str) -> tuple[Any, int]:
    """A unit of features that attends to the frames [SIZE] of a layer, and the size of its output."""
    found: dict[str, Any] = {"encoder": encoder, "kind": draw(st.sampled_from(KINDS))}
    if found["kind"] != "dot" and one_in(draw, 3):
        found |= {"keys": encoder} if draw(st.booleans()) else {"key_size": 2}
    with_context = one_in(draw, 3)
    if with_context:
        found["with_context"] = True
    size = 2 * SIZE if with_context else SIZE
    if draw(st.booleans()):
        more: dict[str, Any] = draw(st.sampled_from([{}, {"units": SIZE}, {"forget_bias": 1.0}]))
        return {"class": "lstm_attention", **found, **more}, size
    context = draw(st.sampled_from(["input", "recurrent"]))
    inside: Any = draw(st.sampled_from(["lstm", "milstm", {"class": "lstm", "peephole": True}]))
    if context == "input":
        inside = unit(draw, 1)
        if not fits_any_source(inside):
            inside = {"class": "inputprojection", "projection": SIZE, "cell": inside}
    attending = {"class": "attention", "context": context, "cell": inside, **found}
    around: list[Any] = [attending, ["rnn", attending], {"class": "dropout", "output_dropout": 0.2, "cell": attending}]
    if not with_context:
        around.append({"class": "residual", "cell": attending})
    return draw(st.sampled_from(around)), size


def unit_of_inputs(draw: Draw) -> Any:
    """A unit of the pair of a number and features."""
    phased = {"class": "phasedlstm", **options_of(draw, cell_class("phasedlstm"))}
    periods = [{}, {"ratio_on": 0.9, "period_init_max": 3.0}, {"period_init_min": 2.0, "period_init_max": 2.0}]
    phased |= draw(st.sampled_from(periods))
    return draw(st.sampled_from([phased, [phased, "gru"], {"class": "dropout", "output_dropout": 0.3, "cell": phased}]))


def unit_of_places(draw: Draw) -> tuple[Sizes, Any]:
    """A unit of a source with spatial dims, and the sizes of its dims."""
    sizes, cell = draw(st.sampled_from(PLACES))
    cell = with_options(draw, cell)
    after = with_options(draw, {"class": draw(st.sampled_from(["lstm", "gru", "cifg"])), "units": 2})
    units = [cell, [cell, after], {"class": "dropout", "output_dropout": 0.2, "cell": cell}]
    return sizes, draw(st.sampled_from(units))


def unit_of_labels(draw: Draw) -> Any:
    """A unit whose source is labels."""
    cell = unit(draw, 1)
    size = draw(st.sampled_from([SIZE, 2] if fits_any_source(cell) else [SIZE]))
    return {"class": "embedding", "embedding_size": size, "cell": cell}


def fits_any_source(unit: Any) -> bool:
    """Whether a unit takes a source of any size: what adds its source to its output does not, nor what has windows."""
    if isinstance(unit, list):
        return all(fits_any_source(cell) for cell in unit)
    name = unit if isinstance(unit, str) else unit["class"]
    if name in ("residual", "highway", "intersection", "glstm", *_along_frequencies()):
        return False
    return isinstance(unit, str) or "cell" not in unit or fits_any_source(unit["cell"])


def has_states_of_size(unit: Any) -> bool:
    """Whether it is certain that all states have `SIZE` features and no other dim."""
    if isinstance(unit, list):
        return all(has_states_of_size(cell) for cell in unit)
    if isinstance(unit, str):
        return True
    if "cell" in unit:
        kept = unit["class"] not in ("intraattention", "attention")
        return kept and has_states_of_size(unit["cell"])
    return unit.get("units", SIZE) == SIZE and unit["class"] not in _along_frequencies()


def _along_frequencies() -> set[str]:
    return {cell["class"] for cell in FREQUENCIES}
