"""A user's Keras cells, and Keras' own as objects: everywhere where a unit may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.verification.comparison import compare
from tests.cells.foreign import Nested, Noisy, Plain, nested, plain
from tests.cells.probing import LENGTHS, SIZE, SOURCE, compiled, network, output_of, weights_of

N = 3
DATA = {"data": {"dim": SIZE}}
WAYS = [(way, optimize) for way in ("rec", "rnn_cell") for optimize in (True, False)]


def config(layers: dict[str, Any], data: Any = None) -> dict[str, Any]:
    return {"network": layers, "extern_data": data or DATA, "behavior_version": 21}


def differences(layers: dict[str, Any], mode: Any, data: Any = None) -> dict[str, Any]:
    return {name: one for name, one in compare(config(layers, data), mode, 3).items() if one.is_one}


@pytest.mark.parametrize(("way", "optimize"), WAYS)
@pytest.mark.parametrize(
    ("unit", "formula"), [(lambda: Plain(N), plain), (lambda: Nested(N, SIZE), nested)], ids=["plain", "nested"]
)
def test_formula(unit: Callable[[], Any], formula: Any, way: str, optimize: bool) -> None:
    net = compiled(unit(), way, optimize)
    output, weights = output_of(net), weights_of(net)
    for sequence, (source, length) in enumerate(zip(SOURCE, LENGTHS, strict=True)):
        if length:
            np.testing.assert_allclose(output[sequence, :length], formula(weights, source[:length]), 1e-5, 1e-5)


KERAS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: keras.layers.LSTMCell(N),
    "gru": lambda: keras.layers.GRUCell(N),
    "simple rnn": lambda: keras.layers.SimpleRNNCell(N),
    "stack": lambda: keras.layers.StackedRNNCells([keras.layers.LSTMCell(2), keras.layers.GRUCell(N)]),
    "own": lambda: Plain(N),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_runs_its_cells_to_the_same_numbers(name: str) -> None:
    """Outputs, and gradients of the sum of their squares at real frames."""
    unit = KERAS[name]()
    layers = network(unit) | {"loss": {"class": "eval", "from": "output", "eval": "source(0) ** 2", "loss": "as_is"}}
    net = rl.compile(layers, DATA, "train", behavior_version=21)
    feed, lengths = {"data": SOURCE.astype("float32")}, {"data": list(LENGTHS)}
    other = KERAS[name]()
    rnn = keras.layers.RNN(other, return_sequences=True)
    rnn.build((None, None, SIZE))
    for weight, (_, value) in zip(other.weights, net.params.items(), strict=True):
        weight.assign(value)
    real = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    with tf.GradientTape() as tape:
        outputs = rnn(SOURCE.astype("float32"), mask=tf.constant(real))
        loss = tf.reduce_sum(tf.where(real[..., None], outputs**2, 0.0))
    expected = tape.gradient(loss, [weight.value for weight in other.weights])
    found = net.run(feed, lengths).layers["output"]
    output = np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)
    np.testing.assert_allclose(output[real], outputs.numpy()[real], 1e-5, 1e-6)
    gradients = net.gradients(feed, lengths)
    scale = loss.numpy() / net.run(feed, lengths).objective
    assert len(gradients) == len(expected)
    for own, wanted in zip(gradients.values(), expected, strict=True):
        np.testing.assert_allclose(np.asarray(own) * scale, wanted.numpy(), 1e-4, 1e-5)


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_both_directions_are_those_of_keras(merge: str) -> None:
    net = compiled(keras.layers.LSTMCell(N), direction="both", merge=merge)
    wrapped = keras.layers.RNN(keras.layers.LSTMCell(N), return_sequences=True)
    both = keras.layers.Bidirectional(wrapped, merge_mode=merge)
    both.build((None, None, SIZE))
    for way, rnn in (("forward", both.forward_layer), ("backward", both.backward_layer)):
        for weight in rnn.cell.weights:
            weight.assign(weights_of(net)[f"{way}/{weight.name}"])
    real = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    expected = both(SOURCE.astype("float32"), mask=tf.constant(real)).numpy()
    np.testing.assert_allclose(output_of(net)[real], expected[real], 1e-5, 1e-6)


def test_stateful_goes_on_where_the_batch_before_ended() -> None:
    net, whole = (compiled(keras.layers.GRUCell(N), **options) for options in ({"stateful": True}, {}))
    parts = [output_of(net, SOURCE[:1, begin:end], (end - begin,)) for begin, end in ((0, 3), (3, 5))]
    np.testing.assert_allclose(np.concatenate(parts, 1), output_of(whole, SOURCE[:1], (5,)), 1e-5, 1e-6)


def test_states_have_the_names_of_their_places() -> None:
    unit = {"class": Nested, "units": N, "features": SIZE}
    layers = {"output": {"class": "rec", "from": "data", "unit": unit, "initial_state": {"0": 1.0, "1/sum": "first"}},
              "first": {"class": "reduce", "mode": "max", "axis": "T", "from": "data"}}  # fmt: skip
    keys = {"0": "count", "1/sum": "sum", "1/last": "last"}
    layers |= {
        name: {"class": "get_last_hidden_state", "from": "output", "key": key, "is_output_layer": True}
        for key, name in keys.items()
    }
    net = rl.compile(layers, DATA, "eval", behavior_version=21)
    found = net.run({"data": SOURCE[:1].astype("float32")}, {"data": [5]}).layers
    np.testing.assert_allclose(found["count"].value, [[6.0]])
    np.testing.assert_allclose(found["sum"].value, SOURCE[:1].max(1) + SOURCE[:1].sum(1), 1e-5)
    np.testing.assert_allclose(found["last"].value, SOURCE[:1, -1], 1e-5)


@pytest.mark.one_in(12)
def test_optimised_is_plain_everywhere() -> None:
    """Backwards, in both directions, in stacks and wrappers, with places of its own, one step at a time."""
    layers = {
        "back": {"class": "rec", "from": "data", "unit": Plain(N), "direction": -1},
        "both": {"class": "rec", "from": "data", "unit": keras.layers.LSTMCell(N), "direction": "both"},
        "stack": {"class": "rec", "from": "data", "unit": [Plain(N), {"class": "standardlstm", "units": N},
                                                           {"class": Nested, "units": 2, "features": N}]},
        "wrapped": {"class": "rec", "from": "data", "unit": {"class": "residual", "cell": Plain(SIZE)}, "unroll": True},
        "step": {"class": "rec", "from": "data", "unit": {"output": {
            "class": "rnn_cell", "from": ["data:source", "prev:output"], "unit": keras.layers.GRUCell(2)}}},
        "state": {"class": "get_last_hidden_state", "from": "both", "key": "backward/1", "n_out": N},
        "output": {"class": "copy", "from": ["back", "both", "stack", "wrapped", "step"], "loss": "as_is"},
    }  # fmt: skip
    assert differences(layers, "train") == {}


@pytest.mark.parametrize("place", ["cell", "under a mask"])
def test_under_a_mask_only_its_frames_are_there(place: str) -> None:
    step = {"class": "rnn_cell", "from": "data", "unit": Plain(N)}
    body = {
        "output": {"class": "masked_computation", "mask": "chosen", "from": "data:source", "unit": step},
        "chosen": {"class": "eval", "from": "data:source", "eval": "tf.reduce_sum(source(0), axis=-1) > 0"},
    }
    layers = {"output": {"class": "rec", "from": "data", "unit": body}}
    if place == "cell":
        assert differences(layers, "eval") == {}
        return
    net = rl.compile(layers, DATA, "eval", behavior_version=21, dtype="float64")
    weights = {key.rpartition("/rec/")[2]: np.asarray(value.numpy()) for key, value in net.params.items()}
    found = output_of(net)
    for b, length in enumerate(LENGTHS):
        chosen = [t for t in range(length) if SOURCE[b, t].sum() > 0]
        if chosen:
            np.testing.assert_allclose(found[b, chosen], plain(weights, SOURCE[b, chosen]), 1e-5, 1e-5)


def decoder(unit: Any) -> dict[str, Any]:
    body = {
        "label": {"class": "linear", "activation": None, "from": "prev:output", "n_out": SIZE},
        "cell": {"class": "rnn_cell", "from": ["label", "data:source"], "unit": unit},
        "prob": {"class": "softmax", "from": "cell", "n_out": 5},
        "output": {"class": "choice", "from": "prob", "beam_size": 3, "target": "classes", "initial_output": 0},
    }
    return {"output": {"class": "rec", "from": "data", "unit": body, "target": "classes"}}


CLASSES = DATA | {"classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}}}


@pytest.mark.one_in(12)
@pytest.mark.parametrize("mode", ["search", "train"])
def test_search(mode: Any) -> None:
    assert differences(decoder([Plain(N), keras.layers.LSTMCell(N)]), mode, CLASSES) == {}


@pytest.mark.parametrize(
    ("cell", "ours"), [(keras.layers.LSTMCell, "keras.LSTM"), (keras.layers.GRUCell, "keras.GRU")], ids=["lstm", "gru"]
)
def test_search_finds_what_it_finds_with_our_cell(cell: Any, ours: str) -> None:
    nets = [
        rl.compile(decoder(unit), CLASSES, "search", behavior_version=21, dtype="float64")
        for unit in (cell(N), {"class": ours, "units": N})
    ]
    for name, parameter in nets[1].params.items():
        value = np.random.default_rng(len(name)).normal(size=parameter.shape)
        parameter.assign(value)
        nets[0].params[name].assign(value)
    feed, lengths = {"data": SOURCE}, {"data": list(LENGTHS)}
    theirs, own = (net.run(feed, lengths).layers["output"] for net in nets)
    np.testing.assert_array_equal(theirs.value, own.value)


def test_dropout_has_one_mask_for_all_steps_and_layers_inside_one_for_each() -> None:
    """As in keras.layers.RNN: of its own cells, what is dropped at one step is at all; and a sequence has its own."""
    frames = 40
    source, lengths = np.ones((2, frames, SIZE), "float32"), {"data": [frames, frames]}
    kept = keras.layers.SimpleRNNCell(SIZE, dropout=0.5, activation=None, kernel_initializer="identity",
                                      recurrent_initializer="zeros")  # fmt: skip
    for optimize in (True, False):
        net = rl.compile(network(kept), DATA, "train", behavior_version=21, optimize=optimize)
        found = net.run({"data": source}, lengths).layers["output"]
        y = np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)
        assert set(np.unique(y)) == {0.0, 2.0} and (y == y[:, :1]).all()
    net = rl.compile(network(Noisy(SIZE)), DATA, "train", behavior_version=21)
    h = net.run({"data": source}, lengths).layers["output"]
    steps = np.diff(np.moveaxis(np.asarray(h.value), h.dims.index("B"), 0), axis=1)
    assert set(np.unique(steps)) == {0.0, 2.0} and not (steps == steps[:, :1]).all()
    assert not (steps[0] == steps[1]).all()
    eval_net = rl.compile(network(Noisy(SIZE)), DATA, "eval", behavior_version=21)
    assert (np.asarray(eval_net.run({"data": source}, lengths).layers["output"].value).max()) == frames


@pytest.mark.one_in(12)
@pytest.mark.parametrize("unit", [Noisy(SIZE), keras.layers.SimpleRNNCell(SIZE, dropout=0.3)], ids=["new", "kept"])
def test_draws_are_those_of_the_steps_with_and_without_optimisation(unit: Any) -> None:
    """Also where the state is given at each step, so that no loop is needed."""
    copy = type(unit).from_config(unit.get_config())
    free = {"class": "rnn_cell", "from": "data:source", "unit": copy, "state": {"0": "data:source"}}
    layers = {
        "free": {"class": "rec", "from": "data", "unit": {"output": free}},
        "steps": {"class": "rec", "from": "data", "unit": unit},
        "output": {"class": "copy", "from": ["free", "steps"], "loss": "as_is"},
    }
    assert differences(layers, "train") == {}
