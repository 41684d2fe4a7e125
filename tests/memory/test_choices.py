"""What is kept of layers that are computed again, and what it costs."""

from typing import Any

from returnn_lite.compiler import build, optimized
from returnn_lite.memory.choices import Choice, all_choices, each_alone, with_choices
from returnn_lite.memory.kept import TrainStep, train_step
from returnn_lite.memory.sizes import batch_sizes
from returnn_lite.net.network import BuiltNetwork

FLOAT, B, T, D, N = 4, 3, 5, 7, 2
FRAMES = FLOAT * B * T


def built(network: dict[str, Any], **options: Any) -> BuiltNetwork:
    config = {"network": network, "extern_data": {"data": {"dim": D}}, "behavior_version": 21, **options}
    return build(config, "train")


def step_of(network: dict[str, Any], *choices: Choice, **options: Any) -> TrainStep:
    made = built(network, **options)
    graph = optimized(made, keep=made.outputs.with_layers(()))
    return train_step(with_choices(graph, choices) if choices else graph, batch_sizes(graph, B, {"data": T}))


LINEAR = {"class": "linear", "n_out": N, "activation": "tanh"}
DEEP = {
    "a": {**LINEAR, "from": "data"},
    "b": {**LINEAR, "from": "a"},
    "output": {"class": "copy", "from": "b", "loss": "as_is"},
}
LSTM = {
    "h": {"class": "rec", "unit": "nativelstm2", "from": "data", "n_out": N},
    "output": {"class": "copy", "from": "h", "loss": "as_is"},
}


def test_products_of_both_passes_are_counted() -> None:
    found = step_of(DEEP)
    first, second = B * T * D * N, B * T * N * N
    assert found.products == 2 * first + 3 * second  # the data gets no gradient
    assert found.again == 0
    assert found.bytes == FRAMES * (D + 2 * N)


def test_a_layer_that_is_recomputed_keeps_what_it_reads() -> None:
    found = step_of(DEEP, Choice("b"))
    assert found.bytes == FRAMES * (D + N)
    assert found.again == B * T * N * N
    found = step_of(DEEP, Choice("a"))
    assert found.bytes == FRAMES * 2 * N  # the second layer reads a, and the copy of the data is made again
    assert found.again == B * T * D * N


def test_a_choice_is_what_the_option_does() -> None:
    for network in (DEEP, LSTM):
        chosen = [Choice(name) for name in network]
        assert step_of(network, *chosen) == step_of(network, recompute="all")


def test_a_recurrence_that_is_recomputed_keeps_its_states() -> None:
    weights = FLOAT * N * 4 * N
    before, after = step_of(LSTM), step_of(LSTM, Choice("h"))
    assert before.bytes == FRAMES * (D + 7 * N) + weights
    assert after.bytes == FRAMES * 2 * N
    assert after.again == B * T * (D + N) * 4 * N
    assert before.products == B * T * 4 * N * (2 * D + 3 * N)


def test_in_a_loop_layers_that_read_each_other_are_recomputed_together() -> None:
    size = 4 * N
    unit = {
        "wide": {**LINEAR, "n_out": size, "from": ["data:source", "prev:output"]},
        "output": {**LINEAR, "from": "wide"},
    }
    network = {"rec": {"class": "rec", "from": "data", "unit": unit}, "output": {**DEEP["output"], "from": "rec"}}
    before = step_of(network)
    after = step_of(network, Choice("rec/wide", "rec"))
    assert before.bytes - after.bytes == FRAMES * D  # the next layer reads it
    both = step_of(network, Choice("rec/wide", "rec"), Choice("rec/output", "rec"))
    assert before.bytes - both.bytes == FRAMES * (D + size)


def test_choices_are_what_options_can_name() -> None:
    unit = {"x": {**LINEAR, "from": ["data:source", "prev:output"]}, "output": {**LINEAR, "from": "x"}}
    network = {"rec": {"class": "rec", "from": "data", "unit": unit}, "output": {**DEEP["output"], "from": "rec"}}
    found = all_choices(built(network).layers)
    assert {(choice.around, choice.name) for choice in found} == {
        ("", "rec"), ("", "output"), ("rec", "x"), ("rec", "output"),
    }  # fmt: skip


def test_each_alone_has_the_one_that_saves_most_first() -> None:
    network = {**LSTM, "small": {"class": "rec", "unit": "nativelstm2", "from": "data", "n_out": 1, "loss": "as_is"}}
    made = built(network)
    graph = optimized(made, keep=made.outputs.with_layers(()))
    found = each_alone(graph, batch_sizes(graph, B, {"data": T}), all_choices(made.layers))
    assert [one.choices[0].layer for one in found][:2] == ["h", "small"]
