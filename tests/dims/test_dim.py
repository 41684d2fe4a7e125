"""The algebra of dims: what simplifies to what, identity, sizes, what lengths vary over, and substitution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite.dims import Declared, Dim, DimKind, Masked, Symbol, conv_dim, linear_dim, product_dim

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
S = Symbol("S", varies_over=(B,))
N = Symbol("N")
F = Symbol("F", DimKind.FEATURE, 6)
G = Symbol("G", DimKind.FEATURE, 4)
FILTER = Symbol("filter", static_size=3)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (T + S - S, T),
        (T - T + T, T),
        (T + S, S + T),
        (T + 2 - 2, T),
        ((T + 1) + (S + 2), T + S + 3),
        (T + T, T * 2),
        (2 * T + T, 3 * T),
        ((T + S) * 2 - T, T + 2 * S),
        ((T * 3) // 3, T),
        ((T * 3).ceildiv(3), T),
        ((T * 4 + 6) // 2, T * 2 + 3),
        ((T * 4).ceildiv(8), (T * 4).ceildiv(4).ceildiv(2)),
        (T.ceildiv(2).ceildiv(3), T.ceildiv(6)),
        (T // 2 // 3, T // 6),
        (T.ceildiv(1), T),
        (T // 1, T),
        (T - T, S - S),
        (T * 0 + 3, S - S + 3),
        (product_dim([T]), T),
        (product_dim([product_dim([T, F]), G]), product_dim([T, product_dim([F, G])])),
        (linear_dim([(T, 1)], 0), T),
        (conv_dim(T, 1, 1, 1, "valid"), T),
        (conv_dim(T, 3, 1, 1, "same"), T),
        (conv_dim(T, 3, 1, 2, "valid"), T - 4),
        (conv_dim(T, 3, 2, 1, "same"), T.ceildiv(2)),
        (conv_dim(conv_dim(T, 3, 2, 1, "same"), 3, 2, 1, "same"), T.ceildiv(4)),
        (T - 2 - 3, T - 5),
        (conv_dim(conv_dim(T, 3, 1, 1, "valid"), 4, 1, 1, "valid"), T - 5),
        (T - S - 2, T - 2 - S),
        ((T - 2) - (T - 2) + S, S),
        (T - T // 2 + T // 2, T),
        (T - T.ceildiv(3) + T.ceildiv(3), T),
        (T - Masked(T, "m", "mask", (B,)) + Masked(T, "m", "mask", (B,)), T),
        (F - 2 + 2, F),
        (T.ceildiv(2) - 3, (T - 6).ceildiv(2)),
        (T.ceildiv(2) + 1, (T + 2).ceildiv(2)),
        ((T + 3) // 2, (T + 1) // 2 + 1),
        ((T * 2 - 1).ceildiv(2), T),
        ((T * 2 + 1) // 2, T),
        ((T * 2 - 4) // 2, T - 2),
        (conv_dim(conv_dim(T, 3, 2, 1, "valid"), 3, 2, 1, "valid"), (T - 6).ceildiv(4)),
        (Masked(T, "m", "mask", (B,)), Masked(T, "m", "another label", (B,))),
    ],
    ids=str,
)
def test_equal_arithmetic_is_the_same_dim(left: Dim, right: Dim) -> None:
    assert left is right


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Symbol("T"), Symbol("T")),
        (Symbol("F", DimKind.FEATURE, 6), F),
        (T.ceildiv(2), T // 2),
        ((T // 2) * 2, T),
        (conv_dim(T, 3, 1, 1, "valid") + 2, T),
        (T - 2 + 2, T),
        ((T - 2) + (S - 2), T + S - 4),
        ((T - S) + S, T),
        ((T - 2) * 2 + 4, T * 2),
        (T // 2 // 3, T.ceildiv(2) // 3),
        ((T.ceildiv(2) * 2).ceildiv(3), T.ceildiv(6)),
        ((T.ceildiv(2) * 2 + 1).ceildiv(3), (T + 2).ceildiv(6)),
        (T // 2 * 2 // 3, T // 6),
        ((T // 2 * 2 + 1) // 3, (T + 2) // 6),
        (product_dim([F, G]), product_dim([G, F])),
        (product_dim([F, F]), F * 6),
        (T + 1, T + 2),
        (Masked(T, "m", "mask", (B,)), Masked(T, "n", "mask", (B,))),
        (Masked(T, "m", "mask", (B,)), Masked(T, "m", "mask", (B, N))),
        (Masked(T, "m", "mask", (B,)), Masked(S, "m", "mask", (B,))),
    ],
    ids=str,
)
def test_what_is_not_the_same(left: Dim, right: Dim) -> None:
    assert left != right


@pytest.mark.parametrize("length", range(12))
def test_a_quotient_of_several_times_a_quotient(length: int) -> None:
    """Frames that are repeated after a stride, and a stride again: that is no stride of the frames before."""
    up, down = (T.ceildiv(3) * 2 + 2).ceildiv(3), (T // 3 * 2 + 2) // 3
    assert evaluated(up, {T: length}) == -(-(-(-length // 3) * 2 + 2) // 3)
    assert evaluated(down, {T: length}) == (length // 3 * 2 + 2) // 3


def test_sums_of_dims_of_one_name_are_the_same_in_any_order() -> None:
    a, b = Symbol("time", varies_over=(B,)), Symbol("time", varies_over=(B,))
    assert a + b is b + a
    assert a + b - b is a


def test_making_an_equal_dim_again_changes_nothing() -> None:
    first = Masked(T, "mask of this test", "first", (B,))
    Masked(T, "mask of this test", "second", (B,))
    assert first.name == "mask(T,first)"
    with pytest.raises(FrozenInstanceError):
        first.label = "third"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("dim", "size"),
    [
        (F, 6),
        (F + G, 10),
        (F - G, 2),
        (G - F, 0),
        (F * 2, 12),
        (F.ceildiv(4), 2),
        (F // 4, 1),
        (T, None),
        (T + F, None),
        (product_dim([F, G]), 24),
        (product_dim([T, G]), None),
        (T * 0 + 5, 5),
        (T - T - 2, 0),
        (T.ceildiv(2), None),
        (Masked(F, "m", "m", (B,)), None),
        ((F + G).ceildiv(4), 3),
        (conv_dim(F, 3, 1, 1, "valid"), 4),
    ],
    ids=str,
)
def test_static_sizes(dim: Dim, size: int | None) -> None:
    assert dim.size == size
    assert dim.is_dynamic == (size is None)


@pytest.mark.parametrize(
    ("dim", "over"),
    [
        (B, ()),
        (T, (B,)),
        (F, ()),
        (T + S, (B,)),
        (T + N, (B,)),
        (T.ceildiv(2), (B,)),
        (N * 2, ()),
        (F + G, ()),
        (product_dim([T, F]), (B,)),
        (product_dim([B, T]), ()),
        (Masked(N, "m", "m", (B,)), (B,)),
    ],
    ids=str,
)
def test_what_lengths_vary_over(dim: Dim, over: tuple[Dim, ...]) -> None:
    assert dim.over == over
    assert dim.is_ragged == (dim.size is None and bool(over))


@pytest.mark.parametrize(
    ("dim", "kind"),
    [
        (T + S, DimKind.SPATIAL),
        (S + T, DimKind.SPATIAL),
        (F + G, DimKind.FEATURE),
        (F * 4, DimKind.FEATURE),
        (F + FILTER, DimKind.FEATURE),
        (FILTER + F, DimKind.FEATURE),
        (product_dim([FILTER, F]), DimKind.FEATURE),
        (product_dim([T, F]), DimKind.SPATIAL),
        (product_dim([B, T]), DimKind.BATCH),
        (T.ceildiv(2), DimKind.SPATIAL),
        (F // 2, DimKind.FEATURE),
        (Masked(T, "m", "m", (B,)), DimKind.SPATIAL),
    ],
    ids=str,
)
def test_kinds(dim: Dim, kind: DimKind) -> None:
    assert dim.kind is kind


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (T, "T"),
        (F, "F(6)"),
        (T + 1, "T+1"),
        (T - 1, "T-1"),
        (T - S, "T-S"),
        (S - T * 2, "S-2*T"),
        (F * 4, "4*F(24)"),
        (T.ceildiv(2), "ceildiv(T,2)"),
        ((T + 1) // 2, "(T+1)//2"),
        (T // 2, "T//2"),
        (T - T + 3, "3(3)"),
        (product_dim([T + 1, F]), "(T+1)*F"),
        (Masked(T, "mask of the text", "label", (B,)), "mask(T,label)"),
    ],
)
def test_text(dim: Dim, text: str) -> None:
    assert str(dim) == text


T2, S2 = Symbol("T2", varies_over=(N,)), Symbol("S2", varies_over=(B,))


@pytest.mark.parametrize(
    ("dim", "mapping", "expected"),
    [
        (T, {T: S}, S),
        (S, {T: S2}, S),
        (T + 1, {T: T2}, T2 + 1),
        (T + 1, {T + 1: S2}, S2),
        (T - S, {T: S + 2}, S - S + 2),
        (T.ceildiv(2), {T: S * 4}, S * 2),
        ((T + 1) // 2, {T: S * 2 - 1}, S),
        (product_dim([T, F]), {T: S, F: G}, product_dim([S, G])),
        (Masked(T, "m", "m", (B,)), {T: T2}, Masked(T2, "m", "m", (B,))),
        (Masked(T, "m", "m", (B,)), {B: N}, Masked(T, "m", "m", (N,))),
    ],
    ids=str,
)
def test_substitution_simplifies_again(dim: Dim, mapping: Mapping[Dim, Dim], expected: Dim) -> None:
    assert dim.substitute(mapping) is expected


Plain = Callable[[Mapping[Dim, int]], int]
"""The same arithmetic on integers, where nothing is simplified and each step is clipped at 0."""

MASKED = Masked(N, "mask of the arithmetic", "m", (B,))


@st.composite
def arithmetic(draw: st.DrawFn, depth: int = 5) -> tuple[Dim, Plain]:
    """A dim made by random arithmetic, and the same arithmetic on integers."""
    kind = draw(st.sampled_from(["symbol", "add", "sub", "scale", "shift", "conv", "ceildiv", "floordiv", "product"]))
    if depth == 0 or kind == "symbol":
        symbol = draw(st.sampled_from([T, S, N, MASKED, F]))
        return symbol, lambda sizes: symbol.size if symbol.size is not None else sizes[symbol]
    dim, plain = draw(arithmetic(depth - 1))
    number = draw(st.integers(1, 4))
    if kind in ("add", "sub", "product"):
        other, other_plain = draw(arithmetic(depth - 1))
        if kind == "product":
            return product_dim([dim, other]), lambda sizes: plain(sizes) * other_plain(sizes)
        if kind == "add":
            return dim + other, lambda sizes: plain(sizes) + other_plain(sizes)
        return dim - other, lambda sizes: max(plain(sizes) - other_plain(sizes), 0)
    if kind == "scale":
        return dim * number, lambda sizes: plain(sizes) * number
    if kind == "shift":
        amount = draw(st.integers(-6, 6))
        return dim + amount, lambda sizes: max(plain(sizes) + amount, 0)
    if kind == "conv":
        size, padding = draw(st.integers(1, 6)), draw(st.sampled_from(["same", "valid"]))
        lost = size - 1 if padding == "valid" else 0
        return conv_dim(dim, size, number, 1, padding), lambda sizes: -(-max(plain(sizes) - lost, 0) // number)
    if kind == "ceildiv":
        return dim.ceildiv(number), lambda sizes: -(-plain(sizes) // number)
    return dim // number, lambda sizes: plain(sizes) // number


def evaluated(dim: Dim, sizes: Mapping[Dim, int]) -> int:
    if dim in sizes or dim.size is not None:
        return sizes.get(dim, dim.size or 0)
    return dim.length_from(lambda operand: evaluated(operand, sizes), lambda length: max(length, 0))


LENGTHS = st.one_of(st.integers(0, 4), st.integers(0, 40))
SIZES = st.fixed_dictionaries(dict.fromkeys((T, S, N), LENGTHS)).flatmap(
    lambda sizes: st.integers(0, sizes[N]).map(lambda masked: {**sizes, MASKED: masked})
)


@given(arithmetic(), SIZES)
def test_simplified_is_the_same_number(made: tuple[Dim, Plain], sizes: Mapping[Dim, int]) -> None:
    dim, plain = made
    assert evaluated(dim, sizes) == plain(sizes) >= dim.least


@given(arithmetic(), arithmetic(), SIZES)
def test_substituted_is_the_same_number(
    made: tuple[Dim, Plain], inner: tuple[Dim, Plain], sizes: Mapping[Dim, int]
) -> None:
    dim, plain = made
    expected = plain({**sizes, T: inner[1](sizes)})
    assert evaluated(dim.substitute({T: inner[0]}), sizes) == expected


STEPS: Mapping[str, Callable[[Dim, int], Dim]] = {
    "strided": lambda dim, i: conv_dim(dim, 3, 2, 1, "valid"),
    "valid": lambda dim, i: conv_dim(dim, 3, 1, 1, "valid"),
    "padded": lambda dim, i: conv_dim(dim, 3, 1, 1, "valid") + 1,
    "shortened": lambda dim, i: (dim + 2).ceildiv(3) + 1,
    "doubled": lambda dim, i: dim.ceildiv(2) * 3,
    "halved": lambda dim, i: (dim + T) // 2,
    "masked": lambda dim, i: Masked(dim, i, f"m{i}", (B,)),
    "rest": lambda dim, i: dim - Masked(dim, i, f"m{i}", (B,)) + 1,
    "mixed": lambda dim, i: Masked(dim.ceildiv(2) * 2, i, "m", (B,)) + S - 1,
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_chain_costs_the_same_at_each_step_and_its_name_is_bounded(kind: str) -> None:
    """Deeper than Python recurses; the names of 24 strided convolutions once took 20 s."""
    dims, dim = [], T
    for i in range(5_000):
        dim = STEPS[kind](dim, i)
        dims.append(dim)
    assert max(len(dim.name) for dim in dims) < 200
    assert dim.is_dynamic and B in dim.over
    assert dim.substitute({T: S, B: N}) is not dim
    assert (T in dim.leaves) == (kind not in ("masked", "mixed"))
    assert all(not leaf.operands() for leaf in dim.leaves)


def test_the_leaves_of_a_chain_are_one_set() -> None:
    dims = [T + S]
    for _ in range(1000):
        dims.append(dims[-1].ceildiv(3) * 2 + 1)
    assert dims[-1].leaves == {T, S}
    assert all(dim.leaves is dims[0].leaves for dim in dims)
    masked = Masked(T, 0, "m", (B,))
    assert T.leaves == {T} and masked.leaves == {masked} and (T + S * 2).ceildiv(3).leaves == {T, S}
    assert product_dim([N, F + G, masked]).leaves == {N, F, G, masked}
    assert linear_dim([], 3).leaves == {linear_dim([], 3)}


def test_what_a_declared_dim_varies_over_is_settled_once() -> None:
    declared = Declared("D")
    before = (declared + 1).ceildiv(2)
    assert not before.is_settled and before.over == ()
    declared.settle((B,))
    declared.settle((N,))
    assert declared.over == before.over == (declared * 2).over == (B,)
    assert before.is_settled and before.is_ragged
    assert Declared("D", varies_over=(N,)).is_settled and Declared("D", static_size=2).is_settled


def test_a_dim_is_one_object_in_all_threads() -> None:
    """The dims are new in each trial, so that threads race to make the same expression."""

    def trial(_: int) -> int:
        symbol, start = Symbol("race", varies_over=(B,)), Barrier(16)

        def make(_: int) -> Dim:
            start.wait()
            return Masked((symbol - 3).ceildiv(2) * 3 + S, "race", "race", (B,))

        return len(set(pool.map(make, range(16))))

    with ThreadPoolExecutor(16) as pool:
        assert [trial(i) for i in range(200)] == [1] * 200
