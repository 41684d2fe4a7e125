"""The networks of the table of cells: one recurrent layer each. Needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BATCH, TIME, SIZE = 32, 50, 256
FREQUENCIES = {"feature_size": 32, "frequency_skip": 32}
WINDOWS, UNITS = SIZE // FREQUENCIES["feature_size"], 32
GRID = {"units": UNITS, **FREQUENCIES, "num_frequency_blocks": [WINDOWS]}
ENCODER = {"frames": 40, "size": SIZE}
DECODER_TIME = 20
CHANNELS, KERNEL = 16, 3
PLACES = {1: (64,), 2: (12, 12), 3: (6, 6, 6)}
CONVOLUTION = {"batch": 8, "time": 20, "input": 16}
GROUPS, PROJECTION, MEMORY, DEPTH = 4, 128, 10, 2

Unit = str | dict[str, Any]
Shape = tuple[int | None, ...]
DENSE: Shape = (None, SIZE)


@dataclass(frozen=True)
class CellNetwork:
    """A layer with this unit. `sources` are its data keys with their shapes, time and features or places and features;
    that of `encoder` is read by the cell alone."""

    unit: Unit
    title: str = ""
    sources: Mapping[str, Shape] = field(default_factory=lambda: {"data": DENSE})
    batch: int = BATCH
    time: int = TIME
    n_out: int | None = SIZE

    def longest(self) -> dict[str, int]:
        """The frames of each data key."""
        return {key: ENCODER["frames"] if key == "encoder" else self.time for key in self.sources}

    def extern_data(self) -> dict[str, dict[str, Any]]:
        """The data; all sources but the encoder have the same time dim."""
        found = {key: {"shape": shape, "dim": shape[-1]} for key, shape in self.sources.items()}
        if "time" in found:
            found["time"]["same_dim_tags_as"] = {"t": "data"}
        return found

    def network(self) -> dict[str, Any]:
        """One recurrent layer with the sum of its outputs as the loss."""
        layer = {
            "class": "rec",
            "from": [f"data:{key}" for key in self.sources if key != "encoder"],
            "unit": self.unit,
        }
        if self.n_out is not None:
            layer["n_out"] = self.n_out
        return {"cell": layer, "output": {"class": "copy", "from": "cell", "loss": "as_is"}}


def attending(unit: str, kind: str) -> CellNetwork:
    """A cell with attention to an encoder."""
    sources = {"data": DENSE, "encoder": (None, ENCODER["size"])}
    return CellNetwork(
        {"class": unit, "encoder": "data:encoder", "kind": kind},
        f"LSTM with {kind.replace('_', ' ')} attention",
        sources,
        time=DECODER_TIME,
    )


def convolutional(unit: str, ndims: int, title: str, **options: Any) -> CellNetwork:
    """A convolutional LSTM over so many dims."""
    sources = {"data": (None, *PLACES[ndims], CONVOLUTION["input"])}
    found = {"class": unit, "kernel_size": [KERNEL] * ndims, **options}
    return CellNetwork(found, title, sources, CONVOLUTION["batch"], CONVOLUTION["time"], CHANNELS)


NETWORKS: Mapping[str, CellNetwork] = {
    "rnn": CellNetwork("rnn", "basic RNN"),
    "keras_rnn": CellNetwork("keras.SimpleRNN", "Keras' simple RNN"),
    "lstm": CellNetwork("lstm", "LSTM"),
    "tf_lstm": CellNetwork("tf.lstm", "TensorFlow's LSTM"),
    "keras_lstm": CellNetwork("keras.LSTM", "Keras' LSTM"),
    "lstm_peephole": CellNetwork(
        {"class": "tf.lstm", "peephole": True, "cell_clip": 3.0}, "LSTM, peepholes and clipped cell"
    ),
    "lstm_projected": CellNetwork(
        {"class": "tf.lstm", "units": SIZE, "projection": PROJECTION},
        "LSTM, projected",
        n_out=None,
    ),
    "gru": CellNetwork("gru", "GRU, reset before the product"),
    "gru_after": CellNetwork({"class": "gru", "reset_after": True}, "GRU, reset after the product"),
    "keras_gru": CellNetwork("keras.GRU", "Keras' GRU"),
    "layer_norm_lstm": CellNetwork("layer_norm_lstm", "LayerNorm LSTM, each gate by itself"),
    "joint_norm_lstm": CellNetwork("caffe2.layer_norm_lstm", "LayerNorm LSTM, all gates together"),
    "norm_variants_lstm": CellNetwork("layer_norm_variants_lstm", "LayerNorm LSTM, products by themselves"),
    "milstm": CellNetwork("milstm", "MI-LSTM"),
    "layer_norm_milstm": CellNetwork("layer_norm_milstm", "LayerNorm MI-LSTM"),
    "cifg": CellNetwork("cifg", "CIFG LSTM"),
    "zoneout_lstm": CellNetwork(
        {"class": "zoneout_lstm", "zoneout_factor_cell": 0.1, "zoneout_factor_output": 0.1}, "zoneout LSTM"
    ),
    "group_lstm": CellNetwork({"class": "group_lstm", "groups": GROUPS}, "group LSTM, 4 groups"),
    "phased_lstm": CellNetwork("phased_lstm", "phased LSTM", {"time": (None, 1), "data": DENSE}),
    "time_frequency_lstm": CellNetwork(
        {"class": "time_frequency_lstm", "units": UNITS, **FREQUENCIES},
        "time-frequency LSTM, 8 windows",
        n_out=None,
    ),
    "grid_lstm": CellNetwork({"class": "grid_lstm", **GRID}, "grid LSTM, 8 windows", n_out=None),
    "bidirectional_grid_lstm": CellNetwork(
        {"class": "bidirectional_grid_lstm", **GRID}, "bidirectional grid LSTM, 8 windows", n_out=None
    ),
    "nas": CellNetwork("nas", "NAS cell"),
    "ugrnn": CellNetwork("ugrnn", "update gate RNN"),
    "intersection": CellNetwork("intersection", "intersection RNN"),
    "rhn": CellNetwork({"class": "rhn", "depth": DEPTH}, "recurrent highway network, depth 2"),
    "sru": CellNetwork("sru", "SRU"),
    "ind_rnn": CellNetwork("ind_rnn", "IndRNN"),
    "indy_gru": CellNetwork("indy_gru", "IndyGRU"),
    "indy_lstm": CellNetwork("indy_lstm", "IndyLSTM"),
    "minimal_rnn": CellNetwork("minimal_rnn", "MinimalRNN"),
    "cfn": CellNetwork("cfn", "chaos free network"),
    "conv_1d_lstm": convolutional("conv_1d_lstm", 1, "Conv LSTM, 1D"),
    "conv_2d_lstm": convolutional("conv_2d_lstm", 2, "Conv LSTM, 2D"),
    "conv_3d_lstm": convolutional("conv_3d_lstm", 3, "Conv LSTM, 3D"),
    "keras_conv_lstm_1d": convolutional("ConvLSTM1D", 1, "Keras' ConvLSTM1D"),
    "keras_conv_lstm_2d": convolutional("ConvLSTM2D", 2, "Keras' ConvLSTM2D"),
    "keras_conv_lstm_3d": convolutional("ConvLSTM3D", 3, "Keras' ConvLSTM3D"),
    "lstm_attention": attending("lstm_attention", "regular"),
    "lstm_attention_recurrent": attending("lstm_attention", "recurrent"),
    "lstm_attention_dot": attending("lstm_attention", "dot"),
    "lstm_attention_coverage": attending("lstm_attention", "soft_coverage"),
    "intra_attention": CellNetwork(
        {"class": "attention_cell_wrapper", "cell": "tf.lstm", "attn_length": MEMORY},
        "LSTM with attention to its last 10 outputs",
    ),
}
"""By the name of the case."""
