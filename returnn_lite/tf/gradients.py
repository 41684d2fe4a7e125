"""Gradients of loop-invariant factors outside of the backward loop.

A product x·W in a loop's body, W from outside, gives W a gradient in each step, which TensorFlow adds up: one update of
rank B a step. Here each step only leaves its x and the gradient of the product, and one product over all steps, after
the backward loop, makes the gradient of W.

The way out of the backward loop is a list that the loop carries through unchanged (`Tap.sink`). Its gradient is carried
backwards, and each product appends its own to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import tensorflow as tf

from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir import Loop, Node, Value
from returnn_lite.ir.ops.contraction import Dot
from returnn_lite.ir.ops.recurrence import GruStep, LstmStep, SimpleRnnStep
from returnn_lite.tf.gradient_rules import with_gradient
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.mask import masked
from returnn_lite.tf.product import dot, without_padding
from returnn_lite.tf.sizes import Sizes
from returnn_lite.tf.stacks import stack

PRODUCTS = (Dot, LstmStep, GruStep, SimpleRnnStep)

WORTHWHILE = 2**17
"""Elements of a factor from which on this pays: below, appending costs more than adding up. Measured on two cores."""

TYPICAL_SIZE = 32
"""What a dynamic dim counts for in that."""


@dataclass(eq=False)
class Tap:
    """One loop-invariant factor of one product. `sizes` are those around the loop.

    What is known only when the body is traced is set then: the layouts of x and of the product.
    """

    node: Node
    weight: Tensor
    sizes: Sizes
    constant: Tensor
    x: Tensor | None = None
    y: Tensor | None = None
    masked_dims: tuple[Dim, ...] = ()
    written: tf.TensorArray | None = field(default=None, repr=False)

    def sink(self) -> tf.TensorArray:
        """The list to be carried, empty; its gradient becomes that of the factor."""
        array = tf.TensorArray(self.weight.dtype, 0, dynamic_size=True, infer_shape=False)
        (flow,) = with_gradient([array.flow], [self.weight.raw], lambda gradients: [self._gradient(gradients)])
        return tf.TensorArray(self.weight.dtype, flow=flow)

    def _gradient(self, gradients: tf.Tensor) -> tf.Tensor:
        """The gradient of the factor from the list of the products' gradients, the last step's first."""
        if self.x is None or self.y is None or self.written is None:
            return tf.zeros_like(self.weight.raw)
        dtype = self.weight.dtype
        x = stack(self.written, dtype, self.sizes.shape(self.x.dims))
        dy = tf.raw_ops.TensorListStack(
            input_handle=gradients,
            element_shape=tf.convert_to_tensor(self.sizes.shape(self.y.dims), tf.int32),
            element_dtype=dtype,
            num_elements=-1,
        )
        if _width(self.x.dims) < _width(self.y.dims):
            x = tf.reverse(x, [0])
        else:
            dy = tf.reverse(dy, [0])
        steps = Symbol("steps")
        xs, dys = Tensor(x, (steps, *self.x.dims)), Tensor(dy, (steps, *self.y.dims))
        over = [dim for dim in xs.dims if dim not in self.weight.dims]
        result = masked(self.sizes, dot(self.sizes, xs, dys, over), self.masked_dims)
        return result.in_order(self.weight.dims)


def _width(dims: Iterable[Dim]) -> int:
    return math.prod(dim.size or TYPICAL_SIZE for dim in dims)


def find_taps(sizes: Sizes, loop: Loop, outside: Callable[[Value], Tensor]) -> list[Tap]:
    """A tap for every large loop-invariant factor of a product in the body."""
    invariant = set(loop.free_values())
    taps = []
    for node in loop.body:
        if not isinstance(node.op, PRODUCTS):
            continue
        for value in dict.fromkeys(node.inputs):
            if value not in invariant or not value.type.is_float:
                continue
            weight = outside(value)
            if not sizes.is_outermost(weight) or _width(weight.dims) < WORTHWHILE:
                continue
            constant = Tensor(
                weight.derived("constant", tf.stop_gradient), weight.dims, weight.zero_beyond, weight.finite
            )
            taps.append(Tap(node, weight, sizes, constant))
    return taps


@dataclass(eq=False)
class LiveTap:
    """A tap in one step: the list that is carried, and the inputs so far."""

    tap: Tap
    flow: tf.TensorArray
    inputs: tf.TensorArray


@dataclass(frozen=True)
class Taps:
    """The taps of the loop whose body is being traced. `is_local`: of dims whose length each step determines anew."""

    live: list[LiveTap]
    step: tf.Tensor
    is_local: Callable[[Dim], bool]

    def product(self, sizes: Sizes, node: Node, a: Tensor, b: Tensor, over: tuple[Dim, ...]) -> Tensor | None:
        """The product, if one operand has a tap; None otherwise."""
        for x, weight in ((a, b), (b, a)):
            for live in self.live:
                fits = live.tap.node is node and live.tap.weight is weight and live.tap.x is None
                if fits and not any(map(self.is_local, x.dims)) and not sizes.is_outermost(x):
                    return self._tapped(sizes, live, x, over)
        return None

    def _tapped(self, sizes: Sizes, live: LiveTap, x: Tensor, over: tuple[Dim, ...]) -> Tensor:
        tap = live.tap
        x, weight = without_padding(sizes, x, tap.constant, over)
        y = multiplied_with(sizes, x, weight, over, live)
        tap.masked_dims = over if weight is not tap.constant else ()
        tap.x, tap.y = x, y
        live.inputs = live.inputs.write(self.step, x.raw)
        return y


def multiplied_with(sizes: Sizes, x: Tensor, weight: Tensor, over: tuple[Dim, ...], live: LiveTap) -> Tensor:
    """x·W, where W gets no gradient, but the list that the loop carries gets the product's."""
    y = dot(sizes, x, weight, over)

    def gradient(dy: tf.Tensor, d_flow: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dx = dot(sizes, Tensor(dy, y.dims), weight, [dim for dim in weight.dims if dim not in x.dims])
        return dx.in_order(x.dims), tf.raw_ops.TensorListPushBack(input_handle=d_flow, tensor=dy)

    raw, flow = with_gradient([y.raw, live.flow.flow], [x.raw, live.flow.flow], gradient)
    live.flow = tf.TensorArray(weight.dtype, flow=flow)
    return Tensor(tf.ensure_shape(raw, y.raw.shape), y.dims, y.zero_beyond, y.finite)
