"""A small network written by hand, for tests of the engine: one linear layer with softmax over each frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from returnn_lite.dims import DimKind, Symbol, TensorType
from returnn_lite.engine.runnable import Classes, Compile, DecodedLabels, LayerArray, StepResult, Tensors
from returnn_lite.ir import Value
from returnn_lite.ir.batches import BatchError
from returnn_lite.net.outputs import LossParts
from returnn_lite.tf.checks import Checks

BATCH = Symbol("B", DimKind.BATCH)


class SoftmaxNetwork:
    """Classifies frames: "data" [B, T, dim] to "classes" [B, T]."""

    def __init__(self, params: Mapping[str, tf.Variable], updater_opts: Mapping[str, Mapping[str, object]]) -> None:
        self.params = params
        self.trainable = list(params)
        self.updater_opts = updater_opts
        self.unsaved: list[str] = []
        self.states: dict[str, tf.Variable] = {}
        self.optional: list[str] = []
        self.forget_biases: dict[str, float] = {}
        self.dim, self.number = params["output/W"].shape
        time, classes = Symbol("time", DimKind.SPATIAL, None, (BATCH,)), Symbol("classes", DimKind.SPATIAL, self.number)
        data = TensorType((BATCH, time, Symbol("F", DimKind.FEATURE, self.dim)), "float32")
        self.inputs = (Value("data", data), Value("classes", TensorType((BATCH, time), "int32", classes)))
        self.data_signature = {
            "data": tf.TensorSpec([None, None, self.dim], tf.float32),
            "classes": tf.TensorSpec([None, None], tf.int32),
        }
        self.length_dims = dict.fromkeys(("data", "classes"), time)
        self.lengths_signature = {key: tf.TensorSpec([None], tf.int32) for key in ("data", "classes")}

    def classes(self, layer: str) -> Classes | None:
        return Classes(self.number) if layer == "decision" else None

    def _logits(self, data: Tensors) -> tf.Tensor:
        return tf.einsum("btf,fc->btc", data["data"], self.params["output/W"]) + self.params["output/b"]

    def run_eval(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LossParts[tf.Tensor]]:
        logits, targets = self._logits(data), data["classes"]
        mask = tf.sequence_mask(seq_lens["data"], tf.shape(targets)[1], tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        errors = tf.cast(tf.argmax(logits, -1, tf.int32) != targets, tf.float32)
        return {"output": LossParts(tf.reduce_sum(mask), tf.reduce_sum(losses * mask), tf.reduce_sum(errors * mask))}

    def told(self, error: tf.errors.OpError) -> BatchError:
        return Checks().told(error)

    def begin_epoch(self) -> None:
        """Nothing is kept over batches here."""

    def run_train(self, data: Tensors, seq_lens: Tensors, seed: tf.Tensor) -> StepResult:
        losses = self.run_eval(data, seq_lens)
        objective = losses["output"].sum
        gradients = tf.gradients(objective, list(self.params.values()))
        return StepResult(objective, losses, dict(zip(self.params, map(tf.convert_to_tensor, gradients), strict=True)))

    def run_search(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, DecodedLabels]:
        logits, lengths = self._logits(data), seq_lens["data"]
        best = tf.argmax(logits, -1, tf.int32)
        second = tf.math.top_k(logits, 2).indices[:, :, 1]
        scores = tf.zeros([tf.shape(best)[0], 2])
        beam = DecodedLabels(tf.stack([best, second], 1), tf.stack([lengths, lengths], 1), scores)
        return {"decision": DecodedLabels(best, lengths), "beam": beam}

    def run_forward(self, data: Tensors, seq_lens: Tensors) -> Mapping[str, LayerArray]:
        logits, lengths = self._logits(data), seq_lens["data"]
        return {
            "output": LayerArray(tf.nn.softmax(logits), lengths),
            "decision": LayerArray(tf.argmax(logits, -1, tf.int32), lengths),
            "mean": LayerArray(tf.reduce_mean(logits, 1), None),
        }


def softmax_network(dim: int, number: int, updater_opts: Mapping[str, Mapping[str, object]] | None = None) -> Compile:
    """Fresh parameters, always the same ones; shared by all modes."""
    start = np.random.RandomState(1).normal(size=(dim, number)).astype(np.float32)
    params = {"output/W": tf.Variable(start), "output/b": tf.Variable(tf.zeros([number]))}
    network = SoftmaxNetwork(params, updater_opts or {})
    return lambda mode, layers=(): network
