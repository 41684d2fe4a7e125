"""Which frames take part where a primitive works along a dim: the real ones, of each sequence its own.

What is the same for all sequences has no batch dim, but along a dim whose length differs from sequence to sequence it
is as if each had its own. And over the batch only those sequences take part that are there: in a step of a loop those
that have not ended before, under a mask those at which it is true, at a frame of another dim those that have the frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from returnn_lite.dims import Dim, DimError, DimKind, TensorType
from returnn_lite.dims.dim import Product
from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.op import InLoop, Op
from returnn_lite.ir.ops.among import Among
from returnn_lite.ir.values import Clock, Value
from returnn_lite.ir.views import View, view_of


class RealFrames(Expressions, ABC):
    """Expressions in which only real frames take part. A subclass has the place in the loops where nodes are added."""

    @abstractmethod
    def emit_exactly(self, op: Op, *inputs: Value) -> tuple[View, ...]:
        """The results of just this primitive; `emit` has those see real frames only."""

    @property
    @abstractmethod
    def loops(self) -> tuple[Dim, ...]:
        """The dims of the open loops, the outermost first."""

    @property
    @abstractmethod
    def clock(self) -> Clock:
        """The masks under which nodes are being added."""

    @abstractmethod
    def on_every_step(self) -> AbstractContextManager[None]:
        """Nodes added inside the context run at every step of the innermost loop, whatever masks there are."""

    @abstractmethod
    def ended_before(self, batch: Dim) -> list[View]:
        """For each open loop in which sequences of a batch may end, whether they had before this step."""

    @abstractmethod
    def lengths_over(self, dim: Dim) -> tuple[Dim, ...]:
        """The dims that a dim's length varies over."""

    def emit(self, op: Op, *inputs: Value) -> tuple[View, ...]:
        return _of_real_frames(self, op, tuple(map(view_of, inputs)))


def _of_real_frames(b: RealFrames, op: Op, inputs: tuple[View, ...]) -> tuple[View, ...]:
    """The results of a primitive along dims, some of which may have frames that are not real."""
    along = _dynamic_along(op, inputs)
    if not along or not inputs:
        return b.emit_exactly(op, *inputs)
    while (complete := _with_lengths(b, op, inputs)) != inputs:  # what is new may have lengths itself
        inputs, along = complete, _dynamic_along(op, complete)
    batch = next((dim for dim in along if dim.kind is DimKind.BATCH), None)
    if batch is None or op.in_loop is InLoop.WHOLE_AXIS:
        return b.emit_exactly(op, *inputs)
    clock = b.clock
    with b.on_every_step():
        absent = _who_is_absent(b, clock, batch, along, inputs)
        if absent is None:
            return b.emit_exactly(op, *inputs)
        if not any(batch in x.type for x in inputs):
            inputs = (b.expand(inputs[0], batch), *inputs[1:])
        return b.emit_exactly(Among(op, batch), absent, *inputs)


def _dynamic_along(op: Op, inputs: Sequence[View]) -> tuple[Dim, ...]:
    return tuple(dim for dim in op.along(*(x.type for x in inputs)) if dim.size is None)


def _with_lengths(b: RealFrames, op: Op, inputs: tuple[View, ...]) -> tuple[View, ...]:
    """The operands with the dims that lengths vary over, but for those of open loops: a step is one frame."""
    loops = b.loops
    lacking = lacking_lengths(
        op, [x.type for x in inputs], lambda dim: [over for over in b.lengths_over(dim) if over not in loops]
    )
    return tuple(_of_each(b, x, dims) for x, dims in zip(inputs, lacking, strict=True))


def lacking_lengths(
    op: Op, types: Sequence[TensorType], lengths_over: Callable[[Dim], Iterable[Dim]]
) -> list[tuple[Dim, ...]]:
    """For each operand the dims that it lacks, of those that the lengths of dims vary over which the primitive works
    along."""
    lacking: list[dict[Dim, None]] = [{} for _ in types]
    along = [] if op.causal else [dim for dim in op.along(*types) if dim.size is None]
    for dim in along:
        needed = [over for over in lengths_over(dim) if over not in along]
        if op.shares_lengths:
            needed = [over for over in needed if not any(over in x for x in types)]
        holders = [i for i, x in enumerate(types) if dim in x] or [0]
        for i in [len(types) - 1] if op.shares_lengths else holders:
            lacking[i] |= dict.fromkeys(over for over in needed if over not in types[i])
    return [tuple(dims) for dims in lacking]


def _of_each(b: RealFrames, x: View, dims: Sequence[Dim]) -> View:
    """x repeated along those of the dims that it lacks, declared first, as a batch is."""
    expanded = b.expand(x, *dims)
    return b.reorder(expanded, x.type.dims)


def _who_is_absent(
    b: RealFrames, clock: Clock, batch: Dim, along: Sequence[Dim], inputs: Sequence[View]
) -> View | None:
    """Where a sequence takes no part under the masks of a clock [batch, ..]; None if all do.

    What is merged with the batch is absent with its sequence.
    """
    sequences = _sequences_of(batch)
    merged = sequences is not batch
    if (merged and clock) or sequences.operands():
        plain = [dim for dim in batch.leaves if dim.kind is DimKind.BATCH]
        if clock or any(b.ended_before(dim) for dim in plain):
            raise DimError(
                "in a step of a loop there are only the sequences that have not ended, and which frames of "
                f"{batch} are theirs is not known: compute it along the batch, before that is merged with others"
            )
    parts = [*b.ended_before(sequences), *(b.unary("logical_not", view_of(mask.value)) for mask in clock)]
    dims = dict.fromkeys(dim for x in inputs for dim in x.type.dims if dim not in along and dim.size is None)
    ragged = [dim for dim in dims if sequences in b.lengths_over(dim)]
    if not parts and not ragged:
        return None
    if merged:  # that frames are padding no longer shows in their lengths
        parts += [b.binary("greater_equal", b.iota(dim), b.length(dim)) for dim in ragged]
    absent = parts[0] if parts else b.constant(False, "bool")
    for part in parts[1:]:
        absent = b.binary("logical_or", absent, part)
    loops = b.loops
    told = [over for dim in ragged for over in b.lengths_over(dim) if over not in loops]
    absent = b.expand(absent, *dict.fromkeys((sequences, *told, *ragged)))
    return b.merge_dims(b.expand(absent, *batch.operands()), batch.operands(), batch) if merged else absent


def _sequences_of(batch: Dim) -> Dim:
    """The batch dim that has been merged with static dims into this one; itself if none has."""
    dynamic = [dim for dim in batch.factors if dim.size is None] if isinstance(batch, Product) else []
    return dynamic[0] if len(dynamic) == 1 and dynamic[0].kind is DimKind.BATCH else batch
