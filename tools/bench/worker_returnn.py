"""The worker of RETURNN's TensorFlow backend. Runs in a virtual environment with returnn and dm-tree;
DISABLE_CUDA=1. With `--plain`, nothing leaves its loop."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import random_data
import returnn.tf.compat as tf_compat
import worker
from cases import CASES, Case
from returnn.config import Config
from returnn.tensor import Dim, Tensor
from returnn.tf.network import ExternData, TFNetwork
from returnn.tf.util.data import BatchInfo  # noqa: F401  (RETURNN needs it loaded before a network is made)
from returnn.util.basic import BehaviorVersion

tf = tf_compat.v1


def data_keys(case: Case) -> Any:
    """Placeholders of the case's data. `same_dim_tags_as` names an earlier key."""
    found = ExternData()
    for key, given in case.extern_data.items():
        options = dict(given)
        if "same_dim_tags_as" in options:
            named = options["same_dim_tags_as"].items()
            options["same_dim_tags_as"] = {a: found.data[other].get_dim_tag_from_description(a) for a, other in named}
        found.data[key] = Tensor(name=key, auto_create_placeholders=True, **options)
    found.init_batch_info()
    return found


def build(case: Case, optimize: bool) -> tuple[Any, Any]:
    """The network of a case and a session in its graph."""
    BehaviorVersion._behavior_version = case.returnn_version  # it can be set but once, and a worker has many cases
    config = Config({"optimize_move_layers_out": optimize})
    search = bool(case.search)
    session = tf.Session(graph=tf.Graph())
    with session.graph.as_default():
        net = TFNetwork(
            config=config, extern_data=data_keys(case), train_flag=not search, search_flag=search, eval_flag=not search
        )
        net.construct_from_dict(
            case.network(lambda name, size: Dim(kind=Dim.Types.Spatial, description=name, dimension=size))
        )
    return net, session


def set_parameters(net: Any, session: Any) -> None:
    """Draws all parameters by their names."""
    session.run(tf.global_variables_initializer())
    for variable in net.get_params_list():
        name = variable.name.removesuffix(":0")
        variable.load(random_data.parameter(name, variable.shape.as_list()), session)


def feed(net: Any, case: Case) -> dict[Any, Any]:
    """The case's batch by placeholder."""
    found: dict[Any, Any] = {net.extern_data.get_batch_info().dim: case.batch}
    arrays, lengths = random_data.batch(case)
    for key, array in arrays.items():
        data = net.extern_data.data[key]
        found |= {data.placeholder: array, data.size_placeholder[0]: lengths[key]}
    return found


def training_step(case: Case, optimize: bool) -> worker.Prepared:
    """One step of Adam on a fixed batch; its objective is what it is checked by."""
    net, session = build(case, optimize)
    with session.graph.as_default():
        objective = net.get_total_loss()
        train = tf.train.AdamOptimizer(1e-3).minimize(objective)
        set_parameters(net, session)
    batch = feed(net, case)
    return worker.Prepared(lambda: session.run([train, objective], batch), lambda: float(session.run(objective, batch)))


def search_step(case: Case, optimize: bool) -> worker.Prepared:
    """Decodes a fixed batch."""
    net, session = build(case, optimize)
    with session.graph.as_default():
        set_parameters(net, session)
        fetches = {}
        for layer in case.search:
            output = net.get_layer(layer).output.copy_as_batch_major()
            fetches[layer] = (output.placeholder, output.get_sequence_lengths())
    batch = feed(net, case)

    def run() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found: dict[str, tuple[np.ndarray, np.ndarray]] = session.run(fetches, batch)
        return found

    return worker.Prepared(run, lambda: random_data.checksum(run()))


def main(optimize: bool) -> None:
    """Serves all cases."""
    worker.serve(
        {
            name: functools.partial(search_step if case.search else training_step, case, optimize)
            for name, case in CASES.items()
        }
    )


if __name__ == "__main__":
    main("--plain" not in sys.argv)
