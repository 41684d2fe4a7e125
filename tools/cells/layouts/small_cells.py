"""Recurrent networks with other gates than those of LSTM and GRU, or with none."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tools.cells.layouts.layout import Layout, Tensors


def with_flat_vectors(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """The weights of units that see only themselves are recorded with one row."""
    return {name: tf.squeeze(value, 0) if name.endswith("kernel_u") else value for name, value in recorded.items()}


LAYOUTS = {
    ("tf", "IndRNNCell"): Layout(parameters=with_flat_vectors),
    ("tf", "IndyGRUCell"): Layout(parameters=with_flat_vectors),
    ("tf", "NASCell"): Layout(("c", "h")),
    ("tf", "SRUCell"): Layout(("c",)),
}
