"""The promise, on random networks: optimised and plain give the same, and a batch gives what its sequences give
alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings

from returnn_lite.compiler import build, optimized
from returnn_lite.net.network import BuiltNetwork
from tests.properties.networks import CLASSES, SIZE, networks
from tests.reference.interpreter import interpret
from tests.reference.named import Array, Lengths, Named, real

LENGTHS = {"data": np.array([4, 2, 3]), "classes": np.array([3, 4, 1])}
EXAMPLES = max(settings.default.max_examples, 300) if settings.default is not None else 300


def parameters_of(built: BuiltNetwork) -> dict[str, Array]:
    """Random parameters, the same for each name."""
    return {
        name: np.random.default_rng(sum(map(ord, name))).normal(0, 0.7, [dim.size or 0 for dim in parameter.dims])
        for name, parameter in built.parameters.items()
    }


def feed_of(config: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """A fixed batch of three sequences, with wild numbers in the padding."""
    shares = "same_dim_tags_as" in config["extern_data"]["classes"]
    lengths = {**LENGTHS, **({"classes": LENGTHS["data"]} if shares else {})}
    generator = np.random.default_rng(1)
    data = generator.normal(size=(3, 4, SIZE))
    labels = generator.integers(0, CLASSES, (3, 4))
    return {"data": data, "classes": labels}, lengths


def run(
    built: BuiltNetwork, optimize: bool, feed: Mapping[str, Array], lengths: Mapping[str, Array]
) -> dict[str, Named]:
    """The outputs under the reference interpreter, padding set to zero."""
    known = Lengths({built.extern_data.batch: Named(np.array(len(lengths["data"])), ())})
    inputs = {}
    for value in built.graph.inputs:
        dims = value.type.dims
        cut = {dim: int(lengths[value.name].max()) for dim in dims if dim.is_ragged}
        inputs[value.name] = feed[value.name][tuple(slice(0, cut.get(dim)) for dim in dims)]
        for dim in cut:
            known.known[dim] = Named(lengths[value.name], (built.extern_data.batch,))
    outputs = interpret(optimized(built, optimize), inputs, known, parameters_of(built))
    return {name: Named(np.where(real(x, known).array, x.array, 0), x.dims) for name, x in outputs.items()}


def assert_equal(a: Mapping[str, Named], b: Mapping[str, Named]) -> None:
    """Outputs of two compilations agree; scores that are -inf or -1e30 agree as such."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        other = b[name].over(value.dims)
        np.testing.assert_allclose(value.array, other, rtol=1e-7, atol=1e-7, err_msg=name)


@settings(max_examples=EXAMPLES)
@given(networks())
def test_training_is_the_same_optimised(config: dict[str, Any]) -> None:
    """Every layer, loss and the objective."""
    built = build(config, "eval")
    feed, lengths = feed_of(config)
    assert_equal(run(built, True, feed, lengths), run(built, False, feed, lengths))


@settings(max_examples=EXAMPLES)
@given(networks())
def test_search_is_the_same_optimised(config: dict[str, Any]) -> None:
    """The same hypotheses in the same order."""
    built = build(config, "search", targets=False)
    kept = {n: v for n, v in built.graph.outputs.items() if n in ("layer:output", "layer:decision", "scores:output")}
    built = replace(built, graph=replace(built.graph, outputs=kept))
    feed, lengths = feed_of(config)
    assert_equal(run(built, True, feed, lengths), run(built, False, feed, lengths))


@settings(max_examples=EXAMPLES // 3)
@given(networks())
def test_a_batch_is_its_sequences(config: dict[str, Any]) -> None:
    """The loss of a batch is the sum of the losses of its sequences alone."""
    built = build(config, "eval")
    feed, lengths = feed_of(config)
    together = run(built, True, feed, lengths)
    alone = [
        run(built, True, {k: x[i : i + 1] for k, x in feed.items()}, {k: n[i : i + 1] for k, n in lengths.items()})
        for i in range(3)
    ]
    total = sum(float(single["objective"].array) for single in alone)
    np.testing.assert_allclose(float(together["objective"].array), total, rtol=1e-7)
