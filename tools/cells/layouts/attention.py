"""Caffe2's attention: products are x Wᵀ with a bias each, weights [out, in]; one row of weights makes the energies."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tools.cells.layouts.layout import Tensors

STATES = {"context": "context", "coverage": "coverage"}
"""Our keys of the states that attention adds, by what recorded arrays of them are called."""
PRODUCTS = {
    "weighted_encoder_outputs": "keys",
    "weighted_decoder_hidden_state": "query",
    "weighted_prev_attention_context": "previous_context",
    "coverage_weights": "coverage",
}
"""Our names of what is multiplied."""


def of_attention(recorded: Tensors) -> dict[str, Any]:
    """Ours, of all parameters by their names without scopes: those of the cell inside are left out. The bias of the
    energies is always 0, and would change no weights."""
    found: dict[str, Any] = {}
    for theirs, own in PRODUCTS.items():
        if f"{theirs}_w" in recorded:
            found[f"{own}/W"] = tf.transpose(recorded[f"{theirs}_w"])
            found[f"{own}/b"] = recorded[f"{theirs}_b"]
    if "attention_logits_w" in recorded:
        found["v"] = tf.reshape(recorded["attention_logits_w"], [-1])
    return found
