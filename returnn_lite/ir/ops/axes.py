"""Primitives that change dims but hardly values: expand, merge, split, pad, window, relabel."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType
from returnn_lite.ir.op import InLoop, Op


@dataclass(frozen=True)
class Expand(Op):
    """The operand repeated along new dims."""

    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()
    dims: tuple[Dim, ...]

    def type_of(self, x: TensorType) -> TensorType:
        return x.with_dims(*self.dims)


@dataclass(frozen=True)
class Squeeze(Op):
    """The operand without a dim of size 1."""

    is_view: ClassVar[bool] = True
    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()
    dim: Dim

    def type_of(self, x: TensorType) -> TensorType:
        if self.dim.size != 1:
            raise DimError(f"squeeze: {self.dim} of {x} is not of size 1")
        return x.without(self.dim)


@dataclass(frozen=True)
class Relabel(Op):
    """The operand with the dim `old` under the name `new`: the declaration that both are one.

    Where it can't be proved, lengths are compared at run time; `reason` names both sides in the message.
    """

    is_view: ClassVar[bool] = True
    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()
    old: Dim
    new: Dim
    reason: str = ""

    def attributes(self) -> dict[str, object]:
        return {"old": self.old, "new": self.new}

    def type_of(self, x: TensorType) -> TensorType:
        if self.old.size is not None and self.new.size is not None and self.old.size != self.new.size:
            raise DimError(f"{self.old} and {self.new} differ in size{': ' if self.reason else ''}{self.reason}")
        return x.require(self.old).renamed({self.old: self.new})

    def renamed_dims(self) -> tuple[tuple[Dim, Dim], ...]:
        return ((self.new, self.old),)

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset(dim for dim in (*self.old.leaves, self.old) if dim.size is None)


@dataclass(frozen=True)
class MergeDims(Op):
    """The dims merged into `out`, the first of `dims` varying slowest. Ragged dims are merged per sequence.

    One ragged dim may be merged if it comes first; several are merged over their padded sizes, and so is the batch
    dim.
    """

    is_view: ClassVar[bool] = True
    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ()
    dims: tuple[Dim, ...]
    out: Dim

    def type_of(self, x: TensorType) -> TensorType:
        sizes = [dim.size for dim in self.dims if dim.size is not None]
        if len(sizes) == len(self.dims) and self.out.size not in (None, prod(sizes)):
            raise DimError(f"{', '.join(map(str, self.dims))} do not make {self.out}")
        x.require(*self.dims)
        position = min(x.dims.index(dim) for dim in self.dims)
        dims = [dim for dim in x.dims if dim not in self.dims]
        dims.insert(position, self.out)
        return x.of_dims(tuple(dims))


@dataclass(frozen=True)
class SplitDim(Op):
    """A dim split into `outs`, the first varying slowest; what is missing at the end is filled with `pad_value`.

    Dynamic dims: one of `outs` may be dynamic, with length ceildiv(length, product of the others), if those before it
    are of size 1.
    """

    is_view: ClassVar[bool] = True
    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ("dim",)
    dim: Dim
    outs: tuple[Dim, ...]
    pad_value: float = 0.0

    def type_of(self, x: TensorType) -> TensorType:
        sizes = [dim.size for dim in self.outs if dim.size is not None]
        if self.dim.size is not None and len(sizes) == len(self.outs) and prod(sizes) < self.dim.size:
            raise DimError(f"{self.dim} does not fit into {', '.join(map(str, self.outs))}")
        long = [dim for dim in self.outs if dim.size != 1]
        dynamic = [dim for dim in long if dim.is_dynamic]
        if dynamic not in ([], long[:1]):
            raise DimError(f"of {', '.join(map(str, self.outs))} only the first longer than 1 may be dynamic")
        position = x.require(self.dim).dims.index(self.dim)
        return x.of_dims((*x.dims[:position], *self.outs, *x.dims[position + 1 :]))


@dataclass(frozen=True)
class Pad(Op):
    """`left` and `right` frames added along `over`, giving `out`; the right ones at each sequence's own end.

    `mode`: "constant" (with `value`), "reflect", "symmetric", "replication".
    """

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    out: Dim
    left: int
    right: int
    mode: str = "constant"
    value: float = 0.0

    def type_of(self, x: TensorType) -> TensorType:
        if self.mode not in ("constant", "reflect", "symmetric", "replication"):
            raise DimError(f"there is no padding mode {self.mode!r}")
        return x.require(self.over).renamed({self.over: self.out})


@dataclass(frozen=True)
class Window(Op):
    """Frame t becomes frames t*stride-left ... along the new static dim `window`, zero outside the sequence; `over`
    becomes `out`."""

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    out: Dim
    window: Dim
    left: int
    stride: int = 1

    def type_of(self, x: TensorType) -> TensorType:
        position = x.require(self.over).dims.index(self.over)
        renamed = x.renamed({self.over: self.out})
        return renamed.of_dims((*renamed.dims[: position + 1], self.window, *renamed.dims[position + 1 :]))


@dataclass(frozen=True)
class WindowOfSteps(Op):
    """In a loop body only: x at the steps around this one along the new static dim `window`, which begins `left` steps
    before; zero where there is no such step. It looks ahead, so that it needs all steps."""

    in_loop: ClassVar[InLoop] = InLoop.WHOLE_AXIS
    works_along: ClassVar[tuple[str, ...]] = ()
    window: Dim
    left: int

    def type_of(self, x: TensorType) -> TensorType:
        return x.with_dims(self.window)

    def vectorize(self, over: Dim) -> Op:
        return Window(over, over, self.window, self.left)


@dataclass(frozen=True)
class AllSteps(Op):
    """In a loop body only: x at all steps, along `frames`, which has as many as the loop has steps."""

    in_loop: ClassVar[InLoop] = InLoop.WHOLE_AXIS
    gives_each_step_its_own: ClassVar[bool] = False
    works_along: ClassVar[tuple[str, ...]] = ()
    frames: Dim

    def type_of(self, x: TensorType) -> TensorType:
        return x.with_dims(self.frames)

    def measured_dims(self) -> frozenset[Dim]:
        return frozenset()  # there are as many frames as the loop has steps

    def vectorize(self, over: Dim) -> Op:
        return Relabel(over, self.frames)


@dataclass(frozen=True)
class Reverse(Op):
    """Each sequence backwards along `over`, over its real length."""

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim

    def type_of(self, x: TensorType) -> TensorType:
        return x.require(self.over)


@dataclass(frozen=True)
class ShiftFrames(Op):
    """Frame t gets frame t - amount along `over` (so amount > 0 delays), `value` where there is none; gives `out`.

    `out` may be longer or shorter than `over`; frames beyond a sequence's own length count as missing.
    """

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    out: Dim
    amount: int
    value: float = 0.0

    def type_of(self, x: TensorType) -> TensorType:
        return x.require(self.over).renamed({self.over: self.out})

    @property
    def causal(self) -> bool:
        return self.amount >= 0 and self.out == self.over


@dataclass(frozen=True)
class MaskFrames(Op):
    """The operand with `value` beyond each sequence's length along `over`: makes padding visible to what follows on
    purpose."""

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    value: float

    def type_of(self, x: TensorType) -> TensorType:
        return x.require(self.over)
