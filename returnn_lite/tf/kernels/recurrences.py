"""Recurrences over whole sequences, with a backward loop of their own.

TensorFlow's gradient of a loop adds to the gradient of a weight at each step. Here the backward loop leaves the
gradients of the inputs of all steps, from which one product after the loop makes the gradient of each weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.tf.context import Context
from returnn_lite.tf.gradient_rules import with_gradient
from returnn_lite.tf.layout import Tensor, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.product import multiplied
from returnn_lite.tf.rounds import Rounds, is_written_out
from returnn_lite.tf.sizes import Size
from returnn_lite.tf.stacks import stack

Tensors = list[tf.Tensor]


@dataclass(frozen=True)
class Kernel:
    """The arithmetic of a recurrence on [sequences, features].

    `forward`: inputs and states of a step to the next states and what `backward` needs, whose widths are `kept`.
    `backward`: that, and the gradients of the next states, to the gradients of inputs and states.
    `weight_gradients`: a function that stacks what forward kept at a position to [steps * sequences, features], and
    the gradients of the inputs in that form, to the gradients of the weights. `factors` has the positions that it asks
    for, with the number of the state that is kept there, if one is.
    """

    kept: tuple[int, ...]
    factors: Mapping[int, int | None]
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
    """A recurrence to run: from each sequence's end with `reverse`, and with `unroll` as of a Loop. `wanted` says which
    states' stacks are used."""

    over: Dim
    reverse: bool
    inputs: Sequence[Operand]
    states: Sequence[Operand]
    weights: Sequence[tf.Tensor]
    kernel: Callable[[Sequence[tf.Tensor]], Kernel]
    wanted: Sequence[bool]
    unroll: int = 1


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
    direction = Direction(steps, sequences.reverse, mask, sequences.unroll)
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

    def frame(t: Size) -> Tensors:
        return [tf.ensure_shape(array.read(t), [None, width]) for array, width in zip(kept, kernel.kept, strict=True)]

    def whole(position: int) -> tf.Tensor:
        return _stacked(kept[position], states[0], kernel.kept[position])

    def gradient(*upstream: tf.Tensor) -> Tensors:
        saved = Saved(lambda first, end: frame, whole, None)
        return _backward(kernel, direction, inputs, states, saved, _wanted(sequences, upstream))

    return with_gradient(stacks, [*inputs, *states, *sequences.weights], gradient)


def _from_states(
    sequences: Sequences, direction: Direction, inputs: Tensors, initial: Tensors, stacks: Tensors
) -> Tensors:
    """The stacks of states, which are known, with a gradient that computes again what steps make between two states.

    That is done in the backward loop, for a few steps at once, by the operations of the forward loop.
    """
    kernel = sequences.kernel(sequences.weights)

    def saved(first: Size, end: Size) -> Callable[[Size], Tensors]:
        low, high = direction.frames(first, end)
        before = [direction.before(low, high, stack, init) for stack, init in zip(stacks, initial, strict=True)]
        rows = [tf.reshape(x, [-1, x.shape[-1]]) for x in (*(x[low:high] for x in inputs), *before)]
        _, kept = kernel.forward(rows[: len(inputs)], rows[len(inputs) :])
        frames = [tf.reshape(x, [high - low, -1, width]) for x, width in zip(kept, kernel.kept, strict=True)]
        return lambda t: [x[t - low] for x in frames]

    def whole(position: int) -> tf.Tensor | None:
        state = kernel.factors[position]
        return None if state is None else direction.before(0, direction.steps, stacks[state], initial[state])

    def gradient(*upstream: tf.Tensor) -> Tensors:
        wanted = _wanted(sequences, upstream)
        return _backward(kernel, direction, inputs, initial, Saved(saved, whole, AT_ONCE), wanted)

    return with_gradient(stacks, [*inputs, *initial, *sequences.weights], gradient)


