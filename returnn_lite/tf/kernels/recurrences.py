"""Recurrences over whole sequences, with a backward loop of their own.

TensorFlow's gradient of a loop adds to the gradient of a weight at each step. Here the backward loop leaves the
gradients of the inputs of all steps, from which one product after the loop makes the gradient of each weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.tf.context import Context
from returnn_lite.tf.gradient_rules import with_gradient
from returnn_lite.tf.layout import Tensor, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.product import multiplied
from returnn_lite.tf.sizes import Size
from returnn_lite.tf.stacks import stack

Tensors = list[tf.Tensor]


@dataclass(frozen=True)
class Kernel:
    """The arithmetic of a recurrence on [sequences, features].

    `forward`: inputs and states of a step to the next states and what `backward` needs, whose widths are `kept`.
    `backward`: that, and the gradients of the next states, to the gradients of inputs and states.
    `weight_gradients`: a function that stacks what forward kept at a position, one of `factors`, to [steps * sequences,
    features], and the gradients of the inputs in that form, to the gradients of the weights.
    """

    kept: tuple[int, ...]
    factors: tuple[int, ...]
    forward: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
    backward: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
    weight_gradients: Callable[[Callable[[int], tf.Tensor], Tensors], Tensors]


@dataclass(frozen=True)
class Operand:
    """An input or a state with its feature dim; every other dim is the recurrence's or a batch dim."""

    tensor: Tensor
    feature: Dim


@dataclass(frozen=True)
class Sequences:
    """A recurrence to run: from each sequence's end with `reverse`. `wanted` says which states' stacks are used."""

    over: Dim
    reverse: bool
    inputs: Sequence[Operand]
    states: Sequence[Operand]
    weights: Sequence[tf.Tensor]
    kernel: Callable[[Sequence[tf.Tensor]], Kernel]
    wanted: Sequence[bool]


def run(c: Context, sequences: Sequences) -> list[Tensor]:
    """The states after each frame, for each state a stack [over, batch.., feature]."""
    over = sequences.over
    operands = [*sequences.inputs, *sequences.states]
    features = {operand.feature for operand in operands}
    layout = common_layout([operand.tensor for operand in operands])
    batch = tuple(dim for dim in layout if dim not in features and dim is not over)
    rows, steps = multiplied(c.shape(batch)), c.size(over)
    inputs = [_flat(c, x, (over, *batch), [steps, rows]) for x in sequences.inputs]
    states = [_flat(c, x, batch, [rows]) for x in sequences.states]
    mask = None
    if sequences.reverse and c.sizes.has_padding(over):
        frames = broadcast(c.sizes, c.sizes.mask(over), (over, *batch)).raw
        mask = tf.reshape(frames, [steps, rows, 1])
    direction = Direction(steps, sequences.reverse, mask)
    kept = c.kept_results()
    if c.forgets:
        stacks, _ = _forward(sequences.kernel(sequences.weights), direction, inputs, states, keep=False)
    elif kept is not None:
        again = [
            _flat(c, Operand(x, s.feature), (over, *batch), [steps, rows])
            for x, s in zip(kept, sequences.states, strict=True)
        ]
        stacks = _from_states(sequences, direction, inputs, states, again)
    else:
        stacks = _differentiable(sequences, direction, inputs, states)
    return [
        Tensor(tf.reshape(raw, [steps, *c.shape(batch), state.feature.size]), (over, *batch, state.feature))
        for raw, state in zip(stacks, sequences.states, strict=True)
    ]


def _flat(c: Context, operand: Operand, dims: tuple[Dim, ...], shape: list[Size]) -> tf.Tensor:
    raw = broadcast(c.sizes, operand.tensor, (*dims, operand.feature)).raw
    return tf.reshape(raw, [*shape, operand.feature.size])


def _differentiable(sequences: Sequences, direction: Direction, inputs: Tensors, states: Tensors) -> Tensors:
    """The stacks of states, with their gradient."""
    kernel = sequences.kernel(sequences.weights)
    stacks, kept = _forward(kernel, direction, inputs, states)

    def saved(t: tf.Tensor) -> Tensors:
        return [tf.ensure_shape(array.read(t), [None, width]) for array, width in zip(kept, kernel.kept, strict=True)]

    def gradient(*upstream: tf.Tensor) -> Tensors:
        return _backward(kernel, direction, inputs, states, saved, kept, _wanted(sequences, upstream))

    return with_gradient(stacks, [*inputs, *states, *sequences.weights], gradient)


def _from_states(
    sequences: Sequences, direction: Direction, inputs: Tensors, initial: Tensors, stacks: Tensors
) -> Tensors:
    """The stacks of states, which are known, with a gradient that computes again what steps make between two states.

    That is done step by step, in the backward loop, by the same operations as forwards: so the gradient is the same to
    the last bit, and there is never more of it than of one step.
    """
    kernel = sequences.kernel(sequences.weights)

    def saved(t: tf.Tensor) -> Tensors:
        before = [direction.before(t, stack, first) for stack, first in zip(stacks, initial, strict=True)]
        return kernel.forward([x[t] for x in inputs], before)[1]

    def gradient(*upstream: tf.Tensor) -> Tensors:
        return _backward(kernel, direction, inputs, initial, saved, None, _wanted(sequences, upstream))

    return with_gradient(stacks, [*inputs, *initial, *sequences.weights], gradient)


def _wanted(sequences: Sequences, upstream: Sequence[tf.Tensor]) -> list[tf.Tensor | None]:
    """The gradients of the stacks that are used."""
    return [d if used else None for d, used in zip(upstream, sequences.wanted, strict=True)]


