"""The type of a value: its dims, dtype and the markers that layers look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from returnn_lite.dims.dim import Dim
from returnn_lite.dims.kind import DimKind
from returnn_lite.dims.records import record


class DimError(ValueError):
    """Dims that do not fit an operation. The message names every operand with its dims."""


@record(frozen=True, eq=False)
class TensorType:
    """Dims, dtype, and the dim of the classes if the values are class indices.

    The order of `dims` is the order of declaration: it decides how results are shown and what order-based axis
    descriptions of RETURNN mean while layers are built. It carries no meaning in the IR, and equality ignores it.
    `feature` and `time` say what "F" and "T" mean; they are markers for layers, which no primitive or pass looks at.
    """

    dims: tuple[Dim, ...] = ()
    dtype: str = "float32"
    sparse: Dim | None = None
    feature: Dim | None = None
    time: Dim | None = None

    def __post_init__(self) -> None:
        if len(set(self.dims)) != len(self.dims):
            twice = next(dim for dim in self.dims if self.dims.count(dim) > 1)
            raise DimError(f"dim {twice} occurs twice in {self}")
        if self.feature is not None and self.feature not in self.dims:
            object.__setattr__(self, "feature", None)
        if self.time is not None and self.time not in self.dims:
            object.__setattr__(self, "time", None)

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
        """True if the other one is equal, and its dims are in the same order; markers may differ."""
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

    def require(self, *dims: Dim) -> TensorType:
        """This type, if it has all the dims; else a DimError that says which is missing."""
        for dim in dims:
            if dim not in self.dims:
                raise DimError(f"there is no dim {dim} in {self}")
        return self

    def require_dtype(self, kind: str, user: str) -> TensorType:
        """This type, if its dtype is a "float", "int", "bool" or "number" (float or int); else a DimError that names
        the user."""
        is_int = self.dtype.startswith(("int", "uint"))
        fits = {"float": self.is_float, "int": is_int, "bool": self.dtype == "bool", "number": self.is_float or is_int}
        if not fits[kind]:
            raise DimError(f"{user} needs {kind}, not {self}")
        return self

    def without(self, *dims: Dim) -> TensorType:
        """This type with the dims removed; they must be there."""
        self.require(*dims)
        return self._with(tuple(dim for dim in self.dims if dim not in dims))

    def with_dims(self, *dims: Dim) -> TensorType:
        """This type with the dims that it lacks appended (before the feature dim, which stays last)."""
        new = tuple(dim for dim in dict.fromkeys(dims) if dim not in self.dims)
        if new and self.feature is not None and self.dims[-1] is self.feature:
            return self._with((*self.dims[:-1], *new, self.feature))
        return self._with((*self.dims, *new)) if new else self

    def _with(self, dims: tuple[Dim, ...]) -> TensorType:
        """This type with other dims. Not `replace`, which takes three times as long and is called for every node."""
        return TensorType(dims, self.dtype, self.sparse, self.feature, self.time)

    def substitute(self, mapping: Mapping[Dim, Dim]) -> TensorType:
        """This type with dims replaced everywhere."""
        if not mapping:
            return self
        return TensorType(
            tuple(dim.substitute(mapping) for dim in self.dims),
            self.dtype,
            None if self.sparse is None else self.sparse.substitute(mapping),
            None if self.feature is None else self.feature.substitute(mapping),
            None if self.time is None else self.time.substitute(mapping),
        )


def require_one_dtype(user: str, types: Iterable[TensorType], kind: str | None = None) -> None:
    """Raises a DimError that names the user unless the types have one dtype, of this kind."""
    first, *others = types
    if any(other.dtype != first.dtype for other in others):
        raise DimError(f"{user} needs operands of one dtype, not {' and '.join(map(str, (first, *others)))}")
    if kind is not None:
        first.require_dtype(kind, user)


def union_of_dims(types: Iterable[TensorType]) -> tuple[Dim, ...]:
    """The dims of all types: the order of the one with the most dims first, then what it lacks; its feature last."""
    ordered = sorted(types, key=lambda type_: -len(type_.dims))
    dims = dict.fromkeys(dim for type_ in ordered for dim in type_.dims)
    feature = ordered[0].feature if ordered else None
    if feature is not None and ordered[0].dims[-1] is feature:
        del dims[feature]
        dims[feature] = None
    return tuple(dims)


def display_order(type_: TensorType) -> tuple[Dim, ...]:
    """The order of axes that users see: batch, beam, then the dims as declared, the feature dim last."""

    def key(dim: Dim) -> int:
        if dim.kind is DimKind.BATCH:
            return 0
        if dim.kind is DimKind.BEAM:
            return 1
        return 3 if dim is type_.feature else 2

    return tuple(sorted(type_.dims, key=key))
