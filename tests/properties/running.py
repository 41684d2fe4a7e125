"""Runs built networks under the reference interpreter on a small batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import Graph, Loop, Node
from returnn_lite.ir.ops.sources import AssignParameter, RandomDraw
from returnn_lite.net.network import BuiltNetwork
from tests.properties.networks import CLASSES
from tests.properties.parts import SIZE
from tests.reference.interpreter import interpret
from tests.reference.named import Array, Lengths, Named, union, without_padding

USUAL = ([4, 2, 3], [3, 4, 1])
LENGTHS = {"data": np.array(USUAL[0]), "classes": np.array(USUAL[1])}
Feed = Mapping[str, Array]
BATCH, LONGEST = 3, 4
MOST = 8
"""How long a sequence may be at most, also one that a search makes."""


def parameters_of(built: BuiltNetwork, sequence: int | None = None) -> dict[str, Array]:
    """Random parameters, the same for each name; variances are positive. Of what the batch before left, that of one
    `sequence` or of all."""
    found = {}
    for name, parameter in built.parameters.items():
        sizes = [BATCH if dim.kind is DimKind.BATCH else dim.size or 0 for dim in parameter.dims]
        drawn = np.random.default_rng(sum(map(ord, name))).normal(0, 0.7, sizes)
        if parameter.kept and sequence is not None:
            drawn = drawn[sequence : sequence + 1]
        found[name] = np.abs(drawn) + 0.5 if "variance" in name else drawn
    return found


def feed_of(config: Mapping[str, Any], lengths: tuple[Sequence[int], Sequence[int]] = USUAL) -> tuple[Feed, Feed]:
    """A batch of three sequences whose data and targets have these lengths, with wild numbers in the padding."""
    shares = "same_dim_tags_as" in config["extern_data"]["classes"]
    frames, labels = (np.array(one) for one in lengths)
    generator = np.random.default_rng(1)
    data = generator.normal(size=(BATCH, LONGEST, SIZE))
    targets = generator.integers(0, CLASSES, (BATCH, LONGEST))
    return {"data": data, "classes": targets}, {"data": frames, "classes": frames if shares else labels}


def sequence_of(feed: Feed, lengths: Feed, sequence: int) -> tuple[Feed, Feed]:
    """One sequence of a batch as a batch."""
    return tuple({key: x[sequence : sequence + 1] for key, x in part.items()} for part in (feed, lengths))  # type: ignore[return-value]


def run(built: BuiltNetwork, graph: Graph, feed: Feed, lengths: Feed, sequence: int | None = None) -> dict[str, Named]:
    """The outputs of a graph of the network, padding set to zero; `sequence`: which of a batch this is, for what is
    random."""
    outputs, known = interpreted(built, graph, feed, lengths, parameters_of(built, sequence), sequence)
    return {name: without_padding(x, known) for name, x in outputs.items()}


def interpreted(
    built: BuiltNetwork,
    graph: Graph,
    feed: Feed,
    lengths: Feed,
    parameters: Mapping[str, Array],
    sequence: int | None = None,
) -> tuple[dict[str, Named], Lengths]:
    """The outputs, and what is assigned to parameters, with anything in the padding, and the lengths of all dims."""
    assigned = {f"assign {n.op.name}": n.output for n in graph.nodes if isinstance(n.op, AssignParameter)}
    graph = replace(graph, outputs=graph.outputs | assigned)
    known = Lengths({built.extern_data.batch: Named(np.array(len(lengths["data"])), ())})
    inputs = {}
    for value in built.graph.inputs:
        dims = value.type.dims
        cut = {dim: int(lengths[value.name].max()) for dim in dims if dim.is_ragged}
        inputs[value.name] = feed[value.name][tuple(slice(0, cut.get(dim)) for dim in dims)]
        for dim in cut:
            known.known[dim] = Named(lengths[value.name], (built.extern_data.batch,))
    return interpret(graph, inputs, known, parameters, draws_of(built, sequence)), known


def draws_of(built: BuiltNetwork, sequence: int | None = None) -> dict[str, Named]:
    """The random numbers of a network by the seed's name, enough for any length; of one sequence of a batch, or all."""
    return {draw.seed: _numbers(draw, dims, sequence) for draw, dims in _draws(built.graph.nodes)}


def _draws(nodes: Iterable[Node], steps: tuple[Dim, ...] = ()) -> Iterator[tuple[RandomDraw, tuple[Dim, ...]]]:
    """The draws, each with its dims and those of the loops in which each step has its own."""
    for node in nodes:
        if isinstance(node.op, Loop):
            yield from _draws(node.op.body, (*steps, node.op.over))
        elif isinstance(node.op, RandomDraw):
            yield node.op, ((*steps, *node.op.dims) if node.op.fresh else node.op.dims)


def _numbers(draw: RandomDraw, dims: tuple[Dim, ...], sequence: int | None) -> Named:
    """As many numbers as there may be of each dim; of the batch those of one sequence, or all."""
    generator = np.random.default_rng(sum(map(ord, draw.seed)))
    sizes = [dim.size or (BATCH if dim.kind is DimKind.BATCH else MOST) for dim in dims]
    if draw.distribution == "uniform":
        drawn = generator.uniform(draw.first, draw.second, sizes)
    else:
        drawn = np.clip(generator.normal(size=sizes), -2, 2) * draw.second + draw.first
    if sequence is not None:
        own = slice(sequence, sequence + 1)
        drawn = drawn[tuple(own if dim.kind is DimKind.BATCH else slice(None) for dim in dims)]
    return Named((np.floor(drawn) if draw.dtype.startswith("int") else drawn).astype(draw.dtype), dims)


def part_of(whole: Named, sequence: int, single: Named) -> Array | None:
    """What of a batch's result is one sequence's, which is as long as it is alone; None if all share it."""
    if not any(dim.kind is DimKind.BATCH for dim in whole.dims):
        return None
    sizes = dict(zip(single.dims, single.array.shape, strict=True))
    at = (sequence if d.kind is DimKind.BATCH else slice(0, sizes.get(d)) for d in whole.dims)
    return whole.array[tuple(at)]


def assert_equal(a: Mapping[str, Named], b: Mapping[str, Named]) -> None:
    """The outputs of two compilations agree; scores that are -inf or -1e30 agree as such."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        dims = union([value, b[name]])  # what a loop without steps gives has not all dims
        both = np.broadcast_arrays(value.over(dims), b[name].over(dims))
        np.testing.assert_allclose(*both, rtol=1e-7, atol=1e-7, err_msg=name)
