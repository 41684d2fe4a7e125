"""What is kept for the backward pass, counted by hand: each array once, only for what trains."""

from typing import Any

import pytest

from returnn_lite.compiler import build, optimized
from returnn_lite.memory.kept import train_step
from returnn_lite.memory.sizes import batch_sizes

FLOAT, B, T, D, N = 4, 3, 5, 7, 2
STEP = FLOAT * B * N
LABELS = {"dim": N, "sparse": True, "same_dim_tags_as": {"t": "data"}}


def kept(network: dict[str, Any], labels: bool = False, **lengths: int) -> dict[str, int]:
    """The bytes of each layer, of a batch of B sequences of T frames."""
    extern = {"data": {"dim": D}, **({"classes": LABELS} if labels else {})}
    built = build({"network": network, "extern_data": extern, "behavior_version": 21, "target": "classes"}, "train")
    graph = optimized(built, keep=built.outputs.with_layers(()))
    found: dict[str, int] = {}
    for array in train_step(graph, batch_sizes(graph, B, {"data": T, **lengths})).arrays:
        found[array.layer] = found.get(array.layer, 0) + array.bytes
    return found


def with_loss(name: str, **options: Any) -> dict[str, Any]:
    return {name: options, "output": {"class": "copy", "from": name, "loss": "as_is"}}


def test_a_layer_keeps_the_source_and_its_activation() -> None:
    found = kept(with_loss("h", **{"class": "linear", "from": "data", "n_out": N, "activation": "tanh"}))
    assert found == {"data": FLOAT * B * T * D, "h": FLOAT * B * T * N}


def test_a_source_of_two_layers_counts_once() -> None:
    linear = {"class": "linear", "from": "data", "n_out": N, "activation": "sigmoid"}
    added = {"class": "combine", "kind": "add", "from": ["a", "b"], "loss": "as_is"}
    found = kept({"a": linear, "b": linear, "output": added})
    assert found == {"data": FLOAT * B * T * D, "a": FLOAT * B * T * N, "b": FLOAT * B * T * N}


def test_without_parameters_nothing_is_kept() -> None:
    assert kept(with_loss("h", **{"class": "activation", "activation": "tanh", "from": "data"})) == {}


def test_what_has_no_gradient_is_not_kept() -> None:
    linear = {"class": "linear", "from": "data", "n_out": N, "activation": "tanh"}
    stopped = {"class": "eval", "from": "h", "eval": "tf.stop_gradient(source(0))"}
    both = {"class": "combine", "kind": "mul", "from": ["stopped", "other"], "loss": "as_is"}
    found = kept({"h": linear, "stopped": stopped, "other": {**linear, "activation": None}, "output": both})
    assert found == {"data": FLOAT * B * T * D, "h": FLOAT * B * T * N}  # what `other` is multiplied with


def test_a_product_of_two_layers_keeps_both() -> None:
    linear = {"class": "linear", "from": "data", "n_out": N, "activation": None}
    both = {"class": "combine", "kind": "mul", "from": ["a", "b"], "loss": "as_is"}
    found = kept({"a": linear, "b": linear, "output": both})
    assert found == {"data": FLOAT * B * T * D, "a": FLOAT * B * T * N, "b": FLOAT * B * T * N}


def test_cross_entropy_keeps_its_gradient_and_the_labels() -> None:
    net = {"output": {"class": "softmax", "from": "data", "loss": "ce", "target": "classes"}}
    assert kept(net, labels=True) == {"data": FLOAT * B * T * D, "output": FLOAT * B * T * N}


@pytest.mark.parametrize(
    ("unit", "arrays", "weights"),
    [("nativelstm2", 7, 4), ("gru", 5, 3), ("rnn", 2, 1)],
    ids=["seven of an LSTM", "five of a GRU", "two of a simple RNN"],
)
def test_a_recurrence_keeps_what_its_backward_loop_reads(unit: str, arrays: int, weights: int) -> None:
    found = kept(with_loss("h", **{"class": "rec", "unit": unit, "from": "data", "n_out": N}))
    transposed = FLOAT * N * N * weights
    assert found == {"data": FLOAT * B * T * D, "h": arrays * STEP * T + transposed}


def loop(**layers: Any) -> dict[str, Any]:
    return with_loss("rec", **{"class": "rec", "from": "data", "unit": layers})


def test_a_loop_keeps_what_its_body_makes_at_each_step() -> None:
    body = {"class": "linear", "from": ["data:source", "prev:output"], "n_out": N, "activation": "tanh"}
    found = kept(loop(output=body))
    # The input product, read at each step; the result is the next state and what the loop leaves.
    assert found.pop("data") == FLOAT * B * T * D
    assert found == {"rec/output": 2 * STEP * T}


def test_what_a_loop_reads_whole_is_kept_once() -> None:
    net = loop(
        query={"class": "linear", "from": "prev:output", "n_out": N, "activation": None},
        both={"class": "combine", "kind": "mul", "from": ["base:context", "query"]},
        output={"class": "activation", "from": "both", "activation": "tanh"},
    )
    net["context"] = {"class": "reduce", "mode": "mean", "axis": "T", "from": "encoder"}
    net["encoder"] = {"class": "linear", "from": "data", "n_out": N, "activation": None}
    found = kept(net)
    assert found["context"] == STEP
    assert (found["rec/query"], found["rec/output"]) == (STEP * T, STEP * T)


def test_steps_of_loops_in_loops_are_multiplied() -> None:
    inner = {
        "class": "rec",
        "from": "base:data",
        "unit": {"output": {"class": "linear", "from": ["data:source", "prev:output", "base:prev:output"], "n_out": N}},
    }
    net = loop(
        inner=inner,
        output={"class": "reduce", "mode": "mean", "axis": "stag:data:time", "from": "inner"},
    )
    del net["rec"]["from"]
    net["rec"] |= {"from": [], "target": "classes"}
    built = build(
        {
            "network": net,
            "extern_data": {"data": {"dim": D}, "classes": {"dim": N, "sparse": True}},
            "behavior_version": 21,
            "target": "classes",
        },
        "train",
    )
    graph = optimized(built, keep=built.outputs.with_layers(()))
    arrays = train_step(graph, batch_sizes(graph, B, {"data": T, "classes": 4})).arrays
    steps = {array.steps for array in arrays if array.layer == "rec/inner/output"}
    assert 4 * T in steps
