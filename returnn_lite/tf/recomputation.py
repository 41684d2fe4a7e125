"""Nodes that are computed again when gradients are taken.

Forwards they are lowered as all others, but their results get a gradient of our own: a function that lowers the nodes
once more, on the same operands, and takes the gradient through that. It is traced where the nodes stand, so that what
it reads of around is known there, and called where TensorFlow asks for the gradient: what it needs, and nothing else,
is kept until then.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from returnn_lite.ir import Node, Recompute, Value
from returnn_lite.ir.body import goes_on_from_states
from returnn_lite.ir.reachability import reachable
from returnn_lite.tf.context import Context
from returnn_lite.tf.gradient_rules import operations_before, with_gradient
from returnn_lite.tf.gradients import empty_list
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.sizes import Sizes

Environment = MutableMapping[Value, Tensor]
LowerNodes = Callable[[Iterable[Node], Environment, Context], None]
Tensors = list[tf.Tensor]


def lower_recompute(c: Context, op: Recompute, environment: Environment, lower_nodes: LowerNodes) -> tuple[Tensor, ...]:
    """The results of the nodes; where gradients will be asked for, with one that computes them again."""
    inside: Environment = ChainMap({}, environment)
    nobody_asks = not c.differentiable or not any(value.type.is_float for value in op.results)
    if nobody_asks or c.forgets or c.again is not None:  # or more is computed again
        lower_nodes(op.body, inside, c)
        return tuple(inside[value] for value in op.results)
    lower_nodes(op.body, inside, replace(c, forgets=True))
    nodes = Again(c, op, environment, inside, lower_nodes)
    values = nodes.differentiable
    found = nodes.attached([inside[value].raw for value in values])
    made = dict(zip(values, found, strict=True))
    return tuple(
        replace(inside[value], raw=made[value], _derived={}) if value in made else inside[value] for value in op.results
    )


@dataclass(frozen=True)
class Function:
    """A gradient as a function of inputs, the gradients of results and lists, and what it captured of around.

    `needed` says on which inputs it depends at all, `gives` of which inputs, captured tensors and lists it gives the
    gradient.
    """

    concrete: tf.types.experimental.ConcreteFunction
    needed: Sequence[bool]
    gives: Sequence[bool]

    def gradients(self, inputs: Tensors, upstream: Tensors, captured: Tensors) -> list[tf.Tensor | None]:
        """Those of inputs, captured tensors and lists."""
        kept = [x if used else _unused(x) for x, used in zip(inputs, self.needed, strict=True)]
        types = [output.dtype for output in self.concrete.outputs]
        call = tf.raw_ops.PartitionedCall(args=[*kept, *upstream, *captured], Tout=types, f=self.concrete)
        found = iter(call if types else ())
        return [next(found) if there else None for there in self.gives]


def _unused(x: tf.Tensor) -> tf.Tensor:
    """In place of a tensor that nothing depends on: it need not be kept. What else is known of its shape is not told,
    as operations that nobody asks for are checked, too."""
    some = tf.zeros([1 if size is None else size for size in x.shape], x.dtype)
    return some if x.shape.is_fully_defined() else tf.raw_ops.PlaceholderWithDefault(input=some, shape=x.shape)


@dataclass(frozen=True)
class Again:
    """Nodes that have been lowered in a graph, to be lowered once more for their gradient; `made` has their results,
    and those inside."""

    c: Context
    op: Recompute
    environment: Environment
    made: Environment
    lower_nodes: LowerNodes

    @property
    def differentiable(self) -> list[Value]:
        """The results that have gradients."""
        return [value for value in self.op.results if self.made[value].dtype.is_floating]

    def attached(self, results: Tensors) -> Tensors:
        """The differentiable results with the gradient."""
        graph = tf.compat.v1.get_default_graph()
        own = [value for value in self.op.operands() if self.environment[value].raw.graph is graph]
        going_on = [node for node in self.op.body if goes_on_from_states(node, in_loop=bool(self.c.steps))]
        kept = [output for node in going_on for output in node.outputs]
        fed, environment = self.c.fed, self.environment
        inputs = [fed[value].raw if value in fed else environment[value].raw for value in own]
        inputs += [self.made[value].raw for value in kept]
        taps = self.c.taps.of(self.op.body) if self.c.taps is not None else None
        flows = taps.flows if taps is not None else []
        function = self._traced(own, kept, inputs, [*results, *flows])
        captured = list(function.concrete.captured_inputs)

        def rule(*upstream: tf.Tensor) -> list[tf.Tensor | None]:
            # Of what is from around a loop the tensors of its body, which are all that the backward one may use.
            given = list(found[0].op.inputs[len(results) + len(flows) :])
            of_inputs, of_captured = given[: len(inputs)], given[len(inputs) : len(inputs) + len(captured)]
            gradients = function.gradients(of_inputs, list(upstream), of_captured)
            return [_like(d, x) for d, x in zip(gradients, given, strict=True)]

        found = with_gradient([*results, *flows], [*inputs, *captured, *flows], rule)
        if taps is not None:
            taps.carry(found[len(results) :])
        return [tf.ensure_shape(one, like.shape) for one, like in zip(found, results, strict=False)]

    def _traced(self, own: list[Value], kept: list[Value], inputs: Tensors, results: Tensors) -> Function:
        """The gradient as a function of the operands of this graph, of the states that are kept, and of the gradients
        of results and lists."""
        count = len(inputs)
        parts: list[list[bool]] = []

        def gradient(*given: tf.Tensor) -> Tensors:
            upstream = list(given[count:])
            # Not before these are there: else it could all be done at once, or be found to be done already.
            with tf.control_dependencies(upstream):
                ys, sources = self._again(own, kept, [tf.identity(raw) for raw in given[:count]])
                flat = [x for part in sources for x in part]
                found = iter(tf.gradients(ys, flat, upstream))
            made = [[next(found) for _ in part] for part in sources]
            parts.extend([d is not None for d in part] for part in made)
            return [tf.convert_to_tensor(d) for part in made for d in part if d is not None]

        specs = [tf.TensorSpec(x.shape, x.dtype) for x in (*inputs, *results)]
        concrete = tf.function(gradient, autograph=False).get_concrete_function(*specs)
        of_inputs, of_captured, of_flows = parts
        later = len(concrete.captured_inputs) - len(of_captured)  # what only the gradients read
        gives = [*of_inputs, *[False] * len(kept), *of_captured, *[False] * later, *of_flows]
        return Function(concrete, _needed(concrete, count), gives)

    def _again(self, own: list[Value], kept: list[Value], raws: Tensors) -> tuple[Tensors, tuple[Tensors, ...]]:
        """Results and lists, lowered again, and what these are differentiated by: operands, what is captured, lists."""
        tensors = dict(zip((*own, *kept), raws, strict=True))
        fed, environment = self.c.fed, self.environment
        given = {
            value: fed[value].made(tensors[value])
            if value in fed
            else replace(environment[value], raw=tensors[value], _derived={})
            for value in own
        }
        for value in own:
            if not self.c.steps and not self._is_trained(value):
                given[value] = replace(given[value], raw=tf.stop_gradient(given[value].raw), _derived={})
        states = {value: replace(self.made[value], raw=tensors[value], _derived={}) for value in kept}
        taps = self.c.taps.of(self.op.body) if self.c.taps is not None else None
        flows = [empty_list(self.c.dtype("float32")) for _ in taps.flows] if taps is not None else []
        pushing = taps.pushing(flows) if taps is not None else None
        inside: Environment = ChainMap(given, self.environment)
        context = replace(self.c, sizes=Sizes(self.c.sizes, in_no_loop=not self.c.steps), again=states, taps=pushing)
        self.lower_nodes(self.op.body, inside, context)
        ys = [inside[value].in_order(self.made[value].dims) for value in self.differentiable]
        ys += pushing.flows if pushing is not None else []
        captured = [inner for _, inner in tf.compat.v1.get_default_graph().captures]
        return ys, (raws[: len(own)], captured, flows)

    def _is_trained(self, value: Value) -> bool:
        """Whether a parameter reaches an operand from outside of loops."""
        parameters = {parameter.op for parameter in self.c.parameters.values()}
        return any(op in parameters for op in operations_before(self.environment[value].raw))


def _like(gradient: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor | None:
    """A gradient, if there is one, with what is known of the shape of x; lists have none."""
    return gradient if gradient is None or x.dtype == tf.variant else tf.ensure_shape(gradient, x.shape)


def _needed(concrete: tf.types.experimental.ConcreteFunction, count: int) -> list[bool]:
    """Which of the first inputs of a function its outputs depend on."""
    ends = [output.op for output in concrete.outputs]
    found = set(reachable(ends, lambda op: [*(x.op for x in op.inputs), *op.control_inputs]))
    return [x.op in found for x in concrete.inputs[:count]]
