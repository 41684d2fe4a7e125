"""Cells around others."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from tools.cells.layouts.layout import Layout, Masks, Tensors


def _dropout_masks(options: Mapping[str, Any], states: Sequence[str]) -> Masks:
    """A state's mask is recorded under its key, under that of its cell, or under none; there may be one of a c that is
    not used."""
    names: dict[str, Sequence[str]] = {"input": ("input",), "output": ("output",)}
    for state in states:
        key = state.removeprefix("cell/")
        if not (posixpath.basename(key) == "c" and f"{state[:-1]}h" in states):
            names[f"state/{state}"] = (f"state/{key}", posixpath.dirname(f"state/{key}"), "state/s", "state")
    return names


def _attention(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """attn_w is a convolution of one step."""
    return {name: value[0, 0] if name == "attention/attn_w" else value for name, value in recorded.items()}


def _attention_sizes(options: Mapping[str, Any]) -> list[int]:
    inside = options["cell"]
    size = int(options.get("attn_size") or inside.get("num_proj") or inside["num_units"])
    return [size, size * int(options["attn_length"])]


FUNCTIONS = {"x_plus_half_y": "x + 0.5 * y"}
"""Of those who recorded, by their names."""


def _residual(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: FUNCTIONS.get(value, value) if name == "residual_fn" else value for name, value in options.items()}


def _batch_shared(options: Mapping[str, Any]) -> dict[str, Any]:
    """TensorFlow's variational masks are the same for all sequences."""
    return {**options, **({"shared_by_batch": True} if options.get("variational_recurrent") else {})}


PROJECTION = ("kernel", "bias")
HIGHWAY = ("carry_w", "carry_b", "transform_w", "transform_b")
ATTENTION = (*PROJECTION, "attention", "attn_output_projection")

LAYOUTS = {
    ("tf", "AttentionCellWrapper"): Layout(
        ("context", "memory"), _attention, inner="cell", own=ATTENTION, sizes=_attention_sizes
    ),
    ("tf", "DeviceWrapper"): Layout((), inner="cell"),
    ("tf", "DropoutWrapper"): Layout((), inner="cell", masks=_dropout_masks, options=_batch_shared),
    ("tf", "EmbeddingWrapper"): Layout((), inner="cell", own=("embedding",)),
    ("tf", "HighwayWrapper"): Layout((), inner="cell", own=HIGHWAY),
    ("tf", "InputProjectionWrapper"): Layout((), inner="cell", own=PROJECTION),
    ("tf", "MultiRNNCell"): Layout((), inner="cells", inner_scope=lambda i: f"cell_{i}"),
    ("tf", "OutputProjectionWrapper"): Layout((), inner="cell", own=PROJECTION),
    ("tf", "ResidualWrapper"): Layout((), inner="cell", options=_residual),
    ("keras", "StackedRNNCells"): Layout((), inner="cells", inner_suffix=lambda i: f"_{i}" if i else ""),
}
