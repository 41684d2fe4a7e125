"""Dims: the named sizes that tensors range over.

A dim is a symbol or an expression over dims. Expressions are simplified when they are made, and equal ones are one
object, so equal arithmetic on equal dims gives the same dim; two symbols are never the same because their sizes agree.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar


class DimKind(enum.Enum):
    """What a dim stands for. `BEAM` is the dim of the hypotheses in search."""

    BATCH = "batch"
    BEAM = "beam"
    SPATIAL = "spatial"
    FEATURE = "feature"


class Dim:
    """A named size. `size` is None for a dynamic dim, whose length varies over the dims in `over`."""

    name: str
    kind: DimKind

    @property
    def size(self) -> int | None:
        """The static size, or None if the length is known only at run time."""
        raise TypeError(f"{type(self).__name__} does not say its size")

    @property
    def over(self) -> tuple[Dim, ...]:
        """The dims that the length varies over; empty for a static dim or one length for all."""
        raise TypeError(f"{type(self).__name__} does not say what it varies over")

    @property
    def is_dynamic(self) -> bool:
        """True if the length is known only at run time. The batch dim is, although it is never ragged."""
        return self.size is None

    @property
    def is_ragged(self) -> bool:
        """True if lengths may differ within a batch, so that padding exists in a layout."""
        return self.size is None and bool(self.over)

    def operands(self) -> tuple[Dim, ...]:
        """The dims that this one is computed from."""
        return ()

    def with_operands(self) -> set[Dim]:
        """This dim, and all those that its length is computed from."""
        return {self}.union(*(operand.with_operands() for operand in self.operands()))

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Dim:
        """This dim with every dim in `mapping` replaced, simplified again."""
        return mapping.get(self, self)

    def __str__(self) -> str:
        return self.name if self.size is None else f"{self.name}({self.size})"

    def __add__(self, other: Dim | int) -> Dim:
        return linear_dim([(self, 1)], other) if isinstance(other, int) else linear_dim([(self, 1), (other, 1)], 0)

    def __sub__(self, other: Dim | int) -> Dim:
        return linear_dim([(self, 1)], -other) if isinstance(other, int) else linear_dim([(self, 1), (other, -1)], 0)

    def __mul__(self, factor: int) -> Dim:
        return linear_dim([(self, factor)], 0)

    __rmul__ = __mul__

    def ceildiv(self, divisor: int) -> Dim:
        """ceil(self / divisor): the length after a stride."""
        return _divided(self, divisor, round_up=True)

    def __floordiv__(self, divisor: int) -> Dim:
        return _divided(self, divisor, round_up=False)


@dataclass(frozen=True, eq=False)
class Symbol(Dim):
    """A dim that is not computed from others. Two symbols are equal only if they are one object."""

    name: str
    kind: DimKind = DimKind.SPATIAL
    static_size: int | None = None
    varies_over: tuple[Dim, ...] = ()

    @property
    def size(self) -> int | None:
        return self.static_size

    @property
    def over(self) -> tuple[Dim, ...]:
        return self.varies_over

    def __repr__(self) -> str:
        return f"<Dim {self}>"


@dataclass(frozen=True, eq=False)
class Declared(Symbol):
    """A dim that a config names itself, so that it says which axes are one: a spatial one is no layer's features."""


@dataclass(frozen=True, eq=False)
class Unknown(Symbol):
    """A dim that type inference has yet to find: the feature of `prev:x` before x is built."""


_EXPRESSIONS: weakref.WeakValueDictionary[tuple[Hashable, ...], Dim] = weakref.WeakValueDictionary()
"""Expressions that exist, so that equal ones are one object; nothing else depends on its contents."""


