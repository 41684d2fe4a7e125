"""The backend's face over the reference interpreter: whole networks run in a thirtieth of the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from returnn_lite.dims import Dim, TensorType, display_order
from returnn_lite.ir import Node, Value, walk
from returnn_lite.ir.ops.elementwise import CheckFinite, PrintValue
from returnn_lite.ir.ops.search import Choose
from returnn_lite.ir.ops.sources import AssignParameter, Parameter, RandomDraw
from returnn_lite.tf.executable import Executable
from returnn_lite.tf.outputs import RunOutput, shows_lengths
from tests.commit import takes_part
from tests.reference.elementwise import numpy_dtype
from tests.reference.interpreter import interpret
from tests.reference.named import Array, Lengths, Named, real, without_padding


class Interpreted(Executable):
    """An executable whose `run` is NumPy's, where the interpreter does all that the graph asks for; gradients are
    TensorFlow's."""

    def run(
        self, feed: Mapping[str, Any], lengths: Mapping[Dim, Any] | None = None, seed: int | None = None
    ) -> dict[str, RunOutput]:
        if any(_needs_tensorflow(node) for node in walk(self.graph.nodes)):
            return super().run(feed, lengths, seed)
        known = self._lengths(feed, lengths or {})
        inputs = {value.name: _trimmed(value, feed[value.name], known) for value in self.graph.inputs}
        assigned = [node for node in self.graph.nodes if isinstance(node.op, AssignParameter)]
        values = {f"assign {node.op.name}": node.output for node in assigned}
        graph = replace(self.graph, outputs=self.graph.outputs | values)
        outputs = interpret(graph, inputs, known, {name: x.numpy() for name, x in self.params.items()})
        for node in assigned:
            self.params[node.op.name].assign(outputs[f"assign {node.op.name}"].full(node.op.dims, known))
        types = {name: value.type.of_dims(self.graph.axes(name)) for name, value in self.graph.outputs.items()}
        ends = {name: (outputs[end[0]], end[1]) for name in types if (end := self.graph.end_of(name)) is not None}
        return {name: self._output(outputs[name], type_, known, ends.get(name)) for name, type_ in types.items()}

    def _lengths(self, feed: Mapping[str, Any], lengths: Mapping[Dim, Any]) -> Lengths:
        """Those of all dims of the inputs; where one is not given, all sequences are as long as the array."""
        known = Lengths({dim: Named(np.asarray(lengths[dim]), dim.over) for dim in self.length_dims if dim in lengths})
        for value in self.graph.inputs:
            for dim, size in zip(display_order(value.type), np.shape(feed[value.name]), strict=True):
                if not known.knows(dim):
                    known.known[dim] = Named(np.full([known.size(over) for over in dim.over], size), dim.over)
        return known

    def _output(self, found: Named, type_: TensorType, known: Lengths, end: tuple[Named, Dim] | None) -> RunOutput:
        """As users see it: with its axes in the order of the type, zero in the padding, or what stands at the `end` of
        a dim."""
        dims = type_.dims
        found = Named(found.full(dims, known), dims)
        array = np.where(real(found, known).array, found.array, np.zeros((), found.array.dtype))
        if end is not None:
            beyond, over = end
            length, steps = known.of(over), Named(np.arange(known.size(over)), (over,))
            is_there = np.broadcast_to(steps.over(dims) < length.over(dims), array.shape)
            array = np.where(is_there, array, without_padding(beyond, known).over(dims))
        shown = {dim: known.of(dim) for dim in dims if shows_lengths(dim)}
        orders = {dim: display_order(TensorType(length.dims)) for dim, length in shown.items()}
        lengths = {dim: length.over(orders[dim]).astype("int32") for dim, length in shown.items()}
        dtype = self.dtype if type_.dtype == "float32" else type_.dtype
        return RunOutput(array.astype(dtype), dims, lengths, orders)


def _needs_tensorflow(node: Node) -> bool:
    """Whether a primitive has an effect that users see, draws, keeps something over batches, or shows layers to their
    code."""
    op = node.op
    kept = isinstance(op, Parameter) and bool(op.kept)
    seen = isinstance(op, Choose) and op.combine is not None and len(node.inputs) > 4 + bool(op.rule.cheating)
    noise = isinstance(op, Choose) and op.rule.random_scale != 0
    return kept or seen or noise or isinstance(op, (RandomDraw, PrintValue, CheckFinite))


def _trimmed(value: Value, given: Any, known: Lengths) -> Array:
    """An input with its axes as the type says, cut to the longest sequence."""
    array, order = np.asarray(given), display_order(value.type)
    array = array[tuple(slice(0, known.size(dim)) for dim in order)]
    assert array.shape == tuple(known.size(dim) for dim in order), f"{value.name}: {array.shape}"
    return array.transpose([order.index(dim) for dim in value.type.dims]).astype(numpy_dtype(value.type.dtype))


@pytest.fixture(autouse=True)
def numpy_first(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the `conftest.py` of a folder: its tests run networks in NumPy, one in eight in TensorFlow, nightly all.

    A test with the mark `tensorflow` always does: it is about what NumPy does not do, such as errors while running.
    """
    if request.node.get_closest_marker("tensorflow") is None and not takes_part(request.node.nodeid, 8):
        monkeypatch.setattr("returnn_lite.tf.executable.Executable", Interpreted)
