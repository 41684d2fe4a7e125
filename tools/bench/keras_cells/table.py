"""The layer of each case of the table of cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cell_networks as sizes
import keras

from keras_cells import attention, gated, lstms, spatial

N, WINDOWS, UNITS = sizes.SIZE, sizes.WINDOWS, sizes.UNITS
DIRECTIONS = ("fwd/", "bwd/")


def _convolutional(ndims: int) -> keras.layers.Layer:
    return spatial.ConvLstm(sizes.CHANNELS, sizes.PLACES[ndims], sizes.KERNEL)


def _attending(kind: str) -> keras.layers.Layer:
    return attention.LstmAttention(N, sizes.ENCODER["frames"], sizes.ENCODER["size"], kind)


CELLS: Mapping[str, Callable[[], keras.layers.Layer]] = {
    "rnn": lambda: gated.BasicRnn(N),
    "keras_rnn": lambda: keras.layers.SimpleRNNCell(N),
    "lstm": lambda: lstms.Lstm(N),
    "tf_lstm": lambda: lstms.StandardLstm(N),
    "keras_lstm": lambda: keras.layers.LSTMCell(N),
    "lstm_peephole": lambda: lstms.StandardLstm(N, peephole=True, clip=3.0),
    "lstm_projected": lambda: lstms.StandardLstm(N, projection=sizes.PROJECTION),
    "gru": lambda: gated.Gru(N),
    "gru_after": lambda: gated.GruAfter(N),
    "keras_gru": lambda: keras.layers.GRUCell(N),
    "layer_norm_lstm": lambda: lstms.LayerNormLstm(N),
    "joint_norm_lstm": lambda: lstms.JointNormLstm(N),
    "norm_variants_lstm": lambda: lstms.NormVariantsLstm(N),
    "milstm": lambda: lstms.MultiplicativeLstm(N),
    "layer_norm_milstm": lambda: lstms.MultiplicativeLstm(N, norm=True),
    "cifg": lambda: lstms.CoupledLstm(N),
    "zoneout_lstm": lambda: lstms.ZoneoutLstm(N),
    "group_lstm": lambda: lstms.GroupLstm(N, sizes.GROUPS),
    "phased_lstm": lambda: lstms.PhasedLstm(N),
    "time_frequency_lstm": lambda: spatial.TimeFrequencyLstm(UNITS, WINDOWS),
    "grid_lstm": lambda: spatial.GridLstm(UNITS, WINDOWS),
    "bidirectional_grid_lstm": lambda: spatial.GridLstm(UNITS, WINDOWS, DIRECTIONS),
    "nas": lambda: gated.NeuralSearch(N),
    "ugrnn": lambda: gated.UpdateGateRnn(N),
    "intersection": lambda: gated.IntersectionRnn(N),
    "rhn": lambda: gated.RecurrentHighway(N, sizes.DEPTH),
    "sru": lambda: gated.SimpleRecurrentUnit(N),
    "ind_rnn": lambda: gated.IndependentRnn(N),
    "indy_gru": lambda: gated.IndyGru(N),
    "indy_lstm": lambda: gated.IndyLstm(N),
    "minimal_rnn": lambda: gated.MinimalRnn(N),
    "cfn": lambda: gated.ChaosFreeNetwork(N),
    "conv_1d_lstm": lambda: _convolutional(1),
    "conv_2d_lstm": lambda: _convolutional(2),
    "conv_3d_lstm": lambda: _convolutional(3),
    "lstm_attention": lambda: _attending("regular"),
    "lstm_attention_recurrent": lambda: _attending("recurrent"),
    "lstm_attention_dot": lambda: _attending("dot"),
    "lstm_attention_coverage": lambda: _attending("soft_coverage"),
    "intra_attention": lambda: attention.IntraAttention(N, sizes.MEMORY),
}
"""What runs in `keras.layers.RNN`."""
LAYERS: Mapping[str, Callable[[], keras.layers.Layer]] = {
    "keras_conv_lstm_1d": lambda: keras.layers.ConvLSTM1D(sizes.CHANNELS, sizes.KERNEL, return_sequences=True),
    "keras_conv_lstm_2d": lambda: keras.layers.ConvLSTM2D(sizes.CHANNELS, sizes.KERNEL, return_sequences=True),
    "keras_conv_lstm_3d": lambda: keras.layers.ConvLSTM3D(sizes.CHANNELS, sizes.KERNEL, return_sequences=True),
}
"""Keras' own layers, whose cells it does not export."""


def layer_of(name: str) -> keras.layers.Layer:
    """The layer of a case; its attribute `cell` is the cell."""
    if name in LAYERS:
        return LAYERS[name]()
    return keras.layers.RNN(CELLS[name](), return_sequences=True)


def parameters_of(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """By the names that returnn_lite has for them."""
    own = getattr(layer.cell, "weights_by_name", None)
    return own or {variable.name: variable for variable in layer.trainable_variables}
