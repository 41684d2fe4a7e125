"""Primitives that sum products: dot, convolution, and pooling beside it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType, require_one_dtype, union_of_dims
from returnn_lite.ir.kept import NOTHING, Kept, has_padding
from returnn_lite.ir.op import Op


@dataclass(frozen=True)
class Dot(Op):
    """The sum over the dims `over` of the product of both operands. Dims that both share besides are batch dims.

    Frames beyond the length of a ragged dim in `over` count as zero.
    """

    multiplies: ClassVar[bool] = True
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    shares_lengths: ClassVar[bool] = True
    over: tuple[Dim, ...]

    def type_of(self, a: TensorType, b: TensorType) -> TensorType:
        for dim in self.over:
            if dim not in a or dim not in b:
                raise DimError(f"dot over {dim}: both operands need it, but they are {a} and {b}")
        require_one_dtype("dot", (a, b), "number")
        kept = dict.fromkeys((*a.without(*self.over).dims, *b.without(*self.over).dims))
        return TensorType(tuple(kept), a.dtype)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(operands=tuple(1 - i for i in sorted(wanted)))

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return (union_of_dims(inputs),)


@dataclass(frozen=True)
class SpatialDim:
    """One spatial dim of a convolution or pooling: its input and output dim, the filter's size, stride, dilation, and
    padding "same" (total max((ceil(n/s)-1)*s + (f-1)*d + 1 - n, 0), left half rounded down), "valid", or (left,
    right) frames.
    """

    input: Dim
    output: Dim
    filter: Dim
    stride: int = 1
    dilation: int = 1
    padding: str | tuple[int, int] = "valid"


@dataclass(frozen=True)
class Conv(Op):
    """Convolution (cross-correlation) over one to three spatial dims.

    Operands: x with the spatial inputs and `in_feature`, and the filter with each spatial `filter` dim, `in_group` and
    `out_feature`. `groups` splits the features in consecutive blocks: in_group = in_feature / groups. Frames beyond a
    sequence's length count as zero, so that padding has no influence.
    """

    spatial: tuple[SpatialDim, ...]
    in_feature: Dim
    in_group: Dim
    out_feature: Dim
    groups: int = 1

    def type_of(self, x: TensorType, filters: TensorType) -> TensorType:
        _check_filters(x, filters, {s.filter for s in self.spatial} | {self.in_group, self.out_feature})
        sizes = self.in_feature.size, self.in_group.size
        if None not in sizes and sizes[0] != self.groups * (sizes[1] or 0):
            raise DimError(f"{self.groups} groups of {self.in_group} are not {self.in_feature}")
        x.require(self.in_feature, *(s.input for s in self.spatial))
        mapping = {s.input: s.output for s in self.spatial} | {self.in_feature: self.out_feature}
        return x.renamed(mapping)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return _other_operands(inputs, wanted)

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return ((*self.type_of(*inputs).dims, *(d for d in inputs[1].dims if d is not self.out_feature)),)

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        blocks = (self.out_feature,) if self.groups > 1 else ()
        return (*(dim for s in self.spatial for dim in (s.input, s.filter)), self.in_feature, self.in_group, *blocks)


@dataclass(frozen=True)
class TransposedConv(Op):
    """Transposed convolution over spatial dims with zero "valid" arithmetic: output n*s + max(f-s, 0), then `crop`
    frames are cut off on both sides and `output` says the resulting dim. Filter dims: spatial filters, `out_feature`,
    `in_feature`.
    """

    spatial: tuple[SpatialDim, ...]
    in_feature: Dim
    out_feature: Dim
    crop: tuple[tuple[int, int], ...]

    def type_of(self, x: TensorType, filters: TensorType) -> TensorType:
        _check_filters(x, filters, {s.filter for s in self.spatial} | {self.in_feature, self.out_feature})
        x.require(self.in_feature, *(s.input for s in self.spatial))
        mapping = {s.input: s.output for s in self.spatial} | {self.in_feature: self.out_feature}
        return x.renamed(mapping)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return _other_operands(inputs, wanted)

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        return ((*inputs[0].dims, *(d for d in inputs[1].dims if d is not self.in_feature)),)

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        return (*(dim for s in self.spatial for dim in (s.input, s.filter)), self.in_feature)


@dataclass(frozen=True)
class Pool(Op):
    """Maximum ("max") or mean ("avg") over windows of spatial dims. Frames beyond a sequence's length, and those that
    padding adds, take no part: they are neither compared nor counted.
    """

    kind: str
    spatial: tuple[SpatialDim, ...]

    def type_of(self, x: TensorType) -> TensorType:
        if self.kind not in ("max", "avg"):
            raise DimError(f"there is no pooling {self.kind!r}")
        x.require(*(s.input for s in self.spatial)).require_dtype("float", "pooling")
        return x.renamed({s.input: s.output for s in self.spatial})

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        if self.kind == "avg":
            return NOTHING
        return Kept(results=(0,), inner=inputs) if has_padding(*inputs) else Kept(operands=(0,), results=(0,))

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        return tuple(s.input for s in self.spatial)


def _other_operands(inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
    """Of a convolution: what each wanted operand is multiplied with; x with its padding set to 0, which is a copy."""
    if 1 in wanted and has_padding(inputs[0]):
        return Kept(operands=(1,) if 0 in wanted else (), inner=inputs[:1])
    return Kept(operands=tuple(1 - i for i in sorted(wanted)))


def _check_filters(x: TensorType, filters: TensorType, dims: set[Dim]) -> None:
    if set(filters.dims) != dims:
        raise DimError(f"a filter needs just {', '.join(sorted(map(str, dims)))}, but it is {filters}")
    require_one_dtype("a convolution", (x, filters), "float")
