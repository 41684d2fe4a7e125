"""The promise, on random networks: optimised gives the same as plain and as the per-step view before all passes, in
TensorFlow what it gives in NumPy, and a batch what its sequences give alone.

The networks are others at each commit (tests/conftest.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings

from returnn_lite.compiler import build, optimized
from returnn_lite.ir import Graph
from returnn_lite.net.network import BuiltNetwork
from tests.commit import NIGHTLY, drawn, takes_part
from tests.properties.backend import assert_same_in_tensorflow, rewriting, unless_tied
from tests.properties.networks import batches, needs_targets, networks
from tests.properties.parts import SIZE
from tests.properties.running import (
    Feed,
    assert_equal,
    feed_of,
    part_of,
    run,
    sequence_of,
)
from tests.reference.named import Named

IN_TENSORFLOW = 30
"""One network in so many is compiled and run, with gradients; nightly all: none passes `check` that can't be run."""
EXAMPLES = max(settings.default.max_examples, 220) if settings.default is not None else 220
SEEN = ("layer:output", "layer:decision", "scores:output", "layer:output/first", "layer:output/behind")
"""What search is for: where the optimised graph has less to compute."""
VECTOR = re.compile(r"layer:(corner|output/([lf]\d|behind))")
"""The layers [SIZE] that are drawn."""
Batch = tuple[list[int], list[int]]


@settings(max_examples=EXAMPLES)
@given(networks(risk=True), batches())
def test_training_is_the_same_optimised(config: dict[str, Any], batch: Batch) -> None:
    """Every layer, loss and the objective, with what is random."""
    built = build(config, "train")
    feed, lengths = feed_of(config, batch)
    graph = optimized(built, True)
    with unless_tied(built, graph, feed, lengths):
        assert_equal(run(built, graph, feed, lengths), run(built, optimized(built, False), feed, lengths))
        _assert_same_in_tensorflow(config, built, graph, feed, lengths)


@settings(max_examples=EXAMPLES // 3)
@given(networks(), batches())
def test_training_is_the_per_step_view(config: dict[str, Any], batch: Batch) -> None:
    """The graph as layers build it, step by step, what is under a mask only where the mask is true."""
    built = build(config, "eval")
    _assert_vectors(built)
    feed, lengths = feed_of(config, batch)
    assert_equal(run(built, optimized(built, True), feed, lengths), run(built, built.graph, feed, lengths))


@settings(max_examples=EXAMPLES)
@given(networks(), batches())
def test_search_is_the_same_optimised(config: dict[str, Any], batch: Batch) -> None:
    """The same hypotheses in the same order."""
    built = build(config, "search", targets=needs_targets(config))
    kept = {name: value for name, value in built.graph.outputs.items() if name in SEEN}
    built = replace(built, graph=replace(built.graph, outputs=kept))
    feed, lengths = feed_of(config, batch)
    graph = optimized(built, True)
    with unless_tied(built, graph, feed, lengths):
        assert_equal(run(built, graph, feed, lengths), run(built, optimized(built, False), feed, lengths))
        _assert_same_in_tensorflow(config, built, graph, feed, lengths)


def _assert_vectors(built: BuiltNetwork) -> None:
    """What was drawn to have some features for each step has these and no more."""
    for name, value in built.graph.outputs.items():
        if VECTOR.fullmatch(name):
            assert [dim.size for dim in value.type.dims if dim.size is not None] == [SIZE], name


def _assert_same_in_tensorflow(
    config: dict[str, Any], built: BuiltNetwork, graph: Graph, feed: Feed, lengths: Feed
) -> None:
    """Of some networks, nightly of all, TensorFlow gives what NumPy gives; it draws numbers itself in one of four, and
    rewrites nightly what the commit would take anyway."""
    name = repr(config)
    if takes_part(name, IN_TENSORFLOW):
        with rewriting(NIGHTLY and drawn(name, IN_TENSORFLOW)):
            assert_same_in_tensorflow(built, graph, feed, lengths, own_draws=drawn(f"draws {name}", 4))


@settings(max_examples=EXAMPLES // 3)
@given(networks(alone=True), batches())
def test_a_batch_is_its_sequences(config: dict[str, Any], batch: Batch) -> None:
    """Each layer of a sequence is what it is alone, step by step; the loss of a batch is the sum of its sequences'."""
    built = build(config, "eval")
    feed, lengths = feed_of(config, batch)
    together = run(built, optimized(built, True), feed, lengths)
    alone = [run(built, built.graph, *sequence_of(feed, lengths, i), i) for i in range(3)]
    _assert_sequences_of(together, alone)
    if "objective" in together:
        total = sum(float(single["objective"].array) for single in alone)
        np.testing.assert_allclose(float(together["objective"].array), total, rtol=1e-7)


@settings(max_examples=EXAMPLES // 3)
@given(networks(alone=True), batches())
def test_a_search_of_a_batch_is_that_of_its_sequences(config: dict[str, Any], batch: Batch) -> None:
    """The hypotheses of a sequence and their scores are what they are alone, however long the others go on."""
    built = build(config, "search", targets=needs_targets(config))
    kept = {name: value for name, value in built.graph.outputs.items() if name in SEEN}
    built = replace(built, graph=replace(built.graph, outputs=kept))
    feed, lengths = feed_of(config, batch)
    plain = optimized(built, False)
    alone = [run(built, plain, *sequence_of(feed, lengths, i), i) for i in range(3)]
    graph = optimized(built, True)
    with unless_tied(built, graph, feed, lengths):
        _assert_sequences_of(run(built, graph, feed, lengths), alone)


def _assert_sequences_of(together: Mapping[str, Named], alone: Sequence[Mapping[str, Named]]) -> None:
    """The outputs of a batch are those of its sequences."""
    for name, whole in together.items():
        for i, single in enumerate(one[name] for one in alone):
            part = part_of(whole, i, single)
            if part is not None:
                expected = part_of(Named(single.over(whole.dims), whole.dims), 0, single)
                assert expected is not None
                assert part.shape == expected.shape, name
                np.testing.assert_allclose(part, expected, rtol=1e-7, atol=1e-7, err_msg=name)
