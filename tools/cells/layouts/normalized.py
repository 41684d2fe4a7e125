"""TensorFlow's LSTMs with layer normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.cells.layouts.layout import Layout, Masks, Tensors, as_they_are


def _parameters(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Under the same names. A bias beside norms is there in TensorFlow, but not used: without gradient."""
    found = as_they_are(options, recorded)
    return {name: value for name, value in found.items() if name != "bias" or "state/gamma" not in found}


def _masks(options: Mapping[str, Any], states: Sequence[str]) -> Masks:
    return {"candidate": ("g",)}


LAYOUTS = {
    ("tf", "LayerNormBasicLSTMCell"): Layout(("c", "h"), _parameters, masks=_masks),
    ("tf", "LayerNormLSTMCell"): Layout(("c", "h"), _parameters),
}
