"""From the IR to TensorFlow: every node of a graph by the lowering of its primitive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir import Graph, Loop, Node, Op, Recompute, Value
from returnn_lite.ir.graph import text_of
from returnn_lite.ir.host_calls import FunctionError
from returnn_lite.ir.ops.among import Among
from returnn_lite.ir.ops.axes import AllSteps, WindowOfSteps
from returnn_lite.ir.ops.masks import Current, When
from returnn_lite.ir.verify import InternalError
from returnn_lite.tf.backward_loops import loop_from_states
from returnn_lite.tf.consumers import consumers_of
from returnn_lite.tf.context import Assignment, Context, Lowering
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.loops import Environment, lower_loop, plan_of
from returnn_lite.tf.mask import broadcast, padded_dims
from returnn_lite.tf.ops import (
    axes,
    contraction,
    edit_distances,
    elementwise,
    foreign,
    gradients,
    histories,
    indexing,
    language_model,
    losses,
    masks,
    planes,
    recurrence,
    recurrent_cells,
    reduction,
    search,
    sources,
    stacked_recurrence,
)
from returnn_lite.tf.ops.among import lower_among
from returnn_lite.tf.recomputation import lower_recompute

FAMILIES = (
    sources,
    elementwise,
    gradients,
    histories,
    contraction,
    edit_distances,
    reduction,
    indexing,
    axes,
    recurrence,
    recurrent_cells,
    foreign,
    planes,
    search,
    losses,
    masks,
    language_model,
    stacked_recurrence,
)

LOWERINGS: Mapping[type[Op], Lowering] = MappingProxyType(
    {primitive: lowering for family in FAMILIES for primitive, lowering in family.lowers.table.items()}
)
"""What every primitive becomes, but for `Loop`, `Among`, and those that a pass rewrites before."""

REWRITTEN: frozenset[type[Op]] = frozenset([When, Current, WindowOfSteps, AllSteps])
"""What changes clocks, or looks at other steps: the passes leave none of them."""


@dataclass(frozen=True)
class Lowered:
    """The results of a graph in a TensorFlow graph."""

    outputs: dict[str, Tensor]
    values: Mapping[Value, Tensor]
    context: Context

    @property
    def assignments(self) -> list[Assignment]:
        """What parameters shall be when the step has ended."""
        return self.context.assignments


def lower_graph(graph: Graph, inputs: Mapping[Value, Tensor], context: Context) -> Lowered:
    """Lowers all nodes. `inputs` has a tensor for each input of the graph, and `context.sizes` their lengths.

    Call it while a TensorFlow graph is being built (in a `tf.function`).
    """
    environment: Environment = dict(inputs)
    context = replace(context, consumers=consumers_of(graph))
    lower_nodes(graph.nodes, environment, context)
    return Lowered({name: environment[value] for name, value in graph.outputs.items()}, environment, context)


def lower_nodes(nodes: Iterable[Node], environment: Environment, context: Context) -> None:
    """Adds the results of the nodes, which come in dependency order, to the environment."""
    for node in nodes:
        inputs = [environment[value] for value in node.inputs]
        with located(node):
            results = lower_node(node, inputs, environment, replace(context, node=node))
            complete = isinstance(node.op, Recompute)  # each by itself
            for value, result in zip(node.outputs, results, strict=True):
                environment[value] = result if complete else completed(context, value, result, inputs)


@contextmanager
def located(node: Node) -> Iterator[None]:
    """Says of whatever fails inside which layer's node was lowered. Raises InternalError: a network that has no meaning
    was refused before."""
    try:
        yield
    except (InternalError, FunctionError):
        raise  # it says so already
    except Exception as error:
        text = text_of([node], "  ")
        layer = f"{node.origin}: " if str(node.origin) else ""
        message = f"{layer}{node.op.label} can't be lowered: {type(error).__name__}: {error}\n{text}"
        raise InternalError(message) from error


def lower_node(node: Node, inputs: list[Tensor], environment: Environment, context: Context) -> tuple[Tensor, ...]:
    """The results of one node. Raises ValueError for a primitive that has no lowering."""
    if isinstance(node.op, Loop):
        known = context.kept_results()
        if known is not None:
            return loop_from_states(context, plan_of(node.op), environment, known, lower_nodes)
        return lower_loop(context, node.op, environment, lower_nodes)
    if isinstance(node.op, Recompute):
        return lower_recompute(context, node.op, environment, lower_nodes)
    if type(node.op) in REWRITTEN:
        raise ValueError(f"{context.where}: {node.op.label} must be rewritten by a pass before lowering")
    scope = scope_name(context.where)
    context.checks.scopes.setdefault(scope, node.origin)
    with tf.name_scope(scope), tf.device(node.origin.device or None):
        if isinstance(node.op, Among):
            return lower_among(context, node.op, _lower_op, *inputs)
        return _lower_op(context, node.op, inputs)


def _lower_op(context: Context, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    results = LOWERINGS[type(op)](context, op, *inputs)
    return results if isinstance(results, tuple) else (results,)


def scope_name(layer: str) -> str:
    """The layer's path as TensorFlow allows it in names of operations."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_./-") else "_" for c in layer).strip("/")
    return kept if kept and (kept[0].isalnum() or kept[0] == ".") else f"layer_{kept}"


def completed(context: Context, value: Value, result: Tensor, inputs: list[Tensor]) -> Tensor:
    """The result with exactly the dims of its type, and what is known of its padding.

    Padding that is not finite stays so until nothing is left of it. What has no padding itself can become that of what
    it is repeated in: a number, or the largest frame of a sequence, which is infinite for an empty one.
    """
    dims: tuple[Dim, ...] = value.type.dims
    if set(result.dims) != set(dims):
        unexpected = set(result.dims) - set(dims)
        assert not unexpected, f"{context.where}: {value} was lowered with {unexpected}"
        missing = tuple(dim for dim in dims if dim not in result.dims)
        result = broadcast(context.sizes, result, (*missing, *result.dims))
    expected = context.dtype(value.type.dtype)
    assert result.dtype == expected, f"{context.where}: {value} was lowered with {result.dtype}, not {expected}"
    finite = result.finite and all(x.finite for x in inputs)
    if not finite and inputs and not padded_dims(context.sizes, result):
        reduced = any(dim.is_ragged for x in inputs for dim in x.dims)
        finite = result.finite if reduced else all(x.finite for x in inputs)
    return replace(result, finite=finite)
