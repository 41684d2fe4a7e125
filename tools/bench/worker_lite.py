"""The worker of returnn_lite."""

from __future__ import annotations

import pathlib
import sys

import networks
import numpy as np
import worker

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))

import keras
import tensorflow as tf

from returnn_lite.compiler import Network


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
    config = {
        "network": network(case),
        "extern_data": networks.extern_data(case),
        "behavior_version": 21,
        "target": "classes",
    }
    net = Network(config, "train", True, "float32", {}, 42)
    data, lengths = feed(case)
    compiled = net.compiled_for_training()
    arrays, dims = compiled.checked_feed(data, lengths)
    optimizer = keras.optimizers.Adam(1e-3)
    variables = compiled.executable.trainable
    tensors = {key: tf.constant(array) for key, array in arrays.items()}
    sizes = {dim: tf.constant(length) for dim, length in dims.items()}

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            objective = compiled.executable.call(tensors, sizes)["objective"]
        optimizer.apply_gradients(zip(tape.gradient(objective, variables), variables, strict=True))
        return objective

    return lambda: step().numpy()


def search_step() -> worker.Step:
    """Decodes a fixed batch."""
    config = {
        "network": networks.attention(),
        "extern_data": networks.extern_data("attention_search"),
        "behavior_version": 21,
    }
    net = Network(config, "search", True, "float32", {}, 42)
    data, lengths = feed("attention_search")
    return lambda: net.run(data, lengths, layers=["decision"])


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
