"""What Caffe2's functions make, as units here, by the constructor of a case and the shapes of its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.cells.case import Case
from tools.cells.plan import Net

UNIT_OPTIONS = {"BasicRNN": ("activation",)}
"""By cell, the options of functions that are options of units here, if not `forget_bias`. Others are of the loop, or
say what shapes say, too."""


@dataclass(frozen=True)
class Recurrence:
    """One of Caffe2's recurrent networks: a layer here."""

    name: str
    unit: Net
    scopes: Mapping[int, str]
    """By number of a layer of Caffe2's, what our names of its states and parameters begin with."""

    @property
    def scope_of_output(self) -> str:
        """That of the layer whose output is this one's."""
        return self.scopes[max(self.scopes)]


def cell_of(case: Case) -> str:
    """Caffe2's name of the cell: in the function, as in `layered_LSTM` and `DropoutCell(LSTMCell)`; of a stack, whose
    function is `MultiRNNCell`, by the parameters."""
    function = str(case.constructor.get("function", ""))
    cell = function.rstrip(")").rpartition("(")[2].removeprefix("layered_").removesuffix("Cell")
    if cell not in ("MultiRNN", ""):
        return cell
    own = {name.rpartition("/")[2] for name in case.below("param/")}
    norm = "LayerNorm" if "gates_t_norm_scale" in own else ""
    return f"{norm}MILSTM" if "alpha" in own else f"{norm}LSTM"


def recurrences(case: Case) -> Sequence[Recurrence]:
    """One after the other: each starts from the last states of the one before."""
    constructor = case.constructor
    function = str(constructor.get("function", ""))
    cell = cell_of(case)
    options = {name: constructor[name] for name in UNIT_OPTIONS.get(cell, ("forget_bias",)) if name in constructor}
    layers = parameters_by_layer(case.below("param/"))
    sizes = {i: layer["i2h_w"].shape[0] // (1 if cell == "BasicRNN" else 4) for i, layer in layers.items()}
    units: dict[int, Net] = {i: {"class": f"caffe2.{cell}", "units": size, **options} for i, size in sizes.items()}
    if function.startswith("layered_"):
        names = {i: "output" if i == max(units) else f"layer_{i}" for i in units}
        return [Recurrence(names[i], unit, {i: ""}) for i, unit in units.items()]
    if function.startswith("DropoutCell"):
        rate = 0.0 if constructor.get("is_test") else constructor["dropout_ratio"]
        return [Recurrence("output", {"class": "dropout", "output_dropout": rate, "cell": units[0]}, {0: "cell/"})]
    if len(units) == 1:
        return [Recurrence("output", units[0], {0: ""})]
    residual = set(constructor.get("residual_output_layers") or ())
    cells = [{"class": "residual", "cell": unit} if i in residual else unit for i, unit in units.items()]
    scopes = {i: f"{i}/cell/" if i in residual else f"{i}/" for i in units}
    return [Recurrence("output", {"class": "stack", "cells": cells}, scopes)]


def parameters_by_layer(recorded: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Parameters by number of the layer, then by Caffe2's name without scope; a scope without number is that of 0."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in recorded.items():
        scope, _, own = name.rpartition("/")
        number = re.search(r"layer_(\d+)", scope)
        found.setdefault(int(number[1]) if number else 0, {})[own] = value
    return dict(sorted(found.items()))
