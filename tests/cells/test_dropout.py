"""Dropout around cells: with given masks against NumPy, and what is drawn without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from returnn_lite.compiler import Network, check
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.ir.verify import InternalError
from returnn_lite.verification.comparison import compare
from tests.cells.composition import outputs
from tests.cells.probing import LENGTHS, SIZE, SOURCE, WAYS, compiled, network, output_of, refusal, weights_of
from tests.commit import takes_part
from tools.cells.draws import given_masks

BATCH, LONGEST = len(LENGTHS), max(LENGTHS)
LSTM: dict[str, Any] = {"class": "standardlstm", "units": SIZE}
RNN: dict[str, Any] = {"class": "basicrnn", "units": SIZE}
RATES = {"input_dropout": 0.3, "output_dropout": 0.4, "state_dropout": 0.5}


def dropout(cell: Any = LSTM, **options: Any) -> dict[str, Any]:
    return {"class": "dropout", "cell": cell, **options}


OF_LSTM = ("input", "output", "state/cell/h")
STACK = ("input", "output", "state/cell/0/h", "state/cell/1/h")
DRAWN: dict[str, tuple[Any, tuple[str, ...]]] = {
    "all of an LSTM": (dropout(**RATES), OF_LSTM),
    "all of its states": (dropout(**RATES, dropped_states="all"), (*OF_LSTM, "state/cell/c")),
    "c only": (dropout(state_dropout=0.5, dropped_states=["c"]), ("state/cell/c",)),
    "input only": (dropout(input_dropout=0.5), ("input",)),
    "output only": (dropout(RNN, output_dropout=0.5), ("output",)),
    "a stack": (dropout([RNN, LSTM], **RATES), STACK),
    "in a stack": ([RNN, dropout(**RATES)], tuple(f"1/{name}" for name in OF_LSTM)),
    "around and inside": (
        dropout({"class": "residual", "cell": dropout(RNN, **RATES)}, **RATES),
        ("input", "output", "state/cell/cell/cell/h", *(f"cell/cell/{name}" for name in OF_LSTM)),
    ),
    "attention": (
        dropout({"class": "intraattention", "cell": LSTM, "attn_length": 2}, state_dropout=0.5),
        ("state/cell/cell/h", "state/cell/context"),
    ),
}
"""Units, and their draws."""


def per_step(unit: Any, drawn: tuple[str, ...], variational: bool) -> Any:
    """The unit with one mask for all steps, if it shall be."""
    if isinstance(unit, list):
        return [per_step(part, drawn, variational) for part in unit]
    inner = {key: per_step(unit[key], drawn, variational) for key in ("cell", "cells") if key in unit}
    return {**unit, **inner, **({"variational": True} if variational and unit["class"] == "dropout" else {})}


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("name", DRAWN)
def test_formula(name: str, variational: bool) -> None:
    unit, drawn = DRAWN[name]
    unit = per_step(unit, drawn, variational)
    if name == "attention":
        unit = {**unit, "dropped_states": ["cell/h", "context"]}
    shape = (BATCH, SIZE) if variational else (BATCH, LONGEST, SIZE)
    random = np.random.default_rng(3)
    masks = {key: (random.uniform(size=shape) > 0.4).astype(float) for key in drawn}
    ways = [way for way in WAYS if takes_part(f"{name} {variational} {way}", 4)]
    for way, optimize in ways or WAYS[:1]:
        net = compiled(unit, way, optimize, "train")
        with given_masks(masks):
            found = output_of(net)
        weights = weights_of(net)
        for b, length in enumerate(LENGTHS):
            if length:
                own = {key: mask[b] for key, mask in masks.items()}
                expected = outputs(unit, weights, SOURCE[b, :length], own)
                np.testing.assert_allclose(found[b, :length], expected, 1e-9, 1e-9, err_msg=f"{way} {optimize}")


def visible(net: Any) -> np.ndarray:
    """The output of a cell that gives 1 everywhere but where dropout is: its mask, divided [B, T, n]."""
    for name, parameter in net.params.items():
        parameter.assign(np.full(parameter.shape, 30.0 if "bias" in name else 0.0))
    return output_of(net, np.ones((BATCH, LONGEST, SIZE)), (LONGEST,) * BATCH)


def wide(**options: Any) -> Any:
    return {**dropout({"class": "basicrnn", "units": 200}, output_dropout=0.25), **options}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("way", ["rec", "rnn_cell"])
def test_draws(way: str, optimize: bool) -> None:
    def masks(**options: Any) -> np.ndarray:
        return visible(compiled(wide(**options), way, optimize, "train"))

    for options in ({}, {"variational": True}, {"variational": True, "shared_by_batch": True}):
        found = masks(**options)
        np.testing.assert_allclose(found[found != 0], 1 / 0.75, 1e-9)
        assert abs((found != 0).mean() - 0.75) < 0.08
        same_at_all_steps = (found == found[:, :1]).all()
        same_for_all_sequences = (found == found[:1]).all()
        assert same_at_all_steps == ("variational" in options)
        assert same_for_all_sequences == ("shared_by_batch" in options)


@pytest.mark.one_in(1)
def test_each_sequence_has_a_mask_where_nothing_else_differs() -> None:
    """What the cell reads has no batch dim while it is built: it is the output of the step before."""
    step = {"class": "rnn_cell", "from": "prev:output", "unit": dropout(RNN, input_dropout=0.5), "initial_output": 1.0}
    layers = {"output": {"class": "rec", "from": "data", "unit": {"output": step}}}
    graph = check({"network": layers, "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}, "train")
    assert graph.outputs["layer:output"].type.batch is not None


def test_nothing_is_dropped_outside_of_training() -> None:
    for mode in ("eval", "forward"):
        np.testing.assert_allclose(visible(compiled(wide(), mode=mode)), 1.0, 1e-9)


def test_the_first_state_is_whole() -> None:
    """The new state is dropped, not that before the first step; and the last state is that after dropout."""
    unit = dropout(RNN, state_dropout=0.5)
    layers = {
        **network(unit, initial_state=1.0),
        "last": {"class": "get_last_hidden_state", "from": "output", "is_output_layer": True},
    }
    config = {"network": layers, "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}
    net = Network(config, "train", True, "float64", {}, 1)
    for name, parameter in net.params.items():
        if "kernel" in name:
            parameter.assign(np.concatenate([np.zeros((SIZE, SIZE)), np.eye(SIZE)]))
    with given_masks({"state/cell/h": np.zeros((1, 1, SIZE))}):
        found = net.run({"data": np.zeros((1, 1, SIZE))}, {"data": [1]}).layers
    np.testing.assert_allclose(found["output"].value, np.tanh(1.0), 1e-9)
    np.testing.assert_array_equal(found["last"].value, 0.0)


@pytest.mark.parametrize("name", [name for name in DRAWN if takes_part(name, 8)])
def test_optimised_is_plain(name: str) -> None:
    unit, _ = DRAWN[name]
    step = {"class": "rnn_cell", "from": "data:source", "unit": unit}
    chosen = {"class": "eval", "from": "data:source", "eval": "tf.reduce_sum(source(0), axis=-1) > 0"}
    masked = {"class": "masked_computation", "mask": "chosen", "from": "data:source", "unit": {**step, "from": "data"}}
    layers = {
        "whole": {"class": "rec", "from": "data", "unit": unit},
        "variational": {"class": "rec", "from": "data", "unit": per_step(unit, (), True), "direction": -1},
        "steps": {"class": "rec", "from": "data", "unit": {"output": step}},
        "masked": {"class": "rec", "from": "data", "unit": {"chosen": chosen, "output": masked}},
        "output": {"class": "copy", "from": ["whole", "variational", "steps", "masked"], "loss": "as_is"},
    }
    config = {"network": layers, "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}
    assert {key: one for key, one in compare(config, "train", 3).items() if one.is_one} == {}


def test_names_of_tensorflow() -> None:
    theirs = {
        "class": "tf.nn.rnn_cell.DropoutWrapper",
        "cell": RNN,
        "input_keep_prob": 0.75,
        "output_keep_prob": 0.5,
        "state_keep_prob": 0.25,
        "variational_recurrent": True,
        "input_size": 4,
        "dtype": "float32",
    }
    ours = dropout(RNN, input_dropout=0.25, output_dropout=0.5, state_dropout=0.75, variational=True)
    nets = [compiled(unit, mode="train") for unit in (theirs, ours)]
    np.testing.assert_array_equal(*(output_of(net) for net in nets))


REFUSED: dict[str, tuple[Any, str]] = {
    "everything": (dropout(output_dropout=1.0), "output_dropout"),
    "less than nothing": (dropout(state_dropout=-0.1), "state_dropout"),
    "kept never": ({"class": "DropoutWrapper", "cell": LSTM, "input_keep_prob": 0.0}, "input_dropout"),
    "no number": ({"class": "DropoutWrapper", "cell": LSTM, "input_keep_prob": "a"}, "expected a number, got 'a'"),
    "no such state": (dropout(state_dropout=0.5, dropped_states=["m"]), "the cell has no state 'm'. It has h, c."),
    "a seed of its own": (
        dropout(output_dropout=0.5, seed=3),
        "seed: 3 is not supported. All that a run draws",
    ),
    "shared at each step": (dropout(output_dropout=0.5, shared_by_batch=True), "at all steps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    assert message in refusal(unit)


def test_masks_that_do_not_fit_the_draws() -> None:
    one = np.zeros((BATCH, SIZE))
    for masks, message in (
        ({}, "no mask is given for the draw 'output'"),
        ({"output": one, "input": one}, "nothing is drawn for the masks input"),
        ({"output": np.zeros((BATCH, LONGEST, SIZE))}, "the same at all steps, but its mask is not"),
    ):
        net = compiled(dropout(RNN, output_dropout=0.5, variational=True), mode="train")
        with pytest.raises((ConfigError, InternalError), match=message), given_masks(masks):
            output_of(net)
