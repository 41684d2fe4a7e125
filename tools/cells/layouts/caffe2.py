"""Caffe2's cells: products are x Wᵀ with a bias each, weights [out, in]; the LSTM's blocks are i, f, o, g.

`i2h` is the product of the source, `gates_t` (multiplicative: `prev_t`) that of the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tools.cells.layouts.layout import Layout, Tensors

STATES = {"hidden": "h", "cell": "c"}
"""Our keys of what Caffe2 calls the states."""


def lstm(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Blocks j, i, f, o; one bias, the sum of both."""
    return {
        "W": tf.transpose(_jifo(recorded["i2h_w"])),
        "W_re": tf.transpose(_jifo(recorded["gates_t_w"])),
        "b": _jifo(recorded["i2h_b"] + recorded["gates_t_b"]),
    }


def layer_norm_lstm(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Blocks i, j, f, o; one kernel for both, and one bias."""
    return {
        "kernel": tf.transpose(_ijfo(tf.concat([recorded["i2h_w"], recorded["gates_t_w"]], 1))),
        "bias": _ijfo(recorded["i2h_b"] + recorded["gates_t_b"]),
        "norm/gamma": _ijfo(recorded["gates_t_norm_scale"]),
        "norm/beta": _ijfo(recorded["gates_t_norm_bias"]),
    }


def multiplicative_lstm(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Blocks j, i, f, o. The biases of both products are in beta1, beta2 and b:

    (alpha (u+s) + beta1) (p+t) + beta2 (u+s) + b = alpha u p + (beta1 + alpha s) p + (beta2 + alpha t) u
    + (b + alpha s t + beta1 t + beta2 s).
    """
    alpha, beta1, beta2 = (recorded[name] for name in ("alpha", "beta1", "beta2"))
    s, t = recorded["i2h_b"], recorded["prev_t_b"]
    return {
        "W": tf.transpose(_jifo(recorded["i2h_w"])),
        "W_re": tf.transpose(_jifo(recorded["prev_t_w"])),
        "alpha": _jifo(alpha),
        "beta1": _jifo(beta1 + alpha * s),
        "beta2": _jifo(beta2 + alpha * t),
        "b": _jifo(recorded["b"] + alpha * s * t + beta1 * t + beta2 * s),
    }


def layer_norm_multiplicative_lstm(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    return {
        **multiplicative_lstm(options, recorded),
        "norm/gamma": _jifo(recorded["gates_t_norm_scale"]),
        "norm/beta": _jifo(recorded["gates_t_norm_bias"]),
    }


def basic_rnn(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """One kernel for both."""
    return {
        "basic_rnn_cell/kernel": tf.transpose(tf.concat([recorded["i2h_w"], recorded["gates_t_w"]], 1)),
        "basic_rnn_cell/bias": recorded["i2h_b"] + recorded["gates_t_b"],
    }


def of_gates(given: Tensors) -> dict[str, Any]:
    """What InitFromLSTMParams makes of weights and biases by gate: the parameters of an LSTM."""
    gates = ("input_gate", "forget_gate", "output_gate", "cell")
    names = {"i2h": "input", "gates_t": "recurrent"}
    return {
        f"{own}_{part}": tf.concat([given[f"{theirs}/{gate}_{part}"] for gate in gates], 0)
        for own, theirs in names.items()
        for part in "wb"
    }


def _ijfo(recorded: Any) -> Any:
    """Rows of blocks i, f, o, g as i, j (their g), f, o."""
    i, f, o, g = tf.split(recorded, 4)
    return tf.concat([i, g, f, o], 0)


def _jifo(recorded: Any) -> Any:
    """Rows of blocks i, f, o, g as j (their g), i, f, o."""
    i, f, o, g = tf.split(recorded, 4)
    return tf.concat([g, i, f, o], 0)


LAYOUTS = {
    ("caffe2", "LSTM"): Layout(("h", "c"), lstm),
    ("caffe2", "LayerNormLSTM"): Layout(("h", "c"), layer_norm_lstm),
    ("caffe2", "LayerNormMILSTM"): Layout(("h", "c"), layer_norm_multiplicative_lstm),
    ("caffe2", "MILSTM"): Layout(("h", "c"), multiplicative_lstm),
    ("caffe2", "BasicRNN"): Layout(("h",), basic_rnn),
}
