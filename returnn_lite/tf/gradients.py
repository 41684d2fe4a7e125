"""Gradients of loop-invariant factors outside of the backward loop.

A product x·W in a loop's body, W from outside, gives W a gradient in each step, which TensorFlow adds up: one update of
rank B a step. Here each step only leaves its x and the gradient of the product, and one product over all steps, after
the backward loop, makes the gradient of W.

The way out of the backward loop is a list that the loop carries through unchanged (`Tap.sink`). Its gradient is carried
backwards, and each product appends its own to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import tensorflow as tf

from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir import Loop, Node, Recompute, Value
from returnn_lite.ir.kept import WORTHWHILE, width
from returnn_lite.tf.gradient_rules import with_gradient
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.mask import masked
from returnn_lite.tf.product import dot, without_padding
from returnn_lite.tf.sizes import Size, Sizes
from returnn_lite.tf.stacks import step_array


@dataclass(eq=False)
class Tap:
    """One loop-invariant factor of one product. `sizes` are those around the loop.

    What is known only when the body is traced is set then: the layouts of x and of the product. Where the product is
    computed `again` in the backward loop, x is not kept: the gradient leaves both.
    """

    node: Node
    weight: Tensor
    sizes: Sizes
    constant: Tensor
    again: bool = False
    x: Tensor | None = None
    y: Tensor | None = None
    masked_dims: tuple[Dim, ...] = ()
    written: tf.TensorArray | None = field(default=None, repr=False)

    def sinks(self, steps: Size | None) -> tuple[tf.TensorArray, tf.TensorArray]:
        """Two lists to be carried. The gradient of the first, empty, becomes that of the factor. Into the second each
        step writes its x, or it is as the first."""
        flows = [self._empty().flow for _ in range(2 if self.again else 1)]
        flows = with_gradient(flows, [self.weight.raw], lambda *gradients: [self._gradient(*gradients)])
        sinks = [tf.TensorArray(self.weight.dtype, flow=flow) for flow in flows]
        return sinks[0], sinks[1] if self.again else step_array(self.weight.dtype, steps)

    def _empty(self) -> tf.TensorArray:
        return tf.TensorArray(self.weight.dtype, 0, dynamic_size=True, infer_shape=False)

    def _gradient(self, gradients: tf.Tensor, inputs: tf.Tensor | None = None) -> tf.Tensor:
        """The gradient of the factor from the list of the products' gradients, and that of their inputs where they are
        computed again, both the last step's first."""
        written = inputs if self.written is None else self.written.flow
        if self.x is None or self.y is None or written is None:
            return tf.zeros_like(self.weight.raw)
        x = self._stacked(written, self.x)
        dy = self._stacked(gradients, self.y)
        backwards = width(self.x.dims) < width(self.y.dims)
        if backwards is (inputs is None):
            x = tf.reverse(x, [0])
        if not backwards:
            dy = tf.reverse(dy, [0])
        steps = Symbol("steps")
        xs, dys = Tensor(x, (steps, *self.x.dims)), Tensor(dy, (steps, *self.y.dims))
        over = [dim for dim in xs.dims if dim not in self.weight.dims]
        result = masked(self.sizes, dot(self.sizes, xs, dys, over), self.masked_dims)
        return result.in_order(self.weight.dims)

    def _stacked(self, entries: tf.Tensor, like: Tensor) -> tf.Tensor:
        return tf.raw_ops.TensorListStack(
            input_handle=entries,
            element_shape=tf.convert_to_tensor(self.sizes.shape(like.dims), tf.int32),
            element_dtype=self.weight.dtype,
            num_elements=-1,
        )


def find_taps(sizes: Sizes, loop: Loop, outside: Callable[[Value], Tensor], again: bool = False) -> list[Tap]:
    """A tap for every large loop-invariant factor of a product in the body, or in one that is computed `again`."""
    invariant = set(loop.free_values())
    taps = []
    for node, alone in _products(loop):
        for value in dict.fromkeys(node.inputs):
            if value not in invariant or not value.type.is_float:
                continue
            weight = outside(value)
            if not sizes.is_outermost(weight) or width(weight.dims) < WORTHWHILE:
                continue
            constant = Tensor(
                weight.derived("constant", tf.stop_gradient), weight.dims, weight.zero_beyond, weight.finite
            )
            taps.append(Tap(node, weight, sizes, constant, again or alone))
    return taps


