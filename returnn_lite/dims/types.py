"""The type of a value: its dims and dtype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from returnn_lite.dims.dim import Dim
from returnn_lite.dims.kind import DimKind
from returnn_lite.dims.records import record


class DimError(ValueError):
    """Dims that do not fit an operation. The message names every operand with its dims."""


@record(frozen=True, eq=False)
class TensorType:
    """Dims, dtype, and the dim of the classes if the values are class indices.

    The order of `dims` carries no meaning, and equality ignores it. A subclass says what dims mean to layers
    (`MarkedType`); what gives a type from another one keeps that.
    """

    dims: tuple[Dim, ...] = ()
    dtype: str = "float32"
    sparse: Dim | None = None

    def __post_init__(self) -> None:
        if len(set(self.dims)) != len(self.dims):
            twice = next(dim for dim in self.dims if self.dims.count(dim) > 1)
            raise DimError(f"dim {twice} occurs twice in {self}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorType):
            return NotImplemented
        return self.is_same(other) or (
            (set(self.dims), self.dtype, self.sparse) == (set(other.dims), other.dtype, other.sparse)
        )

    def __hash__(self) -> int:
        return hash((frozenset(self.dims), self.dtype, self.sparse))

    def __contains__(self, dim: object) -> bool:
        return dim in self.dims

    def is_same(self, other: TensorType) -> bool:
        """True if the other one is equal, and its dims are in the same order."""
        if self is other:
            return True
        return self.dims == other.dims and self.dtype == other.dtype and self.sparse is other.sparse

    def __str__(self) -> str:
        dims = ", ".join(str(dim) for dim in self.dims)
        return (
            f"[{dims}]"
            + (f" {self.dtype}" if self.dtype != "float32" else "")
            + (f" of {self.sparse}" if self.sparse is not None else "")
        )

    @property
    def batch(self) -> Dim | None:
        """The batch dim, if there is one."""
        return next((dim for dim in self.dims if dim.kind is DimKind.BATCH), None)

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")

    def require(self, *dims: Dim) -> Self:
        """This type, if it has all the dims; else a DimError that says which is missing."""
        for dim in dims:
            if dim not in self.dims:
                raise DimError(f"there is no dim {dim} in {self}")
        return self

    def require_dtype(self, kind: str, user: str) -> Self:
        """This type, if its dtype is a "float", "int", "bool" or "number" (float or int); else a DimError that names
        the user."""
        is_int = self.dtype.startswith(("int", "uint"))
        fits = {"float": self.is_float, "int": is_int, "bool": self.dtype == "bool", "number": self.is_float or is_int}
        if not fits[kind]:
            raise DimError(f"{user} needs {kind}, not {self}")
        return self

    def without(self, *dims: Dim) -> Self:
        """This type with the dims removed; they must be there."""
        self.require(*dims)
        return self.of_dims(tuple(dim for dim in self.dims if dim not in dims))

    def with_dims(self, *dims: Dim) -> Self:
        """This type with the dims that it lacks appended."""
        new = tuple(dim for dim in dict.fromkeys(dims) if dim not in self.dims)
        return self.of_dims((*self.dims, *new)) if new else self

    def of_dims(self, dims: tuple[Dim, ...]) -> Self:
        """This type with just these dims. Not `replace`, which takes three times as long and is called for every
        node."""
        return type(self)(dims, self.dtype, self.sparse)

    def of_dtype(self, dtype: str, sparse: Dim | None = None) -> Self:
        """This type with another dtype, and other classes; itself if it has them."""
        return self if (dtype, sparse) == (self.dtype, self.sparse) else self._of_dtype(dtype, sparse)

    def _of_dtype(self, dtype: str, sparse: Dim | None) -> Self:
        return type(self)(self.dims, dtype, sparse)

    def renamed(self, mapping: Mapping[Dim, Dim]) -> Self:
        """This type with the dims of `mapping` replaced in place; the class dim stays."""
        return self.of_dims(tuple(mapping.get(dim, dim) for dim in self.dims))

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Self:
        """This type with dims replaced everywhere, also where others are computed from them."""
        if not mapping:
            return self
        sparse = None if self.sparse is None else self.sparse.substitute(mapping)
        return type(self)(tuple(dim.substitute(mapping) for dim in self.dims), self.dtype, sparse)


def require_one_dtype(user: str, types: Iterable[TensorType], kind: str | None = None) -> None:
    """Raises a DimError that names the user unless the types have one dtype, of this kind."""
    first, *others = types
    if any(other.dtype != first.dtype for other in others):
        raise DimError(f"{user} needs operands of one dtype, not {' and '.join(map(str, (first, *others)))}")
    if kind is not None:
        first.require_dtype(kind, user)


def union_of_dims(types: Iterable[TensorType]) -> tuple[Dim, ...]:
    """The dims of all types: the order of the one with the most dims first, then what it lacks."""
    ordered = sorted(types, key=lambda type_: -len(type_.dims))
    return ordered[0].with_dims(*(dim for type_ in ordered[1:] for dim in type_.dims)).dims if ordered else ()


def display_order(type_: TensorType) -> tuple[Dim, ...]:
    """The order of axes that users see: batch, beam, then the dims in the order of the type."""
    first = {DimKind.BATCH: 0, DimKind.BEAM: 1}
    return tuple(sorted(type_.dims, key=lambda dim: first.get(dim.kind, 2)))
