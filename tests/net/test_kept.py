"""keep_over_epoch: what one batch leaves for the sequences in the same places of the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.engine.network import NetworkCompiler
from returnn_lite.ir.batches import BatchError

BOTH = pytest.mark.parametrize("optimize", [True, False])
X = np.array([[1, 2, 3], [4, 5, 0]], "float32")[..., None]
LENGTHS = [3, 2]


def compiled(network: dict[str, Any], optimize: bool, mode: Any = "forward") -> rl.Network:
    return rl.compile(network, extern_data={"data": {"dim": 1}}, mode=mode, behavior_version=21, optimize=optimize)


def frames(net: rl.Network, x: np.ndarray = X, lengths: list[int] = LENGTHS) -> list[list[float]]:
    out = net.run({"data": x}, {"data": lengths}).layers["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0)
    return [row[:length].ravel().tolist() for row, length in zip(value, lengths, strict=True)]


def total(initial: str) -> dict[str, Any]:
    """A sum of all frames so far, by hand."""
    sum_ = {"class": "combine", "kind": "add", "from": ["prev:output", "data:source"], "initial_output": initial}
    return {"output": {"class": "rec", "from": "data", "unit": {"output": sum_}}}


@BOTH
@pytest.mark.parametrize("initial", ["keep_over_epoch", "keep_over_epoch_no_init"])
def test_an_output_is_kept(initial: str, optimize: bool) -> None:
    net = compiled(total(initial), optimize)
    assert not net.params
    assert frames(net) == [[1, 3, 6], [4, 9]]
    assert frames(net) == [[7, 9, 12], [13, 18]]
    # Sequences without frames leave what there was.
    assert frames(net, X, [1, 0]) == [[13], []]
    assert frames(net) == [[14, 16, 19], [22, 27]]


@BOTH
def test_an_output_is_kept_that_leaves_its_loop(optimize: bool) -> None:
    double = {"class": "eval", "eval": "source(0) * 2", "from": "data:source", "initial_output": "keep_over_epoch"}
    unit = {"double": double, "output": {"class": "copy", "from": "prev:double"}}
    net = compiled({"output": {"class": "rec", "from": "data", "unit": unit}}, optimize)
    assert frames(net) == [[0, 2, 4], [0, 8]]
    assert frames(net) == [[6, 2, 4], [10, 8]]


LAYERS = {
    "whole": lambda unit: {"output": {"class": "rec", "unit": unit, "n_out": 2, "from": "data", "initial_state": "I"}},
    "step": lambda unit: {
        "output": {
            "class": "rec",
            "from": "data",
            "unit": {
                "output": {"class": "rnn_cell", "unit": unit, "n_out": 2, "from": "data:source", "initial_state": "I"}
            },
        }
    },
    "cycle": lambda unit: {
        "output": {
            "class": "rec",
            "from": "data",
            "unit": {
                "output": {
                    "class": "rnn_cell",
                    "unit": unit,
                    "n_out": 2,
                    "from": ["data:source", "prev:output"],
                    "initial_state": "I",
                }
            },
        }
    },
    "masked": lambda unit: {
        "output": {
            "class": "rec",
            "from": "data",
            "unit": {
                "x": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"},
                "m": {"class": "compare", "kind": "not_equal", "value": 2, "from": "x"},
                "output": {
                    "class": "masked_computation",
                    "mask": "m",
                    "from": "data:source",
                    "unit": {"class": "rec", "unit": unit, "n_out": 2, "from": "data", "initial_state": "I"},
                },
            },
        }
    },
}


def with_state(network: Any, state: str) -> Any:
    if isinstance(network, dict):
        return {key: with_state(value, state) for key, value in network.items()}
    return state if network == "I" else network


@BOTH
@pytest.mark.parametrize("unit", ["lstm", "gru"])
@pytest.mark.parametrize("place", LAYERS)
def test_two_batches_with_a_kept_state_are_one_long_batch(place: str, unit: str, optimize: bool) -> None:
    """Frames 1 2 3 | 4 5 and then again are the two halves of sequences twice as long."""
    network = LAYERS[place](unit)
    net, once = (compiled(with_state(network, state), optimize) for state in ("keep_over_epoch", "zeros"))
    assert net.params.keys() == once.params.keys()
    for name, variable in once.params.items():
        net.params[name].assign(variable)
    halves = [np.array(frames(net)[0]), np.array(frames(net)[0])]
    long = np.concatenate([X[:1], X[:1]], axis=1)
    np.testing.assert_allclose(np.concatenate(halves), frames(once, long, [6])[0], rtol=1e-5, atol=1e-6)


@BOTH
@pytest.mark.parametrize(
    ("initial", "second"), [("keep_over_epoch", [1, 3, 6]), ("keep_over_epoch_no_init", [7, 9, 12])]
)
def test_what_is_kept_when_an_epoch_begins(initial: str, second: list[float], optimize: bool) -> None:
    """In all modes: here task eval follows task forward."""
    config = {"extern_data": {"data": {"dim": 1}}, "network": total(initial), "behavior_version": 21}
    config["network"]["output"] |= {"loss": "as_is"}
    compile_mode = NetworkCompiler(config, optimize=optimize)
    forward, evaluation = compile_mode("forward", ["output"]), compile_mode("eval")
    data, lengths = {"data": tf.constant(X)}, {"data": tf.constant(LENGTHS)}

    run_forward = tf.function(lambda: forward.run_forward(data, lengths)["output"].array, autograph=False)
    run_eval = tf.function(lambda: evaluation.run_eval(data, lengths)["output"].sum, autograph=False)

    def row() -> list[float]:
        return run_forward().numpy()[0, :, 0].tolist()

    forward.begin_epoch()
    assert row() == [1, 3, 6]
    evaluation.begin_epoch()
    offset = 0 if second[0] == 1 else 6 * 3 + 9 * 2
    assert float(run_eval()) == 1 + 3 + 6 + 4 + 9 + offset
    forward.begin_epoch()
    assert row() == [x if offset == 0 else x + 6 for x in second]


@BOTH
def test_batches_must_have_equally_many_sequences(optimize: bool) -> None:
    net = compiled(total("keep_over_epoch"), optimize)
    frames(net)
    with pytest.raises(BatchError, match="Batches must have equally many"):
        frames(net, X[:1], [3])


def test_what_can_not_be_kept() -> None:
    with pytest.raises(rl.ConfigError, match="not for where 'output' starts itself"):
        compiled({"output": {"class": "cumsum", "from": "data", "initial_output": "keep_over_epoch"}}, True)
    inner = {"class": "rec", "from": "base:data", "unit": LAYERS["step"]("gru")["output"]["unit"], "axis": "T"}
    unit = {"inner": inner, "output": {"class": "rec_last_output", "rec_layer": "inner", "sub_layer_name": "output"}}
    with pytest.raises(rl.ConfigError, match="in a loop inside of another, there is no last step of a batch"):
        compiled(with_state({"output": {"class": "rec", "from": "data", "unit": unit}}, "keep_over_epoch"), True)


def searching(state: str, extern_data: dict[str, Any], optimize: bool) -> rl.Network:
    """A search over three labels with a GRU, and the sum of the labels so far."""
    unit = {
        "embed": {"class": "linear", "activation": None, "n_out": 2, "from": "prev:output"},
        "s": {
            "class": "rnn_cell",
            "unit": "gru",
            "n_out": 2,
            "from": ["embed", "data:source"],
            "initial_state": state,
            "is_output_layer": True,
        },
        "prob": {"class": "softmax", "n_out": 3, "from": "s"},
        "output": {"class": "choice", "target": "labels", "beam_size": 4, "from": "prob", "initial_output": 0},
        "label": {"class": "cast", "dtype": "float32", "from": "output"},
        "sum": {
            "class": "combine",
            "kind": "add",
            "from": ["prev:sum", "label"],
            "initial_output": "keep_over_epoch",
            "is_output_layer": True,
        },
    }
    network = {"output": {"class": "rec", "from": "data", "target": "labels", "unit": unit}}
    known = {"data": {"dim": 1}, "labels": {"dim": 3, "sparse": True}, **extern_data}
    net = rl.compile(network, extern_data=known, mode="search", behavior_version=21, optimize=optimize)
    generator = np.random.default_rng(1)
    for name in sorted(net.params):
        net.params[name].assign(2 * generator.standard_normal(net.params[name].shape))
    return net


@BOTH
def test_search_keeps_what_its_best_hypothesis_ended_with(optimize: bool) -> None:
    """The state of a unit, and an output: at the last frame of each sequence."""

    def run(net: rl.Network, h0: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        feed = {"data": X} if h0 is None else {"data": X, "h0": h0}
        layers = net.run(feed, {"data": LENGTHS}).layers
        values = []
        for name in ("output", "output/s", "output/sum"):
            batch, beam = layers[name].dims.index("B"), next(i for i, d in enumerate(layers[name].dims) if "beam" in d)
            values.append(np.moveaxis(np.asarray(layers[name].value), (batch, beam), (0, 1)))
        return tuple(values)

    kept = searching("keep_over_epoch", {}, optimize)
    labels, states, sums = run(kept)
    assert any((labels[b, 0, :n] != labels[b, 1, :n]).any() for b, n in enumerate(LENGTHS))
    best = [labels[b, 0, :n].sum() for b, n in enumerate(LENGTHS)]
    ends = np.array([states[b, 0, n - 1] for b, n in enumerate(LENGTHS)])
    np.testing.assert_allclose([sums[b, 0, n - 1].item() for b, n in enumerate(LENGTHS)], best)
    labels, states, sums = run(kept)
    np.testing.assert_allclose(sums[:, :, 0].reshape(2, 4) - labels[:, :, 0], np.repeat(best, 4).reshape(2, 4))
    given = searching("base:data:h0", {"h0": {"dim": 2, "shape": (2,)}}, optimize)
    again, expected, _ = run(given, ends)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_array_equal(labels[b, :, :n], again[b, :, :n])
        np.testing.assert_allclose(states[b, :, :n], expected[b, :, :n], rtol=1e-5)


def attention(initial: str | None, **options: Any) -> dict[str, Any]:
    """Attention of width 4 on two features of each frame."""
    layer = {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 4, "initial_state": initial}
    unit = {"x": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "data"}}
    return {**unit, "output": {**layer, "from": "x", **options}}


def attended(net: rl.Network, x: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    out = net.run({"data": x}, {"data": lengths}).layers["output"]
    return [row[:length] for row, length in zip(out.value, lengths, strict=True)]


@BOTH
@pytest.mark.parametrize("left_only", [True, False])
@pytest.mark.parametrize("restrict", [True, False])
def test_attention_to_the_frames_of_the_batches_before(left_only: bool, restrict: bool, optimize: bool) -> None:
    """Three batches: the frames of the third see what those at the end of longer sequences see."""
    more = {"attention_left_only": left_only}
    net = compiled(attention("keep_over_epoch", restrict_state_to_last_seq=restrict, **more), optimize)
    whole = compiled(attention(None, **more), optimize)
    for name, variable in whole.params.items():
        variable.assign(np.random.default_rng(len(name)).standard_normal(variable.shape))
        net.params[name].assign(variable)
    assert net.params.keys() == whole.params.keys()
    generator = np.random.default_rng(0)
    batches = [generator.standard_normal((2, 4, 1)).astype("float32") for _ in range(3)]
    lengths = [[4, 2], [1, 4], [3, 3]]
    for i, (x, now) in enumerate(zip(batches, lengths, strict=True)):
        found = attended(net, x, now)
        seen = range(max(0, i - 1) if restrict else 0, i + 1)
        for b in range(2):
            frames_ = np.concatenate([batches[j][b, : lengths[j][b]] for j in seen])[None]
            (expected,) = attended(whole, frames_, [frames_.shape[1]])
            np.testing.assert_allclose(found[b], expected[-now[b] :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_state": None, "restrict_state_to_last_seq": True}, "nothing is kept"),
        ({"key_shift": "p"}, "there are no relative positions of what is kept"),
        ({"initial_state": "kept"}, "initial_state"),
    ],
)
def test_attention_that_can_not_be_kept(options: dict[str, Any], message: str) -> None:
    network = attention("keep_over_epoch", attention_left_only=True)
    network["output"] |= options
    network["p"] = {"class": "relative_positional_encoding", "n_out": 2, "from": "x"}
    with pytest.raises(rl.ConfigError, match=message):
        compiled(network, True)


def test_attention_in_a_loop_keeps_nothing() -> None:
    unit = attention("keep_over_epoch", attention_left_only=True)
    unit["x"]["from"] = "data:source"
    with pytest.raises(rl.ConfigError, match="in a loop there is no keep_over_epoch of keys and values"):
        compiled({"output": {"class": "rec", "from": "data", "unit": unit}}, True)


def test_attention_to_what_is_kept_trains() -> None:
    """What is kept is a constant of the batch: the second one's gradients are finite, and the same either way."""
    network = attention("keep_over_epoch", attention_left_only=True)
    network["output"]["loss"] = "as_is"
    found = []
    for optimize in (True, False):
        net = compiled(network, optimize, "train")
        for name, variable in net.params.items():
            variable.assign(np.random.default_rng(len(name)).standard_normal(variable.shape))
        first = net.gradients({"data": X}, seq_lens={"data": LENGTHS})
        net.run({"data": X}, {"data": LENGTHS})
        found.append(net.gradients({"data": X}, seq_lens={"data": LENGTHS}))
        assert any(np.abs(first[name] - found[-1][name]).max() > 1e-3 for name in first)
    for name, value in found[0].items():
        assert np.isfinite(value).all() and np.abs(value).max() > 0
        np.testing.assert_allclose(value, found[1][name], rtol=1e-4, atol=1e-5)
