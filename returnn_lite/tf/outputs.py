"""The outputs of a run, and how users see them: the order of axes, lengths, and what stands beyond ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from returnn_lite.dims import Dim, DimKind, TensorType, display_order
from returnn_lite.ir import Graph
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.lowering import Lowered
from returnn_lite.tf.mask import masked, padded_dims
from returnn_lite.tf.sizes import Sizes


@dataclass(frozen=True)
class RunOutput:
    """An output: the array in the order of `dims` (batch, beam, as declared, feature last), and for each ragged dim
    the lengths, over the dims in `length_dims`."""

    value: np.ndarray
    dims: tuple[Dim, ...]
    lengths: dict[Dim, np.ndarray]
    length_dims: dict[Dim, tuple[Dim, ...]]


@dataclass(frozen=True)
class Results:
    """The outputs of a run as tensors, with the gradients that were asked for, while a TensorFlow graph is built.

    `gradients` has a dense tensor for each trainable parameter. `sizes` knows the lengths of all dims.
    """

    lowered: Lowered
    gradients: dict[str, tf.Tensor]

    @property
    def outputs(self) -> dict[str, Tensor]:
        return self.lowered.outputs

    @property
    def sizes(self) -> Sizes:
        return self.lowered.context.sizes


def shown(graph: Graph, results: Results) -> dict[str, tuple[tf.Tensor, dict[str, tf.Tensor]]]:
    """Outputs in the layout that users see, padding zero or as the graph says, and the lengths of dynamic dims by their
    position."""
    found = {}
    for name in results.outputs:
        order = graph.axes(name)
        lengths = {
            str(axis): results.sizes.lengths(dim).in_order(length_order(results.sizes, dim))
            for axis, dim in enumerate(order)
            if shows_lengths(dim)
        }
        found[name] = (_padded(graph, results, name).in_order(order), lengths)
    return found


def _padded(graph: Graph, results: Results, name: str) -> Tensor:
    """An output with what stands beyond the ends of its sequences."""

    def zeroed(tensor: Tensor) -> Tensor:
        return masked(results.sizes, tensor, padded_dims(results.sizes, tensor))

    tensor, end = results.outputs[name], graph.end_of(name)
    if end is None:
        return zeroed(tensor)
    beyond, over = end
    return masked(results.sizes, zeroed(tensor), (over,), zeroed(results.outputs[beyond]).aligned(tensor.dims))


def shows_lengths(dim: Dim) -> bool:
    """Whether users are told the lengths of a dim."""
    return dim.size is None and dim.kind is not DimKind.BATCH


def length_order(sizes: Sizes, dim: Dim) -> tuple[Dim, ...]:
    """The layout in which users see the lengths of a dim."""
    return display_order(TensorType(sizes.lengths(dim).dims))
