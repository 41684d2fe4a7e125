"""Units of recurrent layers from the whole table of cells, with options, in stacks and under wrappers; also those of
other sources: frequencies, places, several inputs, labels, an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from returnn_lite.config.decode import option_names
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.registry import all_cells
from tests.properties.parts import SIZE, Draw, Layers, linear

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("tanh", "relu", "sigmoid"),
    "cell_clip": (0.3,),
    "depth": (2,),
    "forget_bias": (0.0, 1.0),
    "groups": (3,),
    "norm": ("gate", "joint"),
    "peephole": (True,),
    "recurrent_activation": ("sigmoid", "hard_sigmoid"),
    "reset_after": (True, False),
    "use_bias": (True, False),
    "use_zoneout_output": (True, False),
    "zoneout_factor_cell": (0.3,),
}
"""Values that options may have; an option of a cell is drawn if it is here."""
FREQUENCIES: tuple[dict[str, Any], ...] = (
    {"class": "timefrequencylstm", "feature_size": 1},
    {"class": "timefrequencylstm", "feature_size": 1, "units": 1, "peephole": True, "cell_clip": 0.3},
    {"class": "timefrequencylstm", "feature_size": 1, "frequency_skip": 2, "units": 2, "forget_bias": 0.0},
    {"class": "gridlstm", "feature_size": 2, "num_frequency_blocks": [2], "units": 1},
    {"class": "gridlstm", "feature_size": 1, "num_frequency_blocks": [1, 2], "units": 1, "peephole": True,
     "start_freqindex_list": [0, 1], "end_freqindex_list": [1, 3]},
    {"class": "gridlstm", "feature_size": 1, "frequency_skip": 2, "num_frequency_blocks": [2], "units": 2,
     "couple_input_forget_gates": True, "share_time_frequency_weights": True, "cell_clip": 0.3},
    {"class": "bidirectionalgridlstm", "feature_size": 2, "num_frequency_blocks": [2], "units": 1, "peephole": True,
     "backward_slice_offset": 1},
    {"class": "bidirectionalgridlstm", "feature_size": 1, "num_frequency_blocks": [3], "units": 1,
     "share_time_frequency_weights": True, "backward_slice_offset": -1},
)  # fmt: skip
"""Cells along the frequency axis; their outputs are as large as their options make them."""
PLACES: tuple[dict[str, Any], ...] = (
    {"class": "conv1dlstm", "kernel_size": 2, "units": 2},
    {"class": "conv1dlstm", "kernel_size": 3, "units": 2, "skip_connection": True, "forget_bias": 0.0},
    {"class": "conv1dlstm", "kernel_size": 1, "units": 1, "use_bias": False},
    {"class": "keras.convlstm1d", "kernel_size": 2, "units": 2, "recurrent_activation": "hard_sigmoid"},
    {"class": "keras.convlstm1d", "kernel_size": 2, "strides": 2, "padding": "same", "units": 1, "dropout": 0.2},
    {"class": "keras.v1.convlstm1d", "kernel_size": 3, "units": 2, "recurrent_dropout": 0.3, "activation": "relu"},
    {"class": "keras.convlstm1d", "kernel_size": 2, "dilation_rate": 2, "units": 2, "unit_forget_bias": False},
    {"class": "gru", "units": 2},
)
"""Cells of a source with a spatial dim."""
PHASED: tuple[dict[str, Any], ...] = (
    {},
    {"peephole": True},
    {"leak": 0.0, "ratio_on": 0.9, "period_init_max": 3.0},
    {"trainable_ratio_on": False, "period_init_min": 2.0, "period_init_max": 2.0},
)
KINDS = ("regular", "recurrent", "dot", "soft_coverage")
WRAPPERS: Mapping[str, dict[str, Any]] = {
    "residual": {},
    "dropout": {"input_dropout": 0.2, "state_dropout": 0.3, "output_dropout": 0.1, "variational": True},
    "highway": {},
    "inputprojection": {"projection": SIZE, "activation": "relu"},
    "outputprojection": {"activation": "tanh"},
    "intraattention": {"attn_length": 2},
}
ELSEWHERE = ("attention", "convlstm", "convlstm1d", "embedding", "lstmattention", "phasedlstm")
"""Cells whose source is no vector of features, or that read another layer."""
LEAVES: Mapping[str, type[Cell]] = {
    cls.cell_names[0]: cls for cls in all_cells() if "cell" not in option_names(cls) and not cls.lists_of_cells
}


def unit(draw: Draw, depth: int = 2) -> Any:
    """A unit whose source and output have `SIZE` features."""
    form = draw(st.sampled_from(["name", "options", "options", "stack", "wrapper"] if depth else ["name", "options"]))
    if form == "stack":
        return [unit(draw, depth - 1) for _ in range(draw(st.integers(1, 2)))]
    if form == "wrapper":
        name = draw(st.sampled_from(sorted(WRAPPERS)))
        return {"class": name, "cell": unit(draw, depth - 1), **WRAPPERS[name]}
    frequencies = {str(cell["class"]) for cell in FREQUENCIES}
    name = draw(st.sampled_from(sorted(set(LEAVES) - set(ELSEWHERE))))
    if name in frequencies:
        return _fitted(draw(st.sampled_from([cell for cell in FREQUENCIES if cell["class"] == name])))
    return name if form == "name" else {"class": name, **_options(draw, LEAVES[name])}


def unit_of_encoder(draw: Draw) -> Any:
    """A unit [SIZE] that attends to the frames around the loop."""
    found = {"encoder": "base:frames", "kind": draw(st.sampled_from(KINDS))}
    if found["kind"] != "dot" and _one_in_3(draw):
        found["keys"] = "base:frames"
    if draw(st.booleans()):
        return {"class": "lstm_attention", **found}
    context = draw(st.sampled_from(["input", "recurrent"]))
    inside: Any = draw(st.sampled_from(["lstm", "milstm"]))
    if context == "input":
        inside = {"class": "inputprojection", "projection": SIZE, "cell": unit(draw, 1)}
    attending = {"class": "attention", "context": context, "cell": inside, **found}
    return draw(st.sampled_from([attending, ["rnn", attending], {"class": "residual", "cell": attending}]))


def on_other_sources(draw: Draw, name: str, run: Layers, source: str, labels: str) -> Layers:
    """A layer [SIZE] that runs, as `run` says, a cell of another kind of source: of places, of several inputs, with an
    encoder beside it, or of labels, where there are any."""
    kind = draw(st.sampled_from(["places", "inputs", "encoder", *(["labels"] if labels else [])]))
    if kind == "encoder":
        return {name: {**run, "unit": unit_of_encoder(draw), "n_out": SIZE, "from": source}}
    if kind == "labels":
        embedded = {"class": "embedding", "embedding_size": SIZE, "cell": unit(draw, 1)}
        return {name: {**run, "unit": embedded, "n_out": SIZE, "from": labels}}
    if kind == "inputs":
        phased = {"class": "phasedlstm", **draw(st.sampled_from(PHASED))}
        units = [phased, [phased, "gru"], {"class": "dropout", "output_dropout": 0.3, "cell": phased}]
        return {
            f"{name}_t": {"class": "linear", "from": source, "n_out": 1, "activation": "relu"},
            name: {**run, "unit": draw(st.sampled_from(units)), "n_out": SIZE, "from": [f"{name}_t", source]},
        }
    cell = draw(st.sampled_from(PLACES))
    cells = [cell, [cell, {"class": "lstm", "units": 2}], {"class": "dropout", "output_dropout": 0.2, "cell": cell}]
    return {
        f"{name}_p": {"class": "split_dims", "axis": "F", "dims": (SIZE, 1), "from": source},
        f"{name}_c": {**run, "unit": draw(st.sampled_from(cells)), "from": f"{name}_p"},
        f"{name}_m": {"class": "merge_dims", "axes": "static", "from": f"{name}_c"},
        name: linear(f"{name}_m"),
    }


def _fitted(cell: dict[str, Any]) -> Any:
    """A cell with an output of its own size, under a projection that makes it SIZE."""
    return cell if "units" not in cell else {"class": "outputprojection", "cell": cell}


def _options(draw: Draw, cls: type[Cell]) -> dict[str, Any]:
    """Some of the options that are known here; with a projection the state has another size than the output."""
    known = option_names(cls)
    chosen = [name for name in CHOICES if name in known and _one_in_3(draw)]
    drawn = {name: draw(st.sampled_from(CHOICES[name])) for name in chosen}
    if "projection" in known and _one_in_3(draw):
        drawn |= {"units": 4, "projection": SIZE}
        drawn.pop("groups", None)
    return drawn


def _one_in_3(draw: Draw) -> bool:
    return draw(st.integers(0, 2)) == 0
