"""The worker of RETURNN's TensorFlow backend. Runs in a virtual environment with returnn and dm-tree;
DISABLE_CUDA=1."""

from __future__ import annotations

from typing import Any

import networks
import numpy as np
import returnn.tf.compat as tf_compat
import worker
from returnn.config import Config
from returnn.tf.network import TFNetwork
from returnn.tf.util.data import BatchInfo  # noqa: F401  (RETURNN needs it loaded before a network is made)

tf = tf_compat.v1


def _network(case: str, layers: dict[str, Any], train: bool, search: bool) -> tuple[Any, Any, Any]:
    config = Config({"extern_data": networks.extern_data(case), "target": "classes", "behavior_version": 21})
    session = tf.Session(graph=tf.Graph())
    with session.graph.as_default():
        net = TFNetwork(config=config, train_flag=train, search_flag=search, eval_flag=not search)
        net.construct_from_dict(layers)
    return net, session, config


def _feed(net: Any, case: str, keys: list[str]) -> dict[Any, Any]:
    generator = np.random.default_rng(1)
    feed: dict[Any, Any] = {}
    size = networks.LSTM if case == "lstm_train" else networks.SEQ2SEQ
    batch = networks.SEARCH["batch"] if case.endswith("search") else size["batch"]
    for key in keys:
        data = net.extern_data.data[key]
        longest = size.get("time") or (size["target"] if key == "classes" else size["source"])
        lengths = networks.lengths(batch, longest, seed=2 if key == "classes" else 1)
        shape = (batch, longest) if data.sparse else (batch, longest, data.dim)
        values = generator.integers(0, data.dim, shape) if data.sparse else generator.normal(size=shape)
        feed[data.placeholder] = values.astype(data.dtype)
        feed[data.size_placeholder[0]] = lengths
    feed[net.extern_data.get_batch_info().dim] = batch
    return feed


def training_step(case: str, layers: dict[str, Any]) -> worker.Step:
    """One step of Adam on a fixed batch."""
    net, session, _ = _network(case, layers, train=True, search=False)
    with session.graph.as_default():
        objective = net.get_total_loss()
        train = tf.train.AdamOptimizer(1e-3).minimize(objective)
        session.run(tf.global_variables_initializer())
    feed = _feed(net, case, ["data"] if case == "lstm_train" else ["data", "classes"])
    return lambda: session.run([train, objective], feed)


def search_step() -> worker.Step:
    """Decodes a fixed batch."""
    net, session, _ = _network("attention_search", networks.attention(), train=False, search=True)
    with session.graph.as_default():
        session.run(tf.global_variables_initializer())
        labels = net.get_layer("decision").output.placeholder
    feed = _feed(net, "attention_search", ["data"])
    return lambda: session.run(labels, feed)


if __name__ == "__main__":
    worker.serve(
        {
            "lstm_train": lambda: training_step("lstm_train", networks.lstm()),
            "attention_train": lambda: training_step("attention_train", networks.attention()),
            "transformer_train": lambda: training_step("transformer_train", networks.transformer()),
            "attention_search": search_step,
            "compile": lambda: training_step("attention_train", networks.attention()),
        }
    )
