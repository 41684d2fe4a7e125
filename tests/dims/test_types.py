"""Types: equality without order, markers, and the operations that primitives' rules are made of."""

from __future__ import annotations

import pytest

from returnn_lite.dims import Dim, DimError, DimKind, MarkedType, Symbol, TensorType, Unknown, union_of_dims

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
S = Symbol("S", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 4)
G = Symbol("G", DimKind.FEATURE, 5)


def test_order_and_markers_do_not_matter_for_equality() -> None:
    a = MarkedType((B, T, F), feature=F, time=T)
    b = TensorType((F, B, T))
    assert a == b
    assert hash(a) == hash(b)


@pytest.mark.parametrize(
    "other",
    [TensorType((B, T)), TensorType((B, T, G)), TensorType((B, T, F), "float64"), TensorType((B, T, F), sparse=F), "x"],
    ids=str,
)
def test_dims_dtype_and_classes_matter(other: object) -> None:
    assert TensorType((B, T, F)) != other


def test_a_dim_occurs_once() -> None:
    with pytest.raises(DimError, match=r"dim F\(4\) occurs twice in \[B, F\(4\), F\(4\)\]"):
        TensorType((B, F, F))


def test_markers_of_missing_dims_are_dropped() -> None:
    type_ = MarkedType((B, T), feature=F, time=S)
    assert type_.feature is None
    assert type_.time is None
    assert MarkedType((B, T, F), feature=F, time=T).without(T).time is None


def test_batch_is_the_dim_of_that_kind() -> None:
    assert TensorType((T, B)).batch is B
    assert TensorType((T, F)).batch is None


@pytest.mark.parametrize(
    ("dtype", "is_float"), [("float32", True), ("float64", True), ("int32", False), ("bool", False)]
)
def test_is_float(dtype: str, is_float: bool) -> None:
    assert TensorType((), dtype).is_float == is_float


def test_require_and_without() -> None:
    type_ = MarkedType((B, T, F), feature=F)
    assert type_.require(T, F) is type_
    assert type_.without(T).dims == (B, F)
    assert type_.without(T).feature is F
    for refused in (type_.require, type_.without):
        with pytest.raises(DimError, match=r"there is no dim S in \[B, T, F\(4\)\]"):
            refused(T, S)


@pytest.mark.parametrize(
    ("type_", "new", "expected"),
    [
        (MarkedType((B, F), feature=F), (T,), (B, T, F)),
        (TensorType((B, F)), (T,), (B, F, T)),
        (MarkedType((F, B), feature=F), (T, S), (F, B, T, S)),
        (MarkedType((B, T, F), feature=F), (T, B), (B, T, F)),
        (TensorType(), (B,), (B,)),
    ],
    ids=str,
)
def test_with_dims_keeps_the_feature_last(type_: TensorType, new: tuple[Dim, ...], expected: tuple[Dim, ...]) -> None:
    assert type_.with_dims(*new).dims == expected


def test_substitution_reaches_every_part() -> None:
    unknown = Unknown("?", DimKind.FEATURE)
    type_ = MarkedType((B, T + 1, unknown), "int32", unknown, unknown, T + 1)
    found = type_.substitute({T: S, unknown: F})
    assert found.dims == (B, S + 1, F)
    assert (found.sparse, found.feature, found.time) == (F, F, S + 1)


def test_substitution_that_makes_two_dims_one_is_refused() -> None:
    with pytest.raises(DimError, match="occurs twice"):
        TensorType((B, T, S)).substitute({S: T})


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([MarkedType((B, T, F), feature=F), TensorType((B, S))], (B, T, S, F)),
        ([TensorType((B, S)), MarkedType((B, T, F), feature=F)], (B, T, S, F)),
        ([TensorType((B, T)), TensorType((T, B))], (B, T)),
        ([TensorType((T, F)), TensorType((B,))], (T, F, B)),
        ([MarkedType((F,), feature=F), MarkedType((B, T, G), feature=G)], (B, T, F, G)),
        ([], ()),
    ],
)
def test_union_of_dims(types: list[TensorType], expected: tuple[Dim, ...]) -> None:
    assert union_of_dims(types) == expected


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (TensorType((B, T, F)), "[B, T, F(4)]"),
        (TensorType((B,), "int32", G), "[B] int32 of G(5)"),
        (TensorType(), "[]"),
    ],
)
def test_text(type_: TensorType, text: str) -> None:
    assert str(type_) == text
