"""Every class of units with options, on sources of 5 features, or of 4 x 5 places with 3 channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SIZE = 5
PLACES = (4, 5, 3)
LSTM = {"class": "lstm", "units": 4}
UNITS: Mapping[str, dict[str, Any]] = {
    "basic_rnn": {"class": "rnn", "units": 4},
    "bidirectional_grid_lstm": {
        "class": "bidirectional_grid_lstm",
        "units": 2,
        "feature_size": 2,
        "frequency_skip": 1,
        "num_frequency_blocks": [4],
    },
    "cfn": {"class": "cfn", "units": 4},
    "cifg": {"class": "cifg", "units": 4, "use_peepholes": True, "projection": 3},
    "conv_lstm": {"class": "conv2d_lstm", "units": 2, "kernel_size": [3, 2]},
    "conv_lstm_skip": {"class": "conv2d_lstm", "units": 2, "kernel_size": 2, "skip_connection": True},
    "device": {"class": "device", "device": "/cpu:0", "cell": LSTM},
    "dropout": {"class": "dropout", "output_dropout": 0.5, "cell": LSTM},
    "embedding": {"class": "embedding", "embedding_classes": 7, "embedding_size": 3, "cell": LSTM},
    "grid_lstm": {
        "class": "grid_lstm",
        "units": 2,
        "feature_size": 2,
        "num_frequency_blocks": [2],
        "frequency_skip": 3,
    },
    "group_lstm": {"class": "glstm", "units": 4, "number_of_groups": 1},
    "gru": {"class": "gru", "units": 4},
    "highway": {"class": "highway", "cell": {"class": "gru", "units": SIZE}},
    "indrnn": {"class": "indrnn", "units": 4},
    "indy_gru": {"class": "indygru", "units": 4},
    "indy_lstm": {"class": "indylstm", "units": 4},
    "input_projection": {"class": "input_projection", "projection": 3, "activation": "tanh", "cell": LSTM},
    "intersection_rnn": {"class": "intersection_rnn", "units": 4, "num_in_proj": 4},
    "intra_attention": {"class": "intra_attention", "attn_length": 3, "cell": LSTM},
    "keras_conv_lstm": {"class": "ConvLSTM2D", "filters": 2, "kernel_size": [2, 3], "padding": "valid"},
    "keras_gru": {"class": "keras.gru", "units": 4},
    "keras_lstm": {"class": "keras.lstm", "units": 4, "recurrent_activation": "hard_sigmoid"},
    "layer_norm_basic_lstm": {"class": "layer_norm_basic_lstm", "units": 4},
    "layer_norm_lstm": {"class": "tf.LayerNormLSTM", "units": 4, "layer_norm": True},
    "layer_norm_variants_lstm": {"class": "layer_norm_variants_lstm", "units": 4},
    "low_memory_lstm": {"class": "native_lstm_low_mem", "units": 4},
    "lstm": {"class": "lstm", "units": 4, "peephole": True, "projection": 3},
    "lstm_fused": {"class": "native_lstm2", "units": 4},
    "basic_lstm": {"class": "basic_lstm", "units": 4},
    "standard_lstm": {"class": "tf.LSTMCell", "num_units": 4, "num_proj": 3, "proj_clip": 0.2, "cell_clip": 0.4},
    "milstm": {"class": "milstm", "units": 4},
    "minimal_rnn": {"class": "minimal_rnn", "units": 4},
    "nas": {"class": "nas", "units": 4, "use_bias": True},
    "output_projection": {"class": "output_projection", "output_size": 3, "cell": LSTM},
    "phased_lstm": {"class": "phased_lstm", "units": 4, "ratio_on": 0.4},
    "recurrent_highway": {"class": "rhn", "units": 4},
    "residual": {"class": "residual", "residual_fn": "x + 0.5 * y", "cell": {"class": "gru", "units": SIZE}},
    "simple_rnn": {"class": "simple_rnn", "units": 4},
    "sru": {"class": "sru", "units": 4},
    "stack": {"class": "stack", "cells": [LSTM, {"class": "residual", "cell": {"class": "gru", "units": 4}}]},
    "time_frequency_lstm": {"class": "time_frequency_lstm", "units": 2, "feature_size": 3, "frequency_skip": 2},
    "ugrnn": {"class": "ugrnn", "units": 4},
    "zoneout_lstm": {"class": "zoneoutlstm", "units": 4, "zoneout_factor_cell": 0.2, "zoneout_factor_output": 0.1},
}
ON_PLACES = ("conv_lstm", "conv_lstm_skip", "keras_conv_lstm")


def is_on_places(name: str) -> bool:
    """Whether the source has spatial dims."""
    return name in ON_PLACES


def shape_of_source(name: str) -> tuple[int, ...]:
    """That of a step without the batch, as Keras gives it."""
    return PLACES if is_on_places(name) else {"embedding": (1,), "phased_lstm": (1 + SIZE,)}.get(name, (SIZE,))


def source_of(name: str, batch: int = 3, frames: int = 5) -> np.ndarray:
    """A batch of sequences, the time of phased LSTM before the features."""
    random = np.random.default_rng(1)
    if name == "embedding":
        return random.integers(0, 7, (batch, frames, 1)).astype("int32")
    return random.normal(size=(batch, frames, *shape_of_source(name)))