@dataclass(frozen=True)
class Direction:
    """The order of steps. Where `mask` is False the states stay as they are."""

    steps: Size
    reverse: bool
    mask: tf.Tensor | None

    def frame(self, i: tf.Tensor) -> tf.Tensor:
        """The frame of step i."""
        return self.steps - 1 - i if self.reverse else i

    def back(self, i: tf.Tensor) -> tf.Tensor:
        """The frame of step i of the backward loop."""
        return i if self.reverse else self.steps - 1 - i

    def before(self, t: tf.Tensor, stack: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        """The state before frame t, where `stack` has those after each frame and `first` is the first of all."""
        last = self.steps - 1
        begins = tf.equal(t, last if self.reverse else 0)
        return tf.where(begins, first, stack[tf.minimum(t + 1, last) if self.reverse else tf.maximum(t - 1, 0)])


def _loop(
    steps: Size,
    step: Callable[[tf.Tensor, Tensors], tuple[Tensors, list[tuple[tf.Tensor, tf.Tensor]]]],
    states: Tensors,
    count: int,
) -> tuple[Tensors, list[tf.TensorArray]]:
    """Carries states over `steps` steps, each of which writes `count` entries, given with their frames, to arrays."""
    shapes = [state.shape for state in states]

    def body(i: tf.Tensor, current: Tensors, arrays: list[tf.TensorArray]) -> Any:
        new, entries = step(i, current)
        new = [tf.ensure_shape(state, shape) for state, shape in zip(new, shapes, strict=True)]
        return i + 1, new, [a.write(t, entry) for a, (t, entry) in zip(arrays, entries, strict=True)]

    arrays = [tf.TensorArray(states[0].dtype, steps, infer_shape=False, clear_after_read=False) for _ in range(count)]
    invariants = (tf.TensorShape([]), shapes, [tf.TensorShape(None)] * count)
    _, final, arrays = tf.while_loop(lambda i, *_: i < steps, body, (tf.constant(0), states, arrays), invariants)
    return final, arrays


def _forward(
    kernel: Kernel, direction: Direction, inputs: Tensors, initial: Tensors, keep: bool = True
) -> tuple[Tensors, list[tf.TensorArray]]:
    """The stacks of states, and for each step what the backward loop needs, if that is to be kept."""
    widths = kernel.kept if keep else ()

    def step(i: tf.Tensor, states: Tensors) -> tuple[Tensors, list[tuple[tf.Tensor, tf.Tensor]]]:
        t = direction.frame(i)
        new, kept = kernel.forward([x[t] for x in inputs], states)
        if direction.mask is not None:
            new = [tf.where(direction.mask[t], after, before) for after, before in zip(new, states, strict=True)]
        return new, [(t, entry) for entry in (*new, *kept[: len(widths)])]

    _, arrays = _loop(direction.steps, step, initial, len(initial) + len(widths))
    stacks = [_stacked(array, initial[0], state.shape[1]) for array, state in zip(arrays, initial, strict=False)]
    return stacks, arrays[len(initial) :]


def _backward(
    kernel: Kernel,
    direction: Direction,
    inputs: Tensors,
    initial: Tensors,
    saved: Callable[[tf.Tensor], Tensors],
    kept: list[tf.TensorArray] | None,
    upstream: list[tf.Tensor | None],
) -> Tensors:
    """The gradients of inputs, initial states and weights. `saved` is what `kernel.backward` needs of a frame, `kept`
    that of all frames, if it is at hand."""
    factors = kernel.factors if kept is None else ()

    def step(i: tf.Tensor, gradients: Tensors) -> tuple[Tensors, list[tuple[tf.Tensor, tf.Tensor]]]:
        t = direction.back(i)
        needed = saved(t)
        own = [(t, needed[position]) for position in factors]
        total = [d if up is None else d + up[t] for d, up in zip(gradients, upstream, strict=True)]
        if direction.mask is None:
            d_inputs, d_states = kernel.backward(needed, total)
            return d_states, [*((t, entry) for entry in d_inputs), *own]
        real = direction.mask[t]
        d_inputs, d_states = kernel.backward(needed, [tf.where(real, d, tf.zeros_like(d)) for d in total])
        held = [tf.where(real, tf.zeros_like(d), d) for d in total]
        return [d + h for d, h in zip(d_states, held, strict=True)], [*((t, entry) for entry in d_inputs), *own]

    start = [tf.zeros_like(state) for state in initial]
    d_initial, arrays = _loop(direction.steps, step, start, len(inputs) + len(factors))
    d_inputs = [_stacked(array, initial[0], x.shape[-1]) for array, x in zip(arrays, inputs, strict=False)]
    made = dict(zip(factors, arrays[len(inputs) :], strict=True))

    def all_steps(position: int) -> tf.Tensor:
        width = kernel.kept[position]
        array = made[position] if kept is None else kept[position]
        return tf.reshape(_stacked(array, initial[0], width), [-1, width])

    d_weights = kernel.weight_gradients(all_steps, [tf.reshape(d, [-1, d.shape[-1]]) for d in d_inputs])
    return [*d_inputs, *d_initial, *d_weights]


def _stacked(array: tf.TensorArray, like: tf.Tensor, width: int) -> tf.Tensor:
    """The entries [sequences, width] of all steps."""
    return tf.ensure_shape(stack(array, like.dtype, [tf.shape(like)[0], width]), [None, like.shape[0], width])
