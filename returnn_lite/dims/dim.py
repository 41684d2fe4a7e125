"""Dims: the named sizes that tensors range over.

A dim is a symbol or an expression over dims. Expressions are simplified when they are made, and equal ones are one
object, so equal arithmetic on equal dims gives the same dim; two symbols are never the same because their sizes agree.
Every dim is at least 0: what would be less is 0, and what is added to it later counts from there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from returnn_lite.dims.interning import Interned
from returnn_lite.dims.kind import DimKind, joint_kind
from returnn_lite.dims.length import AnyLength
from returnn_lite.dims.names import name_of_sum, shortened

LARGEST_DIVISOR = 2**30
"""Beyond it a length that int32 holds might not be divided without overflow."""


def set_found(dim: Dim, **found: object) -> None:
    """Sets what follows from the other fields of a frozen dim, once."""
    for name, value in found.items():
        object.__setattr__(dim, name, value)


class Dim:
    """A named size.

    `size` is None for a dynamic dim, whose length varies over the dims in `over` (none: one length for all). `least`
    is what the length is never below.
    """

    name: str
    kind: DimKind
    size: int | None
    over: tuple[Dim, ...]
    least: int

    @property
    def is_settled(self) -> bool:
        """True if it is known what the length varies over."""
        return True

    def settle(self, over: Iterable[Dim]) -> None:
        """Says what the length varies over, of a dim that a config declares and something makes now."""

    @property
    def is_dynamic(self) -> bool:
        """True if the length is known only at run time. The batch dim is, although it is never ragged."""
        return self.size is None

    @property
    def is_ragged(self) -> bool:
        """True if lengths may differ within a batch, so that padding exists in a layout."""
        return self.size is None and bool(self.over)

    def operands(self) -> tuple[Dim, ...]:
        """The dims that the length of this one is computed from."""
        return ()

    def parts(self) -> tuple[Dim, ...]:
        """The dims that this one consists of."""
        return self.operands()

    def with_parts(self, parts: Sequence[Dim]) -> Dim:
        """This dim with other dims in the place of `parts`, simplified again."""
        assert not parts, self
        return self

    def length_from(self, known: Callable[[Dim], AnyLength], clip: Callable[[AnyLength], AnyLength]) -> AnyLength:
        """The length from those of the operands; `clip` is max(x, 0). What has no operands is what `known` says."""
        return known(self)

    @property
    def leaves(self) -> frozenset[Dim]:
        """The dims that the length is computed from in the end; this one if it is computed from no others."""
        return frozenset((self,))

    def part_of(self) -> Dim | None:
        """A dim that this one is never longer than, if one is known."""
        return None

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Dim:
        """This dim with every dim in `mapping` replaced, simplified again."""
        if self in mapping or not self.parts():
            return mapping.get(self, self)
        replaced = dict(mapping)
        pending: list[Dim] = [self]
        while pending:
            dim = pending[-1]
            waiting = [part for part in dim.parts() if part not in replaced]
            if waiting:
                pending += waiting
                continue
            parts = tuple(replaced[part] for part in dim.parts())
            replaced.setdefault(dim, dim if parts == dim.parts() else dim.with_parts(parts))
            pending.pop()
        return replaced[self]

    def __str__(self) -> str:
        return self.name if self.size is None else f"{self.name}({self.size})"

    def __repr__(self) -> str:
        return f"<Dim {self}>"

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


@dataclass(frozen=True, eq=False, repr=False)
class Expression(Dim, metaclass=Interned):
    """A dim computed from others. What follows from these is found once, so that nothing walks down a long chain."""

    name: str = field(init=False)
    kind: DimKind = field(init=False)
    size: int | None = field(init=False)
    least: int = field(init=False)
    _over: tuple[Dim, ...] | None = field(init=False)
    """None if a dim that it is computed from was not settled when this one was made."""
    _leaves: frozenset[Dim] | None = field(init=False)
    """None if nobody has asked."""

    def __post_init__(self) -> None:
        is_settled = all(dim.is_settled for dim in self.operands())
        set_found(self, _over=self._found_over() if is_settled else None, _leaves=None)

    @property
    def leaves(self) -> frozenset[Dim]:
        pending: list[Expression] = [self] if self._leaves is None else []
        while pending:
            dim = pending[-1]
            waiting = [x for x in dim.operands() if isinstance(x, Expression) and x._leaves is None]
            if not waiting:
                pending.pop()
                set_found(dim, _leaves=dim._found_leaves())
            pending += waiting
        assert self._leaves is not None
        return self._leaves

    def _found_leaves(self) -> frozenset[Dim]:
        """Those of the operands, which are known; along a chain with one operand each they are one set."""
        operands = self.operands()
        if len(operands) == 1:
            return operands[0].leaves
        return frozenset(leaf for dim in operands for leaf in dim.leaves) or frozenset((self,))

    @property
    def over(self) -> tuple[Dim, ...]:  # type: ignore[override]
        return self._found_over() if self._over is None else self._over

    @property
    def is_settled(self) -> bool:
        return self._over is not None or all(dim.is_settled for dim in self.operands())

    def _found_over(self) -> tuple[Dim, ...]:
        return tuple(dict.fromkeys(over for dim in self.operands() for over in dim.over))


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Expression):
    """sum(coefficient * dim) + constant, clipped at 0. Without terms it is a constant.

    `is_exact`: the sum is never below 0, so that nothing is clipped.
    """

    terms: tuple[tuple[Dim, int], ...]
    constant: int
    is_exact: bool = field(init=False)

    @classmethod
    def identity(cls, *fields: Any) -> tuple[Hashable, ...]:
        terms, constant = fields
        return frozenset(terms), constant

    def __post_init__(self) -> None:
        super().__post_init__()
        dims = self.operands()
        is_static = all(dim.size is not None for dim in dims)
        total = sum(c * (dim.size or 0) for dim, c in self.terms) + self.constant
        least = _least_of_sum(self.terms, self.constant)
        set_found(
            self,
            name=name_of_sum([(_in_brackets(dim), c) for dim, c in self.terms], self.constant),
            kind=joint_kind((dim.kind for dim in dims), is_static),
            size=max(total, 0) if is_static else None,
            least=max(least, 0),
            is_exact=least >= 0,
        )

    @functools.cached_property
    def _dims_of_terms(self) -> tuple[Dim, ...]:
        return tuple(dim for dim, _ in self.terms)

    def operands(self) -> tuple[Dim, ...]:
        return self._dims_of_terms

    def part_of(self) -> Dim | None:
        added = [(dim, c) for dim, c in self.terms if c > 0]
        return added[0][0] if self.constant <= 0 and len(added) == 1 and added[0][1] == 1 else None

    def with_parts(self, parts: Sequence[Dim]) -> Dim:
        return linear_dim([(dim, c) for dim, (_, c) in zip(parts, self.terms, strict=True)], self.constant)

    def length_from(self, known: Callable[[Dim], AnyLength], clip: Callable[[AnyLength], AnyLength]) -> AnyLength:
        if not self.terms:
            return known(self)
        total = known(self.terms[0][0]) * self.terms[0][1]
        for dim, coefficient in self.terms[1:]:
            total = total + known(dim) * coefficient
        total = total + self.constant
        return total if self.is_exact else clip(total)


@dataclass(frozen=True, eq=False, repr=False)
class Product(Expression):
    """The dims merged into one, the first varying slowest. Order matters: it says which element is where."""

    factors: tuple[Dim, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = [dim.size for dim in self.factors if dim.size is not None]
        set_found(
            self,
            name=shortened("*".join(map(_in_brackets, self.factors))),
            kind=joint_kind((dim.kind for dim in self.factors), len(sizes) == len(self.factors)),
            size=math.prod(sizes) if len(sizes) == len(self.factors) else None,
            least=math.prod(dim.least for dim in self.factors),
        )

    def operands(self) -> tuple[Dim, ...]:
        return self.factors

    def with_parts(self, parts: Sequence[Dim]) -> Dim:
        return product_dim(parts)

    def _found_over(self) -> tuple[Dim, ...]:
        return tuple(dim for dim in super()._found_over() if dim not in self.factors)

    def length_from(self, known: Callable[[Dim], AnyLength], clip: Callable[[AnyLength], AnyLength]) -> AnyLength:
        total = known(self.factors[0])
        for dim in self.factors[1:]:
            total = total * known(dim)
        return total


@dataclass(frozen=True, eq=False, repr=False)
class Divided(Expression):
    """dim / divisor, rounded up or down."""

    dim: Dim
    divisor: int
    round_up: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        name = f"ceildiv({self.dim.name},{self.divisor})"
        set_found(
            self,
            name=shortened(name if self.round_up else f"{_in_brackets(self.dim)}//{self.divisor}"),
            kind=self.dim.kind,
            size=None if self.dim.size is None else _quotient(self.dim.size, self.divisor, self.round_up),
            least=_quotient(self.dim.least, self.divisor, self.round_up),
        )

    def operands(self) -> tuple[Dim, ...]:
        return (self.dim,)

    def part_of(self) -> Dim | None:
        return self.dim

    def with_parts(self, parts: Sequence[Dim]) -> Dim:
        return _divided(parts[0], self.divisor, self.round_up)

    def length_from(self, known: Callable[[Dim], AnyLength], clip: Callable[[AnyLength], AnyLength]) -> AnyLength:
        length = known(self.dim)
        return (length + (self.divisor - 1 if self.round_up else 0)) // self.divisor


def linear_dim(terms: Iterable[tuple[Dim, int]], constant: int) -> Dim:
    """The simplified sum: equal dims are combined, and a sum of one dim is that dim.

    Sums in it are flattened where that loses no clip at 0: (T+2)-2 is T, (T-2)-2 is T-4, but (T-2)+2 stays.
    """
    collected: dict[Dim, int] = {}
    for dim, coefficient in terms:
        flat = dim if isinstance(dim, Linear) and dim.is_exact else None
        constant += coefficient * flat.constant if flat is not None else 0
        for inner, c in flat.terms if flat is not None else ((dim, 1),):
            collected[inner] = collected.get(inner, 0) + coefficient * c
    kept = [(dim, c) for dim, c in collected.items() if c]
    if not constant and len(kept) == 1 and kept[0][1] == 1:
        return kept[0][0]
    added = [(dim, c) for dim, c in kept if c > 0]
    if constant <= 0 and len(added) == 1 and isinstance(added[0][0], Linear):
        clipped, factor = added[0][0], added[0][1]  # max(max(x, 0) - y, 0) is max(x - y, 0)
        less = [(dim, c * factor) for dim, c in clipped.terms] + [term for term in kept if term[1] < 0]
        return linear_dim(less, constant + clipped.constant * factor)
    return Linear(tuple(sorted(kept, key=lambda term: (term[1] < 0, term[0].name))), constant)


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
    """The simplified quotient: what all terms share is reduced, whole multiples of the divisor come out of it, and a
    quotient of a quotient is one. So a chain of strided convolutions is one quotient, however long."""
    if divisor == 1:
        return dim
    terms, constant = (dim.terms, dim.constant) if isinstance(dim, Linear) else (((dim, 1),), 0)
    if not terms:
        return linear_dim((), _quotient(dim.least, divisor, round_up))
    common = math.gcd(divisor, *(c for _, c in terms))
    if common > 1:
        reduced = linear_dim([(d, c // common) for d, c in terms], _quotient(constant, common, round_up))
        return _divided(reduced, divisor // common, round_up)
    whole, rest = divmod(constant, divisor)
    if whole < 0 or (whole > 0 and _least_of_sum(terms, rest) >= 0):
        return linear_dim([(_divided(linear_dim(terms, rest), divisor, round_up), 1)], whole)
    inner, factor = terms[0]
    if not round_up and len(terms) == factor == 1 and isinstance(inner, Linear):  # less than the divisor is rounded off
        return _divided(linear_dim(inner.terms, inner.constant + constant), divisor, round_up)
    if len(terms) == factor == 1 and isinstance(inner, Divided) and inner.round_up == round_up:
        joint = inner.divisor * divisor
        if joint <= LARGEST_DIVISOR:
            return _divided(linear_dim([(inner.dim, 1)], constant * inner.divisor), joint, round_up)
    return Divided(dim, divisor, round_up)


def _quotient(number: int, divisor: int, round_up: bool) -> int:
    return -(-number // divisor) if round_up else number // divisor


def _least_of_sum(terms: Iterable[tuple[Dim, int]], constant: int) -> int:
    """What a sum is never below; -1 if that is below 0. A part of a dim is never longer than it: T - T//2 is exact."""
    left = {dim: c for dim, c in terms if c > 0}
    for dim, c in terms:
        if c > 0:
            continue
        whole: Dim | None = dim
        while whole is not None and left.get(whole, 0) < -c:
            whole = whole.part_of()
        if whole is not None:
            left[whole] += c
        elif dim.size is not None:
            constant += c * dim.size
        else:
            return -1
    return max(constant + sum(c * dim.least for dim, c in left.items()), -1)


def _in_brackets(dim: Dim) -> str:
    return f"({dim.name})" if isinstance(dim, Linear) else dim.name
