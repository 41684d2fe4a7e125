"""Types as layers see them: which dim is "F" and which "T", and in which order dims are declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from returnn_lite.dims.dim import Dim
from returnn_lite.dims.kind import DimKind
from returnn_lite.dims.records import record
from returnn_lite.dims.types import TensorType


@record(frozen=True, eq=False)
class MarkedType(TensorType):
    """A type with markers for layers: what "F" and "T" mean. A marker that is none of the dims is dropped.

    The order of `dims` is that of declaration: it says how results are shown, and what an axis by number means. The
    feature dim stays last where it is.
    """

    feature: Dim | None = None
    time: Dim | None = None

    def __post_init__(self) -> None:
        TensorType.__post_init__(self)
        if self.feature is not None and self.feature not in self.dims:
            object.__setattr__(self, "feature", None)
        if self.time is not None and self.time not in self.dims:
            object.__setattr__(self, "time", None)

    def with_dims(self, *dims: Dim) -> Self:
        if self.feature is None or self.dims[-1] is not self.feature:
            return TensorType.with_dims(self, *dims)
        new = tuple(dim for dim in dict.fromkeys(dims) if dim not in self.dims)
        return self.of_dims((*self.dims[:-1], *new, self.feature)) if new else self

    def of_dims(self, dims: tuple[Dim, ...]) -> Self:
        return type(self)(dims, self.dtype, self.sparse, self.feature, self.time)

    def _of_dtype(self, dtype: str, sparse: Dim | None) -> Self:
        return type(self)(self.dims, dtype, sparse, self.feature, self.time)

    def renamed(self, mapping: Mapping[Dim, Dim]) -> Self:
        """This type with the dims of `mapping` replaced in place; markers follow, the class dim does not.

        What is time by default stays time where a static dim takes its place, which no default finds.
        """
        feature, time = self.feature, self.time
        if time is None and any(dim.is_dynamic and not new.is_dynamic for dim, new in mapping.items()):
            time = self.default_time if self.default_time in mapping else None
        feature, time = (None if dim is None else mapping.get(dim, dim) for dim in (feature, time))
        return type(self)(tuple(mapping.get(dim, dim) for dim in self.dims), self.dtype, self.sparse, feature, time)

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Self:
        if not mapping:
            return self
        sparse, feature, time = (
            None if dim is None else dim.substitute(mapping) for dim in (self.sparse, self.feature, self.time)
        )
        return type(self)(tuple(dim.substitute(mapping) for dim in self.dims), self.dtype, sparse, feature, time)

    @property
    def default_time(self) -> Dim | None:
        """What "T" means: the time marker, else the first dynamic dim that runs over frames.

        A feature dim whose size is not known yet does not.
        """
        if self.time is not None:
            return self.time
        outer = (DimKind.BATCH, DimKind.BEAM)
        frames = (dim for dim in self.dims if dim.kind is not DimKind.FEATURE or dim.is_ragged)
        return next((dim for dim in frames if dim.is_dynamic and dim.kind not in outer), None)

    @property
    def feature_last(self) -> Self:
        """This type with the feature dim behind all others."""
        if self.feature is None or self.dims[-1] is self.feature:
            return self
        return self.of_dims((*(dim for dim in self.dims if dim is not self.feature), self.feature))

    @property
    def plain(self) -> TensorType:
        """What primitives know of it."""
        return TensorType(self.dims, self.dtype, self.sparse)


def marked(type_: TensorType, operands: Sequence[TensorType] = ()) -> MarkedType:
    """A type with markers: its own, if it is one of an operand's with other dims; else those of the first operand that
    has one which is left."""
    if isinstance(type_, MarkedType):
        return type_
    known = [operand for operand in operands if isinstance(operand, MarkedType)]
    feature = next((x.feature for x in known if x.feature is not None and x.feature in type_.dims), None)
    time = next((x.time for x in known if x.time is not None and x.time in type_.dims), None)
    return MarkedType(type_.dims, type_.dtype, type_.sparse, feature, time)
