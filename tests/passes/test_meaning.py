"""No pass changes what a graph means: random bodies, run as built and after every pass of both pipelines."""

from __future__ import annotations

import pytest
from hypothesis import assume, given

from returnn_lite.ir import Graph
from returnn_lite.passes.errors import PassError
from returnn_lite.passes.pipeline import optimize
from tests.passes.bodies import Drawn, graphs
from tests.passes.meaning import assert_same, meaning


def assert_meaning_is_kept(graph: Graph, enabled: bool) -> None:
    """Runs the graph after each pass that changed it."""
    expected = meaning(graph)
    after: list[tuple[str, Graph]] = []
    try:
        optimize(graph, enabled=enabled, observe=lambda name, result: after.append((name, result)))
    except PassError:
        assume(False)
    for name, result in after:
        try:
            assert_same(meaning(result), expected)
        except AssertionError as error:
            raise AssertionError(f"after {name}:\n{result}\nbefore:\n{graph}") from error


@pytest.mark.parametrize("enabled", [True, False], ids=["optimized", "plain"])
@given(drawn=graphs(masks=False))
def test_loops(drawn: Drawn, enabled: bool) -> None:
    """Without masks."""
    assert_meaning_is_kept(drawn.graph, enabled)


@given(drawn=graphs(masks=False, cycles=True))
def test_fused_loops(drawn: Drawn) -> None:
    """With many cycles, of which some read others frame by frame."""
    assert_meaning_is_kept(drawn.graph, enabled=True)


@pytest.mark.parametrize("enabled", [True, False], ids=["optimized", "plain"])
@given(drawn=graphs())
def test_clocks(drawn: Drawn, enabled: bool) -> None:
    """With masks, also in masks."""
    assert_meaning_is_kept(drawn.graph, enabled)


@pytest.mark.parametrize("enabled", [True, False], ids=["optimized", "plain"])
@given(drawn=graphs(masks=False, whole_axis=True))
def test_statistics(drawn: Drawn, enabled: bool) -> None:
    """With statistics over all steps: as built these have no meaning step by step, so both pipelines are compared."""
    try:
        other = optimize(drawn.graph, enabled=not enabled)
        result = optimize(drawn.graph, enabled=enabled)
    except PassError:
        assume(False)
    assert_same(meaning(result), meaning(other))
