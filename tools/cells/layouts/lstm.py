"""LSTMs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tools.cells.layouts.gru import masks_of_gates
from tools.cells.layouts.layout import Layout, Tensors


def _coupled(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """W_0, W_1, ... are the rows of one kernel, as are W_P_0, ... of the projection. A B beside norms is not used."""
    found: dict[str, Any] = {}
    for theirs, ours in (("W_", "kernel"), ("W_P_", "projection/kernel")):
        count = sum(name.removeprefix(theirs).isdecimal() for name in recorded)
        if count:
            found[ours] = tf.concat([recorded[f"{theirs}{i}"] for i in range(count)], 0)
    found |= {name.lower(): value for name, value in recorded.items() if name.endswith("_diag")}
    found |= {name: value for name, value in recorded.items() if name.endswith(("/gamma", "/beta"))}
    return found if options.get("layer_norm") else {**found, "bias": recorded["B"]}


def _group(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    kernels = [recorded[f"group{i}/kernel"] for i in range(options.get("number_of_groups", 1))]
    found = {"kernel": tf.stack(kernels), "bias": tf.concat([recorded[f"bias_{gate}"] for gate in "ijfo"], 0)}
    projection = "projection/kernel"
    return {**found, **({projection: recorded[projection]} if projection in recorded else {})}


def _indy(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    return {**recorded, "kernel_u": recorded["kernel_u"][0]}


LAYOUTS = {
    ("keras", "LSTMCell"): Layout(("h", "c"), masks=masks_of_gates(4)),
    ("tf", "BasicLSTMCell"): Layout(("c", "h"), folder="basic_lstm_cell/"),
    ("tf", "CoupledInputForgetGateLSTMCell"): Layout(("c", "h"), _coupled),
    ("tf", "CudnnCompatibleLSTMCell"): Layout(("c", "h"), folder="lstm_cell/"),
    ("tf", "GLSTMCell"): Layout(("c", "h"), _group),
    ("tf", "IndyLSTMCell"): Layout(("c", "h"), _indy),
    ("tf", "LSTMBlockCell"): Layout(("c", "h"), folder="lstm_cell/"),
    ("tf", "LSTMBlockFusedCell"): Layout(("c", "h"), folder="lstm_cell/"),
    ("tf", "LSTMCell"): Layout(("c", "h"), folder="lstm_cell/"),
}