def _wanted(sequences: Sequences, upstream: Sequence[tf.Tensor]) -> list[tf.Tensor | None]:
    """The gradients of the stacks that are used."""
    return [d if used else None for d, used in zip(upstream, sequences.wanted, strict=True)]


@dataclass(frozen=True)
class Direction:
    """The order of steps, of which so many are written out in a round as `unroll` says. Where `mask` is False the
    states stay as they are."""

    steps: Size
    reverse: bool
    mask: tf.Tensor | None
    unroll: int

    def frame(self, i: Size) -> Size:
        """The frame of step i."""
        return self.steps - 1 - i if self.reverse else i

    def back(self, i: Size) -> Size:
        """The frame of step i of the backward loop."""
        return i if self.reverse else self.steps - 1 - i

    def frames(self, first: Size, end: Size) -> tuple[Size, Size]:
        """The first of the frames of some steps of the backward loop, and the one behind the last."""
        return (first, end) if self.reverse else (self.steps - end, self.steps - first)

    def before(self, low: Size, high: Size, stack: tf.Tensor, init: tf.Tensor) -> tf.Tensor:
        """The states before frames low to high, where `stack` has those after each frame, and `init` is the first."""
        if self.reverse:
            place = tf.minimum(high, self.steps - 1)
            last = tf.where(tf.equal(high, self.steps), init[None], stack[place : place + 1])  # none without steps
            return tf.concat([stack[low + 1 : high], last], 0)
        place = tf.maximum(low - 1, 0)
        first = tf.where(tf.equal(low, 0), init[None], stack[place : place + 1])
        return tf.concat([first, stack[low : high - 1]], 0)


AT_ONCE = 8
"""Steps that are computed again at once: products of so many rows run nearly as fast as those of all."""


@dataclass(frozen=True)
class Saved:
    """What the backward loop reads: a function of some of its steps that gives what `Kernel.backward` needs of each of
    their frames; that of all frames at a position, None where only the loop knows; and how many steps are prepared at
    once, by default all."""

    steps: Callable[[Size, Size], Callable[[Size], Tensors]]
    whole: Callable[[int], tf.Tensor | None]
    at_once: int | None


Entries = list[tuple[Size, tf.Tensor]]
"""What a step writes, with the frames that it is of."""
Step = Callable[[Size, Tensors], tuple[Tensors, Entries]]


def _arrays(dtype: tf.DType, steps: Size, count: int) -> list[tf.TensorArray]:
    return [tf.TensorArray(dtype, steps, infer_shape=False, clear_after_read=False) for _ in range(count)]


def _loop(
    first: Size, end: Size, step: Step, states: Tensors, arrays: list[tf.TensorArray], unroll: int
) -> tuple[Tensors, list[tf.TensorArray]]:
    """Carries states over steps, each of which writes an entry to each array."""

    def body(i: Size, current: Tensors, arrays: list[tf.TensorArray]) -> Any:
        new, entries = step(i, current)
        return i + 1, _like(new, states), [a.write(t, entry) for a, (t, entry) in zip(arrays, entries, strict=True)]

    return _carried(Rounds(body, end, unroll), first, states, arrays)


def _carried(
    rounds: Rounds, first: Size, states: Tensors, arrays: list[tf.TensorArray]
) -> tuple[Tensors, list[tf.TensorArray]]:
    invariants = (tf.TensorShape([]), [state.shape for state in states], [tf.TensorShape(None)] * len(arrays))
    _, final, arrays = rounds.run((first, states, arrays), invariants)
    return final, arrays


def _like(tensors: Tensors, others: Tensors) -> Tensors:
    return [tf.ensure_shape(tensor, other.shape) for tensor, other in zip(tensors, others, strict=True)]


