"""A cell with drawn parameters in float64, in all ways that it may run, against its formula on single sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import returnn_lite as rl
from tests.commit import takes_part

Weights = Mapping[str, np.ndarray]
"""Parameters by their names below the cell."""
Formula = Callable[[Weights, np.ndarray], np.ndarray]
"""From the parameters and one sequence [T, in] to the outputs [T, n]."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result


FUNCTIONS: Mapping[str | None, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_sigmoid_relu6": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    None: lambda x: x,
}
"""The activation functions by their names."""
LENGTHS = (5, 3, 0, 1)
SIZE = 4
SOURCE = np.random.default_rng(1).normal(size=(len(LENGTHS), max(LENGTHS), SIZE))
WAYS = (("rec", True), ("rec", False), ("rnn_cell", True), ("rnn_cell", False))
"""The commit's hash says which are tried; nightly all are."""


def network(unit: Any, way: str = "rec", **options: Any) -> dict[str, Any]:
    """A unit on the data, as a layer or as a step of a loop."""
    if way == "rec":
        return {"output": {"class": "rec", "from": "data", "unit": unit, **options}}
    step = {"class": "rnn_cell", "from": "data:source", "unit": unit, **options}
    return {"output": {"class": "rec", "from": "data", "unit": {"output": step}}}


def compiled(unit: Any, way: str = "rec", optimize: bool = True, mode: Any = "eval", **options: Any) -> Any:
    """The network with parameters drawn by their names."""
    layers = network(unit, way, **options)
    data = {"data": {"dim": SIZE}}
    net = rl.compile(layers, data, mode, behavior_version=21, optimize=optimize, dtype="float64")
    for name, parameter in net.params.items():
        seed = sum(map(ord, below(name)))
        parameter.assign(np.random.default_rng(seed).normal(size=parameter.shape))
    return net


def below(name: str) -> str:
    """The name of a parameter below the cell."""
    return name.removeprefix("output/rec/").removeprefix("output/rec/")


def weights_of(net: Any) -> dict[str, np.ndarray]:
    return {below(name): np.asarray(parameter.numpy()) for name, parameter in net.params.items()}


def shapes(unit: Any, **options: Any) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in weights_of(compiled(unit, **options)).items()}


def first_values(unit: Any, **options: Any) -> dict[str, np.ndarray]:
    """What the parameters of a new network are."""
    net = rl.compile(network(unit, **options), {"data": {"dim": SIZE}}, "train", behavior_version=21)
    return weights_of(net)


def output_of(net: Any, source: np.ndarray = SOURCE, lengths: tuple[int, ...] = LENGTHS) -> np.ndarray:
    """[B, T, n]"""
    found = net.run({"data": source}, {"data": list(lengths)}).layers["output"]
    return np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)


def assert_is(unit: Any, formula: Formula, **options: Any) -> None:
    """In each way, each sequence of the batch gives what the formula says of it alone."""
    drawn = [way for way in WAYS if takes_part(f"{unit} {way}", 3)]
    for way, optimize in drawn or WAYS[:1]:
        net = compiled(unit, way, optimize, **options)
        output, weights = output_of(net), weights_of(net)
        for sequence, (source, length) in enumerate(zip(SOURCE, LENGTHS, strict=True)):
            if length:
                expected = formula(weights, source[:length])
                np.testing.assert_allclose(output[sequence, :length], expected, 1e-9, 1e-9, err_msg=f"{way} {optimize}")


def refusal(unit: Any, **options: Any) -> str:
    """What is said of a unit that can't be."""
    config = {"network": network(unit, **options), "extern_data": {"data": {"dim": SIZE}}, "behavior_version": 21}
    try:
        rl.check(config, "eval")
    except rl.ConfigError as error:
        return str(error)
    raise AssertionError(f"{unit} is not refused")
