"""The promise, on random networks: optimised gives the same as plain and as the per-step view before all passes, and a
batch what its sequences give alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings

from returnn_lite.compiler import build, optimized
from returnn_lite.dims import Dim, DimKind
from tests.properties.networks import networks
from tests.properties.running import assert_equal, feed_of, run, sequence_of
from tests.reference.named import Named

EXAMPLES = max(settings.default.max_examples, 300) if settings.default is not None else 300


@settings(max_examples=EXAMPLES)
@given(networks())
def test_training_is_the_same_optimised(config: dict[str, Any]) -> None:
    """Every layer, loss and the objective."""
    built = build(config, "eval")
    feed, lengths = feed_of(config)
    assert_equal(run(built, optimized(built, True), feed, lengths), run(built, optimized(built, False), feed, lengths))


@settings(max_examples=EXAMPLES // 3)
@given(networks())
def test_training_is_the_per_step_view(config: dict[str, Any]) -> None:
    """The graph as layers build it, step by step, what is under a mask only where the mask is true."""
    built = build(config, "eval")
    feed, lengths = feed_of(config)
    assert_equal(run(built, optimized(built, True), feed, lengths), run(built, built.graph, feed, lengths))


@settings(max_examples=EXAMPLES)
@given(networks())
def test_search_is_the_same_optimised(config: dict[str, Any]) -> None:
    """The same hypotheses in the same order."""
    built = build(config, "search", targets=False)
    names = ("layer:output", "layer:decision", "scores:output", "layer:output/behind")
    kept = {n: v for n, v in built.graph.outputs.items() if n in names}
    built = replace(built, graph=replace(built.graph, outputs=kept))
    feed, lengths = feed_of(config)
    assert_equal(run(built, optimized(built, True), feed, lengths), run(built, optimized(built, False), feed, lengths))


def _part(dim: Dim, sequence: int, single: Named) -> int | slice:
    """What of a dim of a batch is one sequence's, which is as long as it is alone."""
    if dim.kind is DimKind.BATCH:
        return sequence
    return slice(0, single.array.shape[single.axis(dim)] if dim in single.dims else None)


@settings(max_examples=EXAMPLES // 3)
@given(networks())
def test_a_batch_is_its_sequences(config: dict[str, Any]) -> None:
    """Each layer of a sequence is what it is alone, step by step; the loss of a batch is the sum of its sequences'."""
    built = build(config, "eval")
    feed, lengths = feed_of(config)
    together = run(built, optimized(built, True), feed, lengths)
    alone = [run(built, built.graph, *sequence_of(feed, lengths, i)) for i in range(3)]
    for name, whole in together.items():
        for i, single in enumerate(single[name] for single in alone):
            at = tuple(_part(dim, i, single) for dim in whole.dims)
            expected = single.over(whole.dims)[tuple(0 if isinstance(part, int) else part for part in at)]
            if any(isinstance(part, int) for part in at):
                np.testing.assert_allclose(whole.array[at], expected, rtol=1e-7, atol=1e-7, err_msg=name)
    total = sum(float(single["objective"].array) for single in alone)
    np.testing.assert_allclose(float(together["objective"].array), total, rtol=1e-7)
