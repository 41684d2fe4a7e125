"""`beyond_the_end`: what stands beyond the ends of shorter sequences where an output leaves the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.engine.network import NetworkCompiler

DATA = {"data": {"dim": 3}}
LENGTHS = [5, 0, 3]
SOURCE = np.random.default_rng(7).normal(size=(3, 5, 3))
GRU = {"class": "rec", "unit": {"class": "gru", "units": 2}, "from": "data", "initial_state": 0.5}
Net = dict[str, Any]


def compiled(layers: Net, mode: Any = "eval", *, optimize: bool = True) -> rl.Network:
    net = rl.compile(layers, DATA, mode, behavior_version=21, dtype="float64", optimize=optimize)
    for name in net.params:
        net.params[name].assign(np.random.default_rng(sum(map(ord, name))).normal(size=net.params[name].shape))
    return net


def output(layers: Net, name: str = "output", *, optimize: bool = True) -> np.ndarray:
    """[B, T, ..]"""
    found = compiled(layers, optimize=optimize).run({"data": SOURCE}, {"data": LENGTHS}).layers[name]
    return np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)


def expected(plain: np.ndarray, beyond: list[Any]) -> np.ndarray:
    """An output with a value for each sequence beyond its end."""
    found = plain.copy()
    for b, length in enumerate(LENGTHS):
        found[b, length:] = beyond[b]
    return found


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("direction", [1, -1])
def test_of_a_recurrent_layer(direction: int, optimize: bool) -> None:
    """Caffe2 holds the state, Keras repeats the output, and TensorFlow gives zeros."""
    layer = {**GRU, "direction": direction}
    plain = output({"output": layer}, optimize=optimize)
    np.testing.assert_array_equal(plain[1:, 3:], 0.0)
    last, at_end = [row[length - 1] for row, length in zip(plain, LENGTHS, strict=True)], 0 if direction < 0 else -1
    of_states = [plain[0, at_end], 0.5, plain[2, 0 if direction < 0 else 2]]
    for how, beyond in {"zero": [0.0] * 3, "repeat": [last[0], 0.0, last[2]], "hold": of_states}.items():
        found = output({"output": {**layer, "beyond_the_end": how}}, optimize=optimize)
        np.testing.assert_allclose(found, expected(plain, beyond), rtol=1e-12)


@pytest.mark.parametrize("merge", ["concat", "sum", "none"])
def test_states_of_both_directions_are_merged(merge: str) -> None:
    layer = {**GRU, "direction": "both", "merge": merge, "unit": [{"class": "gru", "units": 3}, GRU["unit"]]}
    plain = output({"output": layer})
    states = {
        key: {"class": "get_last_hidden_state", "key": f"{key}/1/h", "from": "output", "is_output_layer": True}
        for key in ("forward", "backward")
    }
    net = compiled({"output": {**layer, "beyond_the_end": "hold"}, **states})
    found = net.run({"data": SOURCE}, {"data": LENGTHS}).layers
    parts = [found[name].value for name in ("forward", "backward")]
    held = parts[0] + parts[1] if merge == "sum" else np.concatenate(parts, -1)
    np.testing.assert_allclose(found["output"].value, expected(plain, list(held)), rtol=1e-12)


def test_the_last_frame_of_any_layer() -> None:
    """Labels and truth values, too; and a layer that reads the output sees no such frames."""
    layers: Net = {
        "output": {**GRU, "beyond_the_end": "hold"},
        "labels": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "data", "beyond_the_end": "repeat"},
        "truth": {"class": "compare", "kind": "less", "value": 2, "from": "labels", "beyond_the_end": "repeat"},
        "total": {"class": "reduce", "mode": "sum", "axis": "T", "from": "output"},
    }
    for layer in layers.values():
        layer["is_output_layer"] = True
    plain = output({"output": GRU})
    labels = SOURCE.argmax(-1)
    np.testing.assert_array_equal(output(layers, "labels"), expected(labels, [0, 0, labels[2, 2]]))
    np.testing.assert_array_equal(output(layers, "truth"), expected(labels < 2, [0, False, labels[2, 2] < 2]))
    np.testing.assert_allclose(output(layers, "total"), plain.sum(1), rtol=1e-9)


def test_hypotheses() -> None:
    """Each has an end of its own."""
    step = {
        "prob": {"class": "linear", "from": ["prev:embed", "base:context"], "n_out": 4, "activation": "softmax"},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0},
        "embed": {"class": "linear", "from": "output", "n_out": 2, "initial_output": 0},
        "end": {"class": "compare", "kind": "less_equal", "from": "output", "value": 1},
    }
    layers: Net = {
        "context": {"class": "reduce", "mode": "sum", "axis": "T", "from": "data"},
        "output": {"class": "rec", "from": [], "unit": step, "target": "classes", "max_seq_len": 6},
    }
    data = {**DATA, "classes": {"dim": 4, "sparse": True, "available_for_inference": False}}
    found = []
    for options in ({}, {"beyond_the_end": "repeat"}):
        own = {**layers, "output": {**layers["output"], **options}}
        net = rl.compile(own, data, "search", behavior_version=21)
        for name in net.params:
            net.params[name].assign(np.random.default_rng(2).normal(size=net.params[name].shape))
        found.append(net.run({"data": SOURCE}, {"data": LENGTHS}).layers["output"])
    plain, repeated = found
    (lengths,) = plain.seq_lens.values()
    assert lengths.min() < lengths.max()
    for at in np.ndindex(*lengths.shape):
        row, length = plain.value[at], lengths[at]
        np.testing.assert_array_equal(repeated.value[at][:length], row[:length])
        np.testing.assert_array_equal(repeated.value[at][length:], row[length - 1] if length else 0)


def test_the_engine_gets_it() -> None:
    config = {"network": {"output": {**GRU, "beyond_the_end": "hold"}}, "extern_data": DATA, "behavior_version": 21}
    runnable = NetworkCompiler(config)("forward", ["output"])

    @tf.function(autograph=False)
    def forward() -> tf.Tensor:
        feed = {"data": tf.constant(SOURCE, tf.float32)}
        return runnable.run_forward(feed, {"data": tf.constant(LENGTHS)})["output"].array

    np.testing.assert_allclose(forward()[1], 0.5)


REFUSED: dict[str, tuple[Net, str]] = {
    "no frames": ({"class": "reduce", "mode": "sum", "axis": "T", "from": "data"}, "no sequences that could end"),
    "fixed": ({"class": "range", "limit": 3}, "no sequences that could end"),
    "no state": ({"class": "linear", "n_out": 2, "from": "data"}, "no state that could be held"),
    "another output": (
        {**GRU, "unit": {"class": "residual", "cell": {"class": "gru", "units": 3}}},
        "no state that could be held",
    ),
    "normalised": ({**GRU, "batch_norm": True}, "no state that could be held"),
    "in a loop": (
        {"class": "rec", "from": "data", "unit": {"output": {"class": "copy", "from": "data:source"}}},
        "only where an output leaves the network",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    layer, message = REFUSED[name]
    if name == "in a loop":
        layer["unit"]["output"]["beyond_the_end"] = "zero"
    else:
        layer = {**layer, "beyond_the_end": "hold"}
    config = {"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match=rf"beyond_the_end: .*{message}"):
        rl.check(config, "eval")
