"""Layers that are recomputed so that no more is kept than a limit lets."""

from typing import Any

import numpy as np
import pytest

from returnn_lite.compiler import Network, build, optimized
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.ir import Recompute, walk
from returnn_lite.memory.kept import TrainStep, train_step
from returnn_lite.memory.sizes import batch_sizes

B, T, N = 4, 10, 6
UNIT = {
    "wide": {"class": "linear", "n_out": 50, "activation": "tanh", "from": ["data:source", "prev:output"]},
    "output": {"class": "linear", "n_out": N, "activation": "tanh", "from": "wide"},
}
LAYERS = {
    "cheap": {"class": "activation", "activation": "tanh", "from": "lstm"},
    "lstm": {"class": "rec", "unit": "nativelstm2", "from": "data", "n_out": N},
    "dear": {"class": "linear", "n_out": 20, "activation": "tanh", "from": "cheap"},
    "output": {"class": "copy", "from": "dear", "loss": "as_is"},
}
BATCHES = {"batch_size": B * T, "max_seq_length": T}


def step_of(recompute: object, batches: dict[str, Any] = BATCHES) -> tuple[TrainStep, set[str]]:
    """What is predicted of the largest batch, and the layers that are recomputed."""
    config = {"network": LAYERS, "extern_data": {"data": {"dim": N}}, "behavior_version": 21, **batches}
    made = build({**config, "recompute": recompute}, "train")
    graph = optimized(made, keep=made.outputs.with_layers(()))
    groups = {node.origin.layer for node in walk(graph.nodes) if isinstance(node.op, Recompute)}
    return train_step(graph, batch_sizes(graph, B, {"data": T})), groups


def auto(count: int) -> dict[str, Any]:
    return {"auto": {"memory": f"{count}B"}}


def test_what_fits_is_not_recomputed() -> None:
    plain, _ = step_of("none")
    assert step_of(auto(plain.bytes)) == (plain, set())


def test_the_limit_is_kept_with_less_computed_again_than_all() -> None:
    plain, _ = step_of("none")
    everything, _ = step_of("all")
    assert everything.bytes < plain.bytes
    found, groups = step_of(auto(plain.bytes - 1))
    assert found.bytes < plain.bytes
    assert found.again < everything.again
    assert groups
    assert step_of(auto(everything.bytes))[0].bytes == everything.bytes


def test_what_costs_most_for_the_same_bytes_is_kept() -> None:
    linear = {"class": "linear", "n_out": 10, "activation": "tanh", "loss": "as_is"}
    layers = {name: {**linear, "from": f"data:{name}"} for name in ("few", "many")}
    data = {name: {"shape": (size,), "time_dim_axis": None} for name, size in (("few", 3), ("many", 30))}
    config = {"network": layers, "extern_data": data, "behavior_version": 21, "max_seqs": B, "max_seq_length": 1}

    def recomputed(recompute: object) -> tuple[int, set[str]]:
        made = build({**config, "recompute": recompute}, "train")
        graph = optimized(made, keep=made.outputs.with_layers(()))
        groups = {node.origin.layer for node in walk(graph.nodes) if isinstance(node.op, Recompute)}
        return train_step(graph, batch_sizes(graph, B, {})).bytes, groups

    kept, _ = recomputed(["few"])
    assert kept < recomputed("none")[0]
    found, groups = recomputed(auto(kept))
    assert found <= kept and "few" in groups and "many" not in groups


def test_a_limit_that_nothing_fits_into_is_a_mistake_of_the_option() -> None:
    everything, _ = step_of("all")
    with pytest.raises(ConfigError) as raised:
        step_of(auto(everything.bytes - 1))
    (found,) = raised.value.diagnostics
    assert found.path == ("recompute",)
    assert "with all of these layers recomputed a batch still keeps" in found.message


@pytest.mark.parametrize("batches", [{}, {"batch_size": 100}, {"max_seq_length": 9}], ids=str)
def test_the_config_must_say_how_large_a_batch_is(batches: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        step_of(auto(10**9), batches)
    (found,) = raised.value.diagnostics
    assert "does not say how large that is" in found.message
    assert found.hint.startswith("Set max_seq_length")


def test_a_loop_has_a_limit_for_the_layers_inside() -> None:
    network = {
        "rec": {"class": "rec", "from": "data", "unit": UNIT, "recompute": auto(12_000)},
        "output": {"class": "copy", "from": "rec", "loss": "as_is"},
    }
    config = {"network": network, "extern_data": {"data": {"dim": N}}, "behavior_version": 21, **BATCHES}
    made = build(config, "train")
    graph = optimized(made, keep=made.outputs.with_layers(()))
    assert {node.origin.layer for node in walk(graph.nodes) if isinstance(node.op, Recompute)} == {"rec"}
    step = train_step(graph, batch_sizes(graph, B, {"data": T}))
    assert step.bytes <= 12_000
    products = (2 * N * 50 + 50 * N) * B * T
    assert 0 < step.again < products, "one of the layers inside fits as it is"
    assert not build(config, "eval").memory_limits


@pytest.mark.tensorflow
@pytest.mark.one_in(8)
def test_gradients_are_the_same() -> None:
    config = {"network": LAYERS, "extern_data": {"data": {"dim": N}}, "behavior_version": 21, **BATCHES}
    limit = auto(step_of("all")[0].bytes)
    plain, chosen = (Network({**config, "recompute": r}, "train", True, "float32", {}, 1) for r in ("none", limit))
    for name, variable in plain.params.items():
        chosen.params[name].assign(variable)
    data = {"data": np.random.default_rng(1).normal(size=[B, T, N])}
    lengths = {"data": [T] * B}
    expected = plain.gradients(data, lengths)
    for name, gradient in chosen.gradients(data, lengths).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_limit_under_a_mask_counts_and_that_of_a_layer_that_nothing_needs_does_not() -> None:
    rec: dict[str, Any] = {"class": "rec", "from": "data", "unit": "nativelstm2", "n_out": N, "recompute": auto(1)}
    network = {
        "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data"},
        "mask": {"class": "compare", "kind": "greater", "value": 0, "from": "sum"},
        "masked": {"class": "masked_computation", "mask": "mask", "from": "data", "unit": rec},
        "output": {"class": "copy", "from": "masked", "loss": "as_is"},
    }
    config = {"network": network, "extern_data": {"data": {"dim": N}}, "behavior_version": 21, **BATCHES}
    with pytest.raises(ConfigError) as raised:
        optimized(build(config, "train"))
    (found,) = raised.value.diagnostics
    assert found.path == ("network", "masked", "unit", "recompute")
    unneeded = {**network, "masked": {"class": "copy", "from": "data"}, "other": rec}
    optimized(build({**config, "network": unneeded}, "train"))
