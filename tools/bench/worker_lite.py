"""The worker of returnn_lite."""

from __future__ import annotations

import pathlib
import sys

import networks
import numpy as np
import worker

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))

import tensorflow as tf

from returnn_lite.engine.fused_adam import FusedAdam
from returnn_lite.engine.network import NetworkCompiler


def feed(case: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random data of a case: arrays and lengths by key."""
    generator = np.random.default_rng(1)
    if case == "lstm_train":
        size = networks.LSTM
        lengths = np.array(networks.lengths(size["batch"], size["time"]), "int32")
        return {"data": generator.normal(size=(size["batch"], size["time"], size["input"])).astype("float32")}, {
            "data": lengths
        }
    size = networks.SEQ2SEQ
    batch = networks.SEARCH["batch"] if case.endswith("search") else size["batch"]
    source = np.array(networks.lengths(batch, size["source"]), "int32")
    data = {"data": generator.normal(size=(batch, size["source"], size["input"])).astype("float32")}
    if case.endswith("search"):
        return data, {"data": source}
    target = np.array(networks.lengths(batch, size["target"], seed=2), "int32")
    data["classes"] = generator.integers(0, size["vocabulary"], (batch, size["target"])).astype("int32")
    return data, {"data": source, "classes": target}


def network(case: str) -> dict[str, object]:
    """The network of a case."""
    if case == "lstm_train":
        return networks.lstm()
    return networks.transformer() if case == "transformer_train" else networks.attention()


def training_step(case: str) -> worker.Step:
    """One step of Adam on a fixed batch."""
    executable = NetworkCompiler(config_of(case))("train")
    names = sorted(executable.trainable)
    variables = [executable.params[name] for name in names]
    optimizer = FusedAdam(1e-3)
    optimizer.build(variables)
    data, lengths = feed(case)

    @tf.function(autograph=False)
    def step(data: dict[str, tf.Tensor], lengths: dict[str, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
        result = executable.run_train(data, lengths, seed)
        optimizer.apply_gradients([(result.gradients[n], v) for n, v in zip(names, variables, strict=True)])
        return result.objective

    tensors = {key: tf.constant(array) for key, array in data.items()}
    sizes = {key: tf.constant(array) for key, array in lengths.items()}
    return lambda: step(tensors, sizes, tf.constant(1)).numpy()


def search_step() -> worker.Step:
    """Decodes a fixed batch."""
    executable = NetworkCompiler(config_of("attention_search"))("search", ("decision",))
    data, lengths = feed("attention_search")

    @tf.function(autograph=False)
    def step(data: dict[str, tf.Tensor], lengths: dict[str, tf.Tensor]) -> tf.Tensor:
        return executable.run_search(data, lengths)["decision"].labels

    tensors = {key: tf.constant(array) for key, array in data.items()}
    sizes = {key: tf.constant(array) for key, array in lengths.items()}
    return lambda: step(tensors, sizes).numpy()


def config_of(case: str) -> dict[str, object]:
    """The config of a case."""
    return {
        "network": network(case),
        "extern_data": networks.extern_data(case),
        "behavior_version": 21,
        "target": "classes",
    }


if __name__ == "__main__":
    worker.serve(
        {
            "lstm_train": lambda: training_step("lstm_train"),
            "attention_train": lambda: training_step("attention_train"),
            "transformer_train": lambda: training_step("transformer_train"),
            "attention_search": search_step,
            "compile": lambda: training_step("attention_train"),
        }
    )