def _products(loop: Loop) -> Iterator[tuple[Node, bool]]:
    """The products of a body, and whether they are computed again."""
    for node in loop.body:
        again = isinstance(node.op, Recompute)
        for inner in node.op.body if isinstance(node.op, Recompute) else (node,):
            if inner.op.multiplies:
                yield inner, again


def empty_list(dtype: tf.DType) -> tf.Tensor:
    """A list of tensors without entries."""
    return tf.raw_ops.EmptyTensorList(element_shape=-1, max_num_elements=-1, element_dtype=dtype)


@dataclass(eq=False)
class LiveTap:
    """A tap in one step: the list that is carried, and the inputs so far. Of a product that is computed again,
    `pushes` says that it is being so: the first time it is a product of constants."""

    tap: Tap
    flow: tf.TensorArray
    inputs: tf.TensorArray
    pushes: bool = False
    used: bool = False


@dataclass(frozen=True)
class Taps:
    """The taps of the loop whose body is being traced, or written out where it stands. `is_local`: of dims whose length
    each step determines anew."""

    live: list[LiveTap]
    step: tf.Tensor
    is_local: Callable[[Dim], bool]
    is_written_out: bool = False

    def product(self, sizes: Sizes, node: Node, a: Tensor, b: Tensor, over: tuple[Dim, ...]) -> Tensor | None:
        """The product, if one operand has a tap; None otherwise."""
        for x, weight in ((a, b), (b, a)):
            for live in self.live:
                fits = live.tap.node is node and live.tap.weight is weight and not live.used
                varies = self.is_written_out or not sizes.is_outermost(x)
                if fits and varies and not any(map(self.is_local, x.dims)):
                    return self._tapped(sizes, live, x, over)
        return None

    @property
    def flows(self) -> list[tf.Tensor]:
        """The lists that are carried: of each tap that of the products' gradients, and that of the inputs."""
        return [flow for live in self.live for flow in (live.flow.flow, live.inputs.flow)]

    def of(self, nodes: Collection[Node]) -> Taps:
        """Those of the products of some nodes."""
        return replace(self, live=[live for live in self.live if live.tap.node in nodes])

    def carry(self, flows: Sequence[tf.Tensor]) -> None:
        """Says what the lists are from here on."""
        for live, flow, inputs in zip(self.live, flows[::2], flows[1::2], strict=True):
            live.flow, live.inputs = (tf.TensorArray(live.tap.weight.dtype, flow=one) for one in (flow, inputs))

    def pushing(self, flows: Sequence[tf.Tensor]) -> Taps:
        """The same where the products are computed again, with other lists."""
        again = replace(self, live=[replace(live, pushes=True, used=False) for live in self.live])
        again.carry(flows)
        return again

    def _tapped(self, sizes: Sizes, live: LiveTap, x: Tensor, over: tuple[Dim, ...]) -> Tensor:
        tap, live.used = live.tap, True
        x, weight = without_padding(sizes, x, tap.constant, over)
        if tap.again and not live.pushes:
            return dot(sizes, x, weight, over)
        y = multiplied_with(sizes, x, weight, over, live)
        tap.masked_dims = over if weight is not tap.constant else ()
        tap.x, tap.y = x, y
        if not tap.again:
            live.inputs = live.inputs.write(self.step, x.raw)
        return y


def multiplied_with(sizes: Sizes, x: Tensor, weight: Tensor, over: tuple[Dim, ...], live: LiveTap) -> Tensor:
    """x·W, where W gets no gradient, but the list that the loop carries gets the product's; and another one x, if that
    is computed again."""
    y = dot(sizes, x, weight, over)
    flows = [live.flow.flow, live.inputs.flow] if live.pushes else [live.flow.flow]

    def gradient(dy: tf.Tensor, *d_flows: tf.Tensor) -> list[tf.Tensor]:
        dx = dot(sizes, Tensor(dy, y.dims), weight, [dim for dim in weight.dims if dim not in x.dims])
        lists = zip(d_flows, (dy, x.raw), strict=False)
        pushed = [tf.raw_ops.TensorListPushBack(input_handle=flow, tensor=entry) for flow, entry in lists]
        return [dx.in_order(x.dims), *pushed]

    raw, *flows = with_gradient([y.raw, *flows], [x.raw, *flows], gradient)
    live.flow = tf.TensorArray(weight.dtype, flow=flows[0])
    if live.pushes:
        live.inputs = tf.TensorArray(weight.dtype, flow=flows[1])
    return Tensor(tf.ensure_shape(raw, y.raw.shape), y.dims, y.zero_beyond, y.finite)
