"""Recurrences as one kernel of cuDNN (Chetlur et al. 2014; Appleyard et al. 2016).

**Not tested on a GPU.** What goes into the kernel and what comes out of it is: against cuDNN's formulas, computed in
the kernel's place. cuDNN takes the frames first, the layers of a state before the sequences, no sequence of no frames,
and all weights in one vector (`rl.weights`); it gives zeros beyond a sequence's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrence import Step
from returnn_lite.ir.ops.recurrent_cells import LstmStep, ResetAfterGruStep, SimpleRnnStep
from returnn_lite.ir.ops.stacked_recurrence import Member, MemberOperands, StackedRecurrence
from returnn_lite.tf.context import Context
from returnn_lite.tf.layout import Tensor, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.product import multiplied
from returnn_lite.tf.sizes import Size
from returnn_lite.weights.cudnn import ORDERS

GATES: Mapping[str, str] = {"i": "input", "f": "forget", "o": "output", "j": "cell"} | {
    "r": "reset",
    "u": "update",
    "c": "candidate",
}
"""The gates by the letters of `order`."""


@dataclass(frozen=True)
class Frames:
    """The frames of a batch as cuDNN has them: [steps, rows, ..], of which a row has its `lengths` [rows]; at least one
    step, and one frame of each row. `batch` are the dims that are the rows."""

    over: Dim
    batch: tuple[Dim, ...]
    steps: Size
    rows: Size
    lengths: tf.Tensor

    def kernel_lengths(self) -> tf.Tensor:
        return tf.maximum(self.lengths, 1)

    def of(self, c: Context, x: Tensor, feature: Dim) -> tf.Tensor:
        """[steps, rows, feature], a frame of zeros if there is none."""
        raw = broadcast(c.sizes, x, (self.over, *self.batch, feature)).raw
        raw = tf.reshape(raw, [self.steps, self.rows, feature.size])
        return tf.pad(raw, [[0, tf.maximum(1 - self.steps, 0)], [0, 0], [0, 0]])

    def turned(self, raw: tf.Tensor) -> tf.Tensor:
        """The frames of each row from its last to its first; what is beyond stays."""
        return tf.reverse_sequence(raw, self.kernel_lengths(), seq_axis=0, batch_axis=1)


def stacked_recurrence(c: Context, op: StackedRecurrence, x: Tensor, *operands: Tensor) -> tuple[Tensor, ...]:
    """All outputs of the last layer, and the states of all members after their last step."""
    members, given = list(op.members), op.by_member(operands)
    frames = _frames(c, op, x, given)
    source = frames.of(c, x, op.source)
    alone = len(op.layers[0]) == 1
    if op.reverse:
        source = frames.turned(source)
    states = [_states(c, frames, members, given, at) for at in range(len(given[0].states))]
    output, *after = cudnn_rnn(
        members[0].kind.mode,
        alone,
        source,
        states,
        parameters(members, given),
        frames.kernel_lengths(),
        c.differentiable,
    )
    if op.reverse:
        output = frames.turned(output)
    hidden = [member.hidden for member in op.layers[-1]]
    outputs = tf.split(output[: frames.steps], len(hidden), -1)
    there = tf.reshape(frames.lengths > 0, [1, -1, 1])
    finals = [tf.where(there, new, old) for new, old in zip(after, states, strict=True)]
    shape = c.shape(frames.batch)
    found = [
        Tensor(tf.reshape(raw, [frames.steps, *shape, dim.size]), (op.over, *frames.batch, dim))
        for raw, dim in zip(outputs, hidden, strict=True)
    ]
    for i, member in enumerate(members):
        dim = member.hidden
        found += [Tensor(tf.reshape(final[i], [*shape, dim.size]), (*frames.batch, dim)) for final in finals]
    return tuple(found)


def cudnn_rnn(
    mode: str,
    alone: bool,
    source: tf.Tensor,
    states: Sequence[tf.Tensor],
    weights: tf.Tensor,
    lengths: tf.Tensor,
    training: bool,
) -> list[tf.Tensor]:
    """The kernel: outputs [steps, rows, directions * hidden], and as many final states as there are `states`, each
    [layers * directions, rows, hidden]. `alone`: in one direction."""
    found = tf.raw_ops.CudnnRNNV3(
        input=source,
        input_h=states[0],
        input_c=states[1] if len(states) > 1 else tf.zeros([], source.dtype),
        params=weights,
        sequence_lengths=lengths,
        rnn_mode=mode,
        direction="unidirectional" if alone else "bidirectional",
        is_training=training,
        time_major=True,
    )
    return [found.output, found.output_h, found.output_c][: 1 + len(states)]


def _frames(c: Context, op: StackedRecurrence, x: Tensor, given: Sequence[MemberOperands[Tensor]]) -> Frames:
    hidden = {member.hidden for member in op.members}
    layout = common_layout([x, *(state for own in given for state in own.states)])
    batch = tuple(dim for dim in layout if dim not in hidden and dim not in (op.over, op.source))
    rows = multiplied(c.shape(batch))
    lengths = broadcast(c.sizes, c.sizes.lengths(op.over), batch).raw
    return Frames(op.over, batch, c.size(op.over), rows, tf.reshape(lengths, [rows]))


def _states(
    c: Context, frames: Frames, members: Sequence[Member], given: Sequence[MemberOperands[Tensor]], at: int
) -> tf.Tensor:
    """The states before the first step, of all members."""
    each = [
        tf.reshape(
            broadcast(c.sizes, own.states[at], (*frames.batch, member.hidden)).raw, [frames.rows, member.hidden.size]
        )
        for member, own in zip(members, given, strict=True)
    ]
    return tf.stack(each)


def parameters(members: Sequence[Member], given: Sequence[MemberOperands[Tensor]]) -> tf.Tensor:
    """All weights in cuDNN's vector: of each member its matrices, transposed, those of x before those of h; then the
    biases, in the same order."""
    matrices: list[tf.Tensor] = []
    biases: list[tf.Tensor] = []
    for member, own in zip(members, given, strict=True):
        of_x, of_h, bias, bias_h = _weights(member, own)
        matrices += [*_by_gate(member.step, of_x), *_by_gate(member.step, of_h)]
        biases += [*_by_gate(member.step, bias), *_by_gate(member.step, bias_h, forget=True)]
    return tf.concat([tf.reshape(tf.transpose(one), [-1]) for one in (*matrices, *biases)], 0)


def _weights(member: Member, own: MemberOperands[Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The matrices of x and of h, and a bias for each."""
    (gates,) = (dim for dim in own.input_weights.dims if dim is not member.rows)
    of_h, *biases = own.weights
    (rows,) = (dim for dim in of_h.dims if dim is not gates)
    bias, *others = (tf.broadcast_to(one.aligned((gates,)), [gates.size]) for one in (own.bias, *biases))
    bias_h = others[0] if others else tf.zeros_like(bias)
    return own.input_weights.in_order((member.rows, gates)), of_h.in_order((rows, gates)), bias, bias_h


def _by_gate(step: Step, raw: tf.Tensor, forget: bool = False) -> Iterator[tf.Tensor]:
    """The blocks of a matrix or a bias, in cuDNN's order; with what is added to the forget gate at run time."""
    if isinstance(step, SimpleRnnStep):
        yield raw
        return
    assert isinstance(step, LstmStep | ResetAfterGruStep)
    order = step.cell.order
    blocks = dict(zip((GATES[name] for name in order), tf.split(raw, len(order), -1), strict=True))
    if forget and isinstance(step, LstmStep) and step.cell.forget_bias:
        blocks["forget"] = blocks["forget"] + tf.cast(step.cell.forget_bias, raw.dtype)
    yield from (blocks[gate] for gate in ORDERS["lstm" if isinstance(step, LstmStep) else "gru"])