class Interned(type):
    """Makes equal expressions one object (hash-consing). Fields that don't compare are labels: the first one's stay."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        made = super().__call__(*args, **fields)
        compared = (field.name for field in dataclasses.fields(made) if field.compare)
        return _EXPRESSIONS.setdefault((cls, *(getattr(made, name) for name in compared)), made)


class Expression(Dim, metaclass=Interned):
    """A dim computed from others."""

    @property
    def over(self) -> tuple[Dim, ...]:
        return tuple(dict.fromkeys(over for dim in self.operands() for over in dim.over))

    @property
    def size(self) -> int | None:
        sizes = {operand: operand.size for operand in self.operands()}
        known = {operand: size for operand, size in sizes.items() if size is not None}
        if len(known) < len(sizes):
            return None
        size: int = evaluate_length(self, known.__getitem__, lambda length: max(length, 0))
        return size


@dataclass(frozen=True, eq=False)
class Linear(Expression):
    """sum(coefficient * dim) + constant, clipped at 0. Without terms it is a constant."""

    terms: tuple[tuple[Dim, int], ...]
    constant: int

    @property
    def name(self) -> str:  # type: ignore[override]
        parts = [f"{c}*{d.name}" if c not in (1, -1) else ("-" if c < 0 else "") + d.name for d, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return "+".join(parts).replace("+-", "-")

    @property
    def kind(self) -> DimKind:  # type: ignore[override]
        return _joint_kind(self.operands())

    @property
    def size(self) -> int | None:
        return super().size if self.terms else max(self.constant, 0)

    def operands(self) -> tuple[Dim, ...]:
        return tuple(dim for dim, _ in self.terms)

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Dim:
        if self in mapping:
            return mapping[self]
        return linear_dim([(dim.substitute(mapping), c) for dim, c in self.terms], self.constant)


@dataclass(frozen=True, eq=False)
class Product(Expression):
    """The dims merged into one, the first varying slowest. Order matters: it says which element is where."""

    factors: tuple[Dim, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        return "*".join(f"({d.name})" if isinstance(d, Linear) else d.name for d in self.factors)

    @property
    def kind(self) -> DimKind:  # type: ignore[override]
        return _joint_kind(self.factors)

    @property
    def over(self) -> tuple[Dim, ...]:
        return tuple(dim for dim in super().over if dim not in self.factors)

    def operands(self) -> tuple[Dim, ...]:
        return self.factors

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Dim:
        if self in mapping:
            return mapping[self]
        return product_dim([dim.substitute(mapping) for dim in self.factors])


@dataclass(frozen=True, eq=False)
class Divided(Expression):
    """dim / divisor, rounded up or down."""

    dim: Dim
    divisor: int
    round_up: bool

    @property
    def name(self) -> str:  # type: ignore[override]
        name = f"({self.dim.name})" if isinstance(self.dim, Linear) else self.dim.name
        return f"ceildiv({self.dim.name},{self.divisor})" if self.round_up else f"{name}//{self.divisor}"

    @property
    def kind(self) -> DimKind:  # type: ignore[override]
        return self.dim.kind

    def operands(self) -> tuple[Dim, ...]:
        return (self.dim,)

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Dim:
        if self in mapping:
            return mapping[self]
        return _divided(self.dim.substitute(mapping), self.divisor, self.round_up)


@dataclass(frozen=True, eq=False)
class Masked(Expression):
    """The frames of `dim` at which a mask is true. `mask` identifies the mask: an IR value or any hashable token."""

    dim: Dim
    mask: Hashable
    label: str = field(compare=False)
    mask_over: tuple[Dim, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"mask({self.dim.name},{self.label})"

    @property
    def kind(self) -> DimKind:  # type: ignore[override]
        return self.dim.kind

    @property
    def size(self) -> int | None:
        return None

    @property
    def over(self) -> tuple[Dim, ...]:
        return self.mask_over

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Dim:
        if self in mapping:
            return mapping[self]
        over = tuple(dim.substitute(mapping) for dim in self.mask_over)
        return Masked(self.dim.substitute(mapping), self.mask, self.label, over)


class LengthArithmetic(Protocol):
    """What `evaluate_length` needs of a length: an int, a NumPy array or a tensor."""

    def __add__(self, other: Self | int, /) -> Self: ...
    def __mul__(self, other: Self | int, /) -> Self: ...
    def __floordiv__(self, other: int, /) -> Self: ...


Length = TypeVar("Length", bound=LengthArithmetic)


def evaluate_length(dim: Dim, known: Callable[[Dim], Length], clip: Callable[[Length], Length]) -> Length:
    """The length of a dim from the lengths of the dims it is computed from; `clip` is max(x, 0).

    A dim that is not computed from others, or a constant, is what `known` says.
    """
    if isinstance(dim, Linear) and dim.terms:
        total = known(dim.terms[0][0]) * dim.terms[0][1]
        for operand, coefficient in dim.terms[1:]:
            total = total + known(operand) * coefficient
        return clip(total + dim.constant)
    if isinstance(dim, Product):
        total = known(dim.factors[0])
        for operand in dim.factors[1:]:
            total = total * known(operand)
        return total
    if isinstance(dim, Divided):
        length = known(dim.dim)
        return (length + (dim.divisor - 1 if dim.round_up else 0)) // dim.divisor
    return known(dim)


def linear_dim(terms: Iterable[tuple[Dim, int]], constant: int) -> Dim:
    """The simplified sum: nested sums are flattened, equal dims combined, and a sum of one dim is that dim."""
    total = constant
    collected: dict[Dim, int] = {}
    for dim, coefficient in terms:
        inner = dim.terms if isinstance(dim, Linear) else ((dim, 1),)
        total += coefficient * dim.constant if isinstance(dim, Linear) else 0
        for operand, c in inner:
            collected[operand] = collected.get(operand, 0) + coefficient * c
    kept = [(dim, c) for dim, c in collected.items() if c]
    if len(kept) == 1 and kept[0][1] == 1 and total == 0:
        return kept[0][0]
    return Linear(tuple(sorted(kept, key=lambda term: (term[1] < 0, term[0].name, id(term[0])))), total)


def product_dim(factors: Iterable[Dim]) -> Dim:
    """The dims merged into one, first slowest. A product of one dim is that dim."""
    flat: list[Dim] = []
    for factor in factors:
        flat.extend(factor.factors if isinstance(factor, Product) else (factor,))
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def conv_dim(dim: Dim, filter_size: int, stride: int, dilation: int, padding: str) -> Dim:
    """The length after a convolution: "same" gives ceildiv(n, s), "valid" ceildiv(n - (f-1)*d, s), clipped at 0."""
    if padding == "valid":
        dim = dim - (filter_size - 1) * dilation if filter_size > 1 else dim
    return dim.ceildiv(stride)


def _divided(dim: Dim, divisor: int, round_up: bool) -> Dim:
    if divisor == 1:
        return dim
    if isinstance(dim, Linear):
        common = math.gcd(divisor, dim.constant, *(c for _, c in dim.terms))
        if common > 1:
            reduced = linear_dim([(d, c // common) for d, c in dim.terms], dim.constant // common)
            return _divided(reduced, divisor // common, round_up)
    if isinstance(dim, Divided) and dim.round_up == round_up:
        return _divided(dim.dim, dim.divisor * divisor, round_up)
    return Divided(dim, divisor, round_up)


def _joint_kind(dims: tuple[Dim, ...]) -> DimKind:
    """What dims put together are: a batch if one is, features if all sizes are static and one is a feature."""
    kinds = {dim.kind for dim in dims}
    if DimKind.BATCH in kinds:
        return DimKind.BATCH
    if len(kinds) == 1:
        return kinds.pop()
    is_feature = DimKind.FEATURE in kinds and all(dim.size is not None for dim in dims)
    return DimKind.FEATURE if is_feature else DimKind.SPATIAL
