"""Primitives that pick entries: gather, scatter, slices, concatenation, compression by a mask."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType, require_one_dtype
from returnn_lite.ir.kept import Kept
from returnn_lite.ir.op import Effect, Op


@dataclass(frozen=True)
class Gather(Op):
    """x at the indices of the second operand along `over`; dims that both share are batch dims.

    With `clip` an index out of range is moved to the nearest valid frame of its sequence (of an empty one the result
    is 0); else it must not be there.
    """

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    numbers_frames: ClassVar[bool] = True
    shares_lengths: ClassVar[bool] = True
    picks_from: ClassVar[tuple[int, ...]] = (0,)
    over: Dim
    clip: bool = False

    def indices(self) -> tuple[tuple[int, Dim, int | None], ...]:
        return () if self.clip else ((1, self.over, None),)

    def type_of(self, x: TensorType, index: TensorType) -> TensorType:
        index.require_dtype("int", f"gather over {self.over}")
        kept = x.without(self.over)
        new = tuple(dim for dim in index.dims if dim not in kept)
        dims: list[Dim] = []
        for dim in x.dims:
            dims += new if dim is self.over else (dim,)
        return TensorType(tuple(dims), x.dtype, x.sparse)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=(1,))


@dataclass(frozen=True)
class CheckIndex(Op):
    """The operand, which must number entries of `over` at every real frame, but not the one `but`; else running stops.
    If it is `held`, 0 may be what it was before there was anything.

    The pass `index_checks` makes these, of whole sequences, no layer does.
    """

    effect: ClassVar[Effect] = Effect.CHECK
    is_view: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ()
    picks_from: ClassVar[tuple[int, ...]] = (0,)
    over: Dim
    but: int | None = None
    held: bool = False

    def type_of(self, x: TensorType) -> TensorType:
        return x.require_dtype("int", "an index")


@dataclass(frozen=True)
class OneHot(Op):
    """1 at the operand's class along `dim`, else 0."""

    works_along: ClassVar[tuple[str, ...]] = ()
    dim: Dim
    dtype: str = "float32"

    def type_of(self, x: TensorType) -> TensorType:
        x.require_dtype("int", "one_hot")
        return TensorType((*x.dims, self.dim), self.dtype)


@dataclass(frozen=True)
class Slice(Op):
    """x[start::step] along `over`, giving `out`, whose length says where it ends; per sequence.

    A negative `step` starts at frame `start` from the end of each sequence and goes back.
    """

    picks_from: ClassVar[tuple[int, ...]] = (0,)
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    out: Dim
    start: int | Dim = 0
    step: int = 1

    @property
    def first(self) -> int:
        """The first frame. `start` may be a static dim, whose size is known once all types are."""
        if isinstance(self.start, int):
            return self.start
        if self.start.size is None:
            raise DimError(f"a slice can't start at {self.start}, whose size is not static")
        return self.start.size

    def type_of(self, x: TensorType) -> TensorType:
        return x.require(self.over).renamed({self.over: self.out})

    @property
    def causal(self) -> bool:
        return self.step > 0


@dataclass(frozen=True)
class SliceAt(Op):
    """A window of each sequence: frames start, start+1, ... along `over`, giving `out`; zero beyond the sequence's
    length.

    Operands: x, start, and the sizes (int) that become the length of `out` if it is dynamic.
    """

    picks_from: ClassVar[tuple[int, ...]] = (0,)
    length_at: ClassVar[int | None] = 2
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    numbers_frames: ClassVar[bool] = True
    over: Dim
    out: Dim

    def type_of(self, x: TensorType, start: TensorType, *size: TensorType) -> TensorType:
        for index in (start, *size):
            index.require_dtype("int", "slice_at")
        return x.require(self.over).renamed({self.over: self.out}).with_dims(*start.dims)

    def created_dims(self) -> tuple[Dim, ...]:
        return (self.out,) if self.out.is_dynamic and not self.out.operands() else ()


@dataclass(frozen=True)
class Scatter(Op):
    """Adds the frames of x along `over` up at the indices of the second operand, along the new dim `out`; elsewhere 0.

    Dims that x and the indices share besides `over` are batch dims. An index out of range is left out with
    `drop_invalid`; without, it must not be there.
    """

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: tuple[Dim, ...]
    out: Dim
    drop_invalid: bool = False

    def indices(self) -> tuple[tuple[int, Dim, int | None], ...]:
        return () if self.drop_invalid else ((1, self.out, None),)

    def type_of(self, x: TensorType, index: TensorType) -> TensorType:
        index.require(*self.over).require_dtype("int", "scatter")
        x.require_dtype("number", "scatter")
        kept = x.of_dims(tuple(d for d in x.dims if d not in self.over))
        batch = tuple(d for d in index.dims if d not in self.over)
        return kept.with_dims(*batch, self.out)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=(1,))


@dataclass(frozen=True)
class Concat(Op):
    """The operands one after the other, each along its own dim of `dims`, giving `out`; ragged dims join per
    sequence."""

    works_along: ClassVar[tuple[str, ...]] = ("dims",)
    shares_lengths: ClassVar[bool] = True
    dims: tuple[Dim, ...]
    out: Dim

    def type_of(self, *inputs: TensorType) -> TensorType:
        if len(inputs) != len(self.dims):
            raise DimError(f"concat of {len(self.dims)} dims got {len(inputs)} operands")
        types = [x.require(dim).renamed({dim: self.out}) for x, dim in zip(inputs, self.dims, strict=True)]
        require_one_dtype("concat", inputs)
        widest = max(types, key=lambda t: len(t.dims))
        dims = dict.fromkeys((*widest.dims, *(d for t in types for d in t.dims)))
        joined = widest.with_dims(*dims)
        sparse = widest.sparse or types[0].sparse
        return joined if sparse is joined.sparse else joined.of_dtype(joined.dtype, sparse)


@dataclass(frozen=True)
class SearchSorted(Op):
    """Where the second operand would be inserted along `over` of the first, which is sorted; `side` "left" or
    "right"."""

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    side: str

    def type_of(self, sorted_x: TensorType, values: TensorType) -> TensorType:
        if self.side not in ("left", "right"):
            raise DimError(f"search_sorted needs the side left or right, not {self.side!r}")
        require_one_dtype("search_sorted", (sorted_x, values), "number")
        new = tuple(d for d in sorted_x.without(self.over).dims if d not in values)
        return values.with_dims(*new).of_dtype("int32", self.over)


@dataclass(frozen=True)
class Sort(Op):
    """The indices that sort along `over`, giving them along the same dim; stable."""

    numbers: ClassVar[tuple[tuple[int, str], ...]] = ((0, "over"),)
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    descending: bool = False

    def type_of(self, x: TensorType) -> TensorType:
        return x.require(self.over).require_dtype("number", "sort").of_dtype("int32", self.over)
