"""The worker of returnn_lite. With `--plain`, nothing leaves its loop."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Mapping

import numpy as np
import random_data
import worker
from cases import CASES, Case

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))

import tensorflow as tf

import returnn_lite as rl
from returnn_lite.engine.feeding import signature
from returnn_lite.engine.fused_adam import FusedAdam
from returnn_lite.engine.network import NetworkCompiler

Tensors = dict[str, tf.Tensor]


def compiler(case: Case, optimize: bool) -> NetworkCompiler:
    """The compiler of a case's network."""
    config = {
        "network": case.network(lambda name, size: rl.Dim(name, rl.DimKind.SPATIAL, size)),
        "extern_data": case.extern_data,
        "behavior_version": 21,
        "target": "classes",
    }
    return NetworkCompiler(config, optimize=optimize)


def feed(case: Case) -> tuple[Tensors, Tensors]:
    """The case's batch: arrays and lengths by key."""
    arrays, lengths = random_data.batch(case)
    return {k: tf.constant(v) for k, v in arrays.items()}, {k: tf.constant(v) for k, v in lengths.items()}


def set_parameters(variables: Mapping[str, tf.Variable]) -> None:
    """Draws all parameters by their names."""
    for name, variable in variables.items():
        variable.assign(random_data.parameter(name, variable.shape))


def training_step(case: Case, optimize: bool) -> worker.Prepared:
    """One step of Adam on a fixed batch; its objective is what it is checked by."""
    executable = compiler(case, optimize)("train")
    names = sorted(executable.trainable)
    variables = [executable.params[name] for name in names]
    set_parameters(executable.params)
    optimizer = FusedAdam(1e-3)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(data: Tensors, lengths: Tensors, seed: tf.Tensor) -> tf.Tensor:
        result = executable.run_train(data, lengths, seed)
        optimizer.apply_gradients([(result.gradients[n], v) for n, v in zip(names, variables, strict=True)])
        return result.objective

    tensors, sizes = feed(case)
    run = functools.partial(step, tensors, sizes, tf.constant(1))
    return worker.Prepared(lambda: run().numpy(), lambda: float(run().numpy()))


def gradient_step(case: Case, optimize: bool) -> worker.Prepared:
    """Objective and gradients of one cell on a fixed batch, without an optimiser's step."""
    executable = compiler(case, optimize)("train")
    set_parameters({name.removeprefix("cell/rec/"): variable for name, variable in executable.params.items()})

    @tf.function(input_signature=(*signature(executable), tf.TensorSpec([], tf.int32)), autograph=False)
    def step(data: Tensors, lengths: Tensors, seed: tf.Tensor) -> tf.Tensor:
        result = executable.run_train(data, lengths, seed)
        return result.objective + tf.linalg.global_norm(list(result.gradients.values()))

    tensors, sizes = feed(case)
    run = functools.partial(step, tensors, sizes, tf.constant(1))
    is_random = "zoneout" in str(case.network(rl.Dim))
    return worker.Prepared(lambda: run().numpy(), None if is_random else lambda: float(run().numpy()))


def search_step(case: Case, optimize: bool) -> worker.Prepared:
    """Decodes a fixed batch."""
    executable = compiler(case, optimize)("search", case.search)
    set_parameters(executable.params)

    @tf.function(autograph=False)
    def step(data: Tensors, lengths: Tensors) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        found = executable.run_search(data, lengths)
        return {layer: (found[layer].labels, found[layer].lengths) for layer in case.search}

    tensors, sizes = feed(case)

    def run() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {layer: (array.numpy(), sizes.numpy()) for layer, (array, sizes) in step(tensors, sizes).items()}

    return worker.Prepared(run, lambda: random_data.checksum(run()))


def preparation(case: Case) -> Callable[[Case, bool], worker.Prepared]:
    """What prepares a case."""
    if case.group == "cells":
        return gradient_step
    return search_step if case.search else training_step


def main(optimize: bool) -> None:
    """Serves all cases."""
    worker.serve({name: functools.partial(preparation(case), case, optimize) for name, case in CASES.items()})


if __name__ == "__main__":
    main("--plain" not in sys.argv)
