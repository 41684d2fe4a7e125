"""Gradients of our own in place of those that TensorFlow derives.

`tf.custom_gradient` registers a gradient at each call, for ever, and with it the graph that it was called in. Here one
gradient is registered, which asks the operation for its rule: a graph goes when nobody needs it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from returnn_lite.ir.reachability import reachable

Rule = Callable[..., "Sequence[tf.Tensor | None]"]
"""From the gradients of the results to those of the arguments."""

REGISTERED = "ReturnnLiteGradientRule"


def with_gradient(results: Sequence[tf.Tensor], arguments: Sequence[tf.Tensor], rule: Rule) -> list[tf.Tensor]:
    """The results, whose gradient with respect to the arguments is what the rule makes, and that of nothing else.

    In the body of a loop the rule may use tensors of the body, but of those from around it only arguments. To be called
    while a TensorFlow graph is built.
    """
    with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": REGISTERED}):
        outputs = tf.identity_n([*results, *arguments])
    outputs[0].op.gradient_rule = len(results), rule
    return list(outputs[: len(results)])


def operations_before(tensor: tf.Tensor) -> Iterator[tf.Operation]:
    """What makes a tensor, and all that its gradient goes to."""
    return reachable([tensor.op], lambda op: () if op.type == "StopGradient" else [x.op for x in op.inputs])


ELEMENTWISE = "ReturnnLiteElementwise"
ELEMENTWISE_TYPES = {"add": "AddV2", "sub": "Sub", "mul": "Mul"}
"""The operations of the kinds that `of_one_shape` knows."""


def of_one_shape(
    kind: str, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], operands: Sequence[tf.Tensor]
) -> tf.Tensor:
    """A sum, difference or product of two tensors of one shape, or of one and a scalar constant.

    Its gradient sums nothing up. TensorFlow's finds that out in each step of a loop, as it does not know the shapes,
    and sums up for the constant, too.
    """
    with tf.compat.v1.get_default_graph().gradient_override_map({ELEMENTWISE_TYPES[kind]: ELEMENTWISE}):
        return function(*operands)


@tf.RegisterGradient(ELEMENTWISE)  # type: ignore[untyped-decorator]
def _elementwise_gradients(operation: tf.Operation | None, *upstreams: tf.Tensor) -> list[tf.Tensor | None]:
    """Those of both operands; of lower rank is a constant only."""
    if operation is None:
        return _not_exported(upstreams)
    (upstream,) = upstreams
    x, y = operation.inputs
    if operation.type == "Mul":
        found = [upstream * y, upstream * x]
    else:
        found = [upstream, -upstream if operation.type == "Sub" else upstream]
    rank = upstream.shape.rank
    return [dx if operand.shape.rank == rank else None for operand, dx in zip((x, y), found, strict=True)]


@tf.RegisterGradient(REGISTERED)  # type: ignore[untyped-decorator]
def _gradients(operation: tf.Operation | None, *upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """The gradients of all that was put through: the results themselves get none."""
    if operation is None:
        return _not_exported(upstream)
    results, rule = operation.gradient_rule
    return [*[None] * results, *rule(*upstream[:results])]


def _not_exported(operands: Sequence[tf.Tensor]) -> list[tf.Tensor | None]:
    """What stands for a gradient in an exported graph, for which TensorFlow asks without an operation: our rules can't
    go with it, so that it stops whoever wants to train the graph."""
    message = "an exported graph has no gradients of returnn_lite: train the model that it was exported from"
    with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [message])]):
        return [tf.identity(one) for one in operands]
