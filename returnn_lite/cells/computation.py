"""A step in TensorFlow: part of the graph that is being built, such as the body of Keras' loop, or called eagerly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from returnn_lite.cells.specs import refuse
from returnn_lite.cells.step import OUTPUT, SOURCE, Step
from returnn_lite.dims import DimKind, Symbol
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.tf.context import Context
from returnn_lite.tf.executable import Executable
from returnn_lite.tf.layout import Tensor, working_order
from returnn_lite.tf.lowering import lower_graph
from returnn_lite.tf.parameters import parameter_nodes, parameter_shape
from returnn_lite.tf.sizes import Sizes

FRAMES = Symbol("frames", DimKind.SPATIAL)
"""What the loop around runs over, whose steps have numbers drawn for each."""


@dataclass(frozen=True)
class Weight:
    """A parameter of a cell as Keras makes it."""

    name: str
    """Below the layer: `rec/W`."""
    shape: tuple[int, ...]
    trainable: bool
    first: np.ndarray


def weights_of(step: Step, dtype: str, seed: int) -> list[Weight]:
    """The parameters of a step with what they start with, in the order in which the step reads them first.

    Raises ConfigError in a graph of TensorFlow 1.
    """
    with tf.init_scope():
        if not tf.executing_eagerly():
            refuse((), "Keras makes no weights in a graph of TensorFlow 1", "Write a tf.function, or build it before.")
        executable = Executable(step.graph, step.batch, "float64" if dtype == "float64" else "float32", seed)
        values = {name: variable.numpy() for name, variable in executable.params.items()}
    ops = [node.op for node in parameter_nodes(step.graph.nodes) if isinstance(node.op, Parameter)]
    return [Weight(op.name, parameter_shape(op), op.trainable, values[op.name]) for op in ops]


@dataclass(frozen=True)
class Computation:
    """Runs a step with float32 as `floats`."""

    step: Step
    floats: str

    def __call__(
        self,
        source: tf.Tensor,
        states: Sequence[tf.Tensor],
        weights: Mapping[str, tf.Tensor],
        seed: tf.Tensor,
        number: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The output and the next states. `seed` is that of a sequence, `number` that of the step, both int32."""
        run = self._function if tf.executing_eagerly() else self._lowered
        output, after = run(source, list(states), dict(weights), seed, number)
        return output, list(after)

    @cached_property
    def _function(self) -> Any:
        return tf.function(self._lowered, autograph=False, reduce_retracing=True)

    def _lowered(
        self,
        source: tf.Tensor,
        states: list[tf.Tensor],
        weights: Mapping[str, tf.Tensor],
        seed: tf.Tensor,
        number: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        sizes, step = Sizes(), self.step
        size = tf.shape(source)[0]
        sizes.define(step.batch, Tensor(size, ()), size)
        given = {SOURCE: source, **dict(zip(step.keys, states, strict=True))}
        inputs = {
            value: Tensor(given[value.name], step.axes[value.name]).laid_out(working_order(value.type.dims))
            for value in step.graph.inputs
        }
        context = Context(sizes, self.floats, weights, seed, steps=((FRAMES, number),))
        found = lower_graph(step.graph, inputs, context).outputs
        output, *after = (self._shown(found[name], name) for name in (OUTPUT, *step.keys))
        return output, after

    def _shown(self, value: Tensor, name: str) -> tf.Tensor:
        """A result with its axes as the world around has them."""
        raw = value.in_order(self.step.axes[name])
        raw.set_shape([None, *self.step.shapes[name]])
        return raw
