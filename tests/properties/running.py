"""Runs built networks under the reference interpreter on a fixed batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from returnn_lite.ir import Graph
from returnn_lite.net.network import BuiltNetwork
from tests.properties.networks import CLASSES, SIZE
from tests.reference.interpreter import interpret
from tests.reference.named import Array, Lengths, Named, real

LENGTHS = {"data": np.array([4, 2, 3]), "classes": np.array([3, 4, 1])}
Feed = Mapping[str, Array]


def parameters_of(built: BuiltNetwork) -> dict[str, Array]:
    """Random parameters, the same for each name."""
    return {
        name: np.random.default_rng(sum(map(ord, name))).normal(0, 0.7, [dim.size or 0 for dim in parameter.dims])
        for name, parameter in built.parameters.items()
    }


def feed_of(config: Mapping[str, Any]) -> tuple[Feed, Feed]:
    """A fixed batch of three sequences, with wild numbers in the padding, and its lengths."""
    shares = "same_dim_tags_as" in config["extern_data"]["classes"]
    lengths = {**LENGTHS, **({"classes": LENGTHS["data"]} if shares else {})}
    generator = np.random.default_rng(1)
    data = generator.normal(size=(3, 4, SIZE))
    labels = generator.integers(0, CLASSES, (3, 4))
    return {"data": data, "classes": labels}, lengths


def sequence_of(feed: Feed, lengths: Feed, sequence: int) -> tuple[Feed, Feed]:
    """One sequence of a batch as a batch."""
    return tuple({key: x[sequence : sequence + 1] for key, x in part.items()} for part in (feed, lengths))  # type: ignore[return-value]


def run(built: BuiltNetwork, graph: Graph, feed: Feed, lengths: Feed) -> dict[str, Named]:
    """The outputs of a graph of the network, padding set to zero."""
    known = Lengths({built.extern_data.batch: Named(np.array(len(lengths["data"])), ())})
    inputs = {}
    for value in built.graph.inputs:
        dims = value.type.dims
        cut = {dim: int(lengths[value.name].max()) for dim in dims if dim.is_ragged}
        inputs[value.name] = feed[value.name][tuple(slice(0, cut.get(dim)) for dim in dims)]
        for dim in cut:
            known.known[dim] = Named(lengths[value.name], (built.extern_data.batch,))
    outputs = interpret(graph, inputs, known, parameters_of(built))
    return {name: Named(np.where(real(x, known).array, x.array, 0), x.dims) for name, x in outputs.items()}


def assert_equal(a: Mapping[str, Named], b: Mapping[str, Named]) -> None:
    """The outputs of two compilations agree; scores that are -inf or -1e30 agree as such."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        other = b[name].over(value.dims)
        np.testing.assert_allclose(value.array, other, rtol=1e-7, atol=1e-7, err_msg=name)
