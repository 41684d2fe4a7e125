"""What the engine needs of a compiled network: losses and gradients, hypotheses, and outputs, as tensors.

The methods `run_*` are called while a `tf.function` is traced, once for each mode and with unknown sizes, so they build
graphs and look at no values. All compilations of a network share its parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from returnn_lite.compiler import ModeName
from returnn_lite.dims import Dim
from returnn_lite.ir import Value
from returnn_lite.ir.batches import BatchError
from returnn_lite.net.outputs import LossParts

Tensors = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class StepResult:
    """One batch: the scalar that is minimised (sums over frames plus constraints), the losses by name, and in training
    the objective's gradient for each trainable parameter by name."""

    objective: tf.Tensor
    losses: Mapping[str, LossParts[tf.Tensor]]
    gradients: Tensors


@dataclass(frozen=True)
class DecodedLabels:
    """Decoded label sequences of one layer: `labels` [B, T], or [B, K, T] if the beam remains; `lengths` and
    `scores` (log probabilities; None if the layer has none) are [B] or [B, K]."""

    labels: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor | None = None


@dataclass(frozen=True)
class LayerArray:
    """A layer's output: `array` [B, T, ...] and its `lengths` [B], or [B, ...] and None if it has no time."""

    array: tf.Tensor
    lengths: tf.Tensor | None


@dataclass(frozen=True)
class Classes:
    """The number of classes, and their names if they are known."""

    number: int
    names: Sequence[str] = ()


class Runnable(Protocol):
    """A network compiled for one mode."""

    @property
    def params(self) -> Mapping[str, tf.Variable]:
        """All variables, by RETURNN's names."""

    @property
    def states(self) -> Mapping[str, tf.Variable]:
        """The states that the last batch has left and checkpoints have, as bytes."""

    @property
    def trainable(self) -> Sequence[str]:
        """The names of those that training changes."""

    @property
    def unsaved(self) -> Collection[str]:
        """The names of the parameters that checkpoints do not have."""

    @property
    def optional(self) -> Collection[str]:
        """The names of the parameters that a checkpoint may lack: they stay as they are."""

    @property
    def forget_biases(self) -> Mapping[str, float]:
        """Of biases of LSTMs, what is added to the forget gate at run time."""

    @property
    def updater_opts(self) -> Mapping[str, Mapping[str, object]]:
        """For each parameter whose layer has `updater_opts`, these."""

    @property
    def data_signature(self) -> Mapping[str, tf.TensorSpec]:
        """The type of each data key that the network reads: batch first, unknown sizes where they vary."""

    @property
    def lengths_signature(self) -> Mapping[str, tf.TensorSpec]:
        """The type of the lengths of each such key with time: int32 [B]; and of those of its other ragged dims, by the
        dims' names."""

    @property
    def length_dims(self) -> Mapping[str, Dim]:
        """The dims that these lengths are of."""

    @property
    def inputs(self) -> Sequence[Value]:
        """The data keys that the network reads, with their types."""

    def classes(self, layer: str) -> Classes | None:
        """What a layer's labels mean; None if its output is not labels."""

    def told(self, error: tf.errors.OpError) -> BatchError:
        """What an error of TensorFlow, while a batch was computed, says of the batch."""

    def begin_epoch(self) -> None:
        """Forgets what one batch leaves for the next: to be called before the first batch of a dataset."""

    def run_train(self, data: Tensors, seq_lens: Tensors, seed: tf.Tensor) -> StepResult:
        """One training step without its update. `seed` (int32 scalar) decides all random draws."""

    def run_eval(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LossParts[tf.Tensor]]:
        """The losses without dropout or any other randomness."""

    def run_search(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, DecodedLabels]:
        """Decodes; the hypotheses of the layers it was compiled for."""

    def run_forward(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LayerArray]:
        """The outputs of the layers it was compiled for."""


class Compile(Protocol):
    """Compiles the network of a config; the parameters are the same ones in every mode."""

    def __call__(self, mode: ModeName, layers: Sequence[str] = ()) -> Runnable:
        """The network in a mode; in search and forward for the `layers` whose results are wanted."""