def _forward(
    kernel: Kernel, direction: Direction, inputs: Tensors, initial: Tensors, keep: bool = True
) -> tuple[Tensors, list[tf.TensorArray]]:
    """The stacks of states, and for each step what the backward loop needs, if that is to be kept."""
    widths = kernel.kept if keep else ()

    def step(i: Size, states: Tensors) -> tuple[Tensors, Entries]:
        t = direction.frame(i)
        new, kept = kernel.forward([x[t] for x in inputs], states)
        if direction.mask is not None:
            new = [tf.where(direction.mask[t], after, before) for after, before in zip(new, states, strict=True)]
        return new, [(t, entry) for entry in (*new, *kept[: len(widths)])]

    arrays = _arrays(initial[0].dtype, direction.steps, len(initial) + len(widths))
    _, arrays = _loop(0, direction.steps, step, initial, arrays, direction.unroll)
    stacks = [_stacked(array, initial[0], state.shape[1]) for array, state in zip(arrays, initial, strict=False)]
    return stacks, arrays[len(initial) :]


def _backward(
    kernel: Kernel,
    direction: Direction,
    inputs: Tensors,
    initial: Tensors,
    saved: Saved,
    upstream: list[tf.Tensor | None],
) -> Tensors:
    """The gradients of inputs, initial states and weights."""
    wholes = {position: saved.whole(position) for position in kernel.factors}
    written = [position for position, whole in wholes.items() if whole is None]

    def gradients(needed: Tensors, t: Size, after: Tensors) -> tuple[Tensors, Tensors]:
        total = [d if up is None else d + up[t] for d, up in zip(after, upstream, strict=True)]
        if direction.mask is None:
            return kernel.backward(needed, total)
        real = direction.mask[t]
        d_inputs, d_states = kernel.backward(needed, [tf.where(real, d, tf.zeros_like(d)) for d in total])
        held = [tf.where(real, tf.zeros_like(d), d) for d in total]
        return d_inputs, [d + h for d, h in zip(d_states, held, strict=True)]

    def steps(first: Size, end: Size, after: Tensors, arrays: list[tf.TensorArray]) -> Any:
        frame = saved.steps(first, end)

        def step(i: Size, after: Tensors) -> tuple[Tensors, Entries]:
            t = direction.back(i)
            needed = frame(t)
            d_inputs, d_states = gradients(needed, t, after)
            return d_states, [(t, entry) for entry in (*d_inputs, *(needed[position] for position in written))]

        return _loop(first, end, step, after, arrays, direction.unroll)

    def part(i: Size, after: Tensors, arrays: list[tf.TensorArray]) -> Any:
        assert saved.at_once is not None
        end = (min if isinstance(i, int) else tf.minimum)(i + saved.at_once, direction.steps)
        before, arrays = steps(i, end, after, arrays)
        return end, _like(before, initial), arrays

    start = [tf.zeros_like(state) for state in initial]
    arrays = _arrays(initial[0].dtype, direction.steps, len(inputs) + len(written))
    if saved.at_once is None:
        d_initial, arrays = steps(0, direction.steps, start, arrays)
    else:
        parts = Rounds(part, direction.steps, 0 if is_written_out(direction.unroll, direction.steps) else 1, ahead=1)
        d_initial, arrays = _carried(parts, 0, start, arrays)
    d_inputs = [_stacked(array, initial[0], x.shape[-1]) for array, x in zip(arrays, inputs, strict=False)]
    for position, array in zip(written, arrays[len(inputs) :], strict=True):
        wholes[position] = _stacked(array, initial[0], kernel.kept[position])
    d_weights = kernel.weight_gradients(
        lambda position: tf.reshape(wholes[position], [-1, kernel.kept[position]]),
        [tf.reshape(d, [-1, d.shape[-1]]) for d in d_inputs],
    )
    return [*d_inputs, *d_initial, *d_weights]


def _stacked(array: tf.TensorArray, like: tf.Tensor, width: int) -> tf.Tensor:
    """The entries [sequences, width] of all steps."""
    return tf.ensure_shape(stack(array, like.dtype, [tf.shape(like)[0], width]), [None, like.shape[0], width])
