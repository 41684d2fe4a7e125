"""Every form of axis description, on types with and without each dim. What the forms mean was measured on RETURNN; the
comments say where we differ."""

from __future__ import annotations

from typing import Any

import pytest

from returnn_lite.dims import Dim, DimError, DimKind, MarkedType, Symbol, Unknown, linear_dim
from returnn_lite.dims.axes import resolve_axes, resolve_axis

B = Symbol("batch", DimKind.BATCH)
K = Symbol("beam", DimKind.BEAM, 3)
ENC = Symbol("Enc-Time_1", varies_over=(B,))
DEC = Symbol("dec.time:x", varies_over=(B,))
DATA = Symbol("data:time", varies_over=(B,))
THREE = Symbol("static-3", static_size=3)
FOUR = Symbol("four", static_size=4)
HEADS = Symbol("heads", DimKind.FEATURE, 7)
F = Symbol("My Feature", DimKind.FEATURE, 5)
UNKNOWN = Unknown("prev:x:feature", DimKind.FEATURE)

ONE_TIME = MarkedType((B, ENC, F), feature=F, time=ENC)
TWO_TIMES = MarkedType((B, DEC, ENC, F), feature=F, time=DEC)
STATIC = MarkedType((B, THREE, FOUR, F), feature=F)
MIXED = MarkedType((B, ENC, THREE, HEADS, F), feature=F, time=ENC)
SEARCHING = MarkedType((B, K, ENC, F), feature=F, time=ENC)
FEATURE = MarkedType((F,), feature=F)
BATCH = MarkedType((B,))
FEATURE_FIRST = MarkedType((F, ENC, B), feature=F, time=ENC)


@pytest.mark.parametrize(
    ("type_", "description", "expected"),
    [
        (ONE_TIME, "B", (B,)),
        (ONE_TIME, "batch", (B,)),
        (ONE_TIME, "Batch ", (B,)),
        (ONE_TIME, "T", (ENC,)),
        (ONE_TIME, "time", (ENC,)),
        (ONE_TIME, "T?", (ENC,)),
        (STATIC, "T?", ()),
        (FEATURE, "b?", ()),
        (ONE_TIME, "F", (F,)),
        (ONE_TIME, "feature", (F,)),
        (BATCH, "F?", ()),
        (ONE_TIME, "spatial", (ENC,)),
        (MIXED, "spatial", (ENC, THREE, HEADS)),
        (FEATURE, "spatial", ()),
        (MIXED, "spatial:1", (THREE,)),
        (MIXED, "s:-1", (HEADS,)),
        (TWO_TIMES, "dyn", (DEC, ENC)),
        (TWO_TIMES, "dyn:1", (ENC,)),
        (TWO_TIMES, "dyn:-2", (DEC,)),
        (STATIC, "dynamic", ()),
        (MIXED, "static", (THREE, HEADS, F)),
        (MIXED, "static:0", (THREE,)),
        (MIXED, "static:-1", (F,)),
        (TWO_TIMES, "spatial_except_time", (ENC,)),
        (ONE_TIME, "spatial_except_time", ()),
        (MIXED, "except_time", (THREE, HEADS, F)),
        (STATIC, "except_time", (THREE, FOUR, F)),
        (MIXED, "except_batch", (ENC, THREE, HEADS, F)),
        (MIXED, "except_batch:1", (THREE,)),
        (MIXED, "except_batch:-1", (F,)),
        (ONE_TIME, "*", (B, ENC, F)),
        (ONE_TIME, "dim:5", (F,)),
        (MIXED, "dim:7", (HEADS,)),
        (ONE_TIME, "bt", (B, ENC)),
        (ONE_TIME, "TF", (ENC, F)),
        (ONE_TIME, "bf", (B, F)),
        (ONE_TIME, "btf", (B, ENC, F)),
        (ONE_TIME, "bb", (B,)),
        (ONE_TIME, ["b", "t"], (B, ENC)),
        (ONE_TIME, ("t", "T", "f"), (ENC, F)),
        (ONE_TIME, {"f", "b"}, (B, F)),
        (ONE_TIME, ENC, (ENC,)),
        (ONE_TIME, [F, "b"], (F, B)),
        (SEARCHING, "*", (B, ENC, F)),
        (SEARCHING, "except_time", (F,)),
        (SEARCHING, "static", (F,)),
        (SEARCHING, 1, (ENC,)),
    ],
)
def test_forms(type_: MarkedType, description: Any, expected: tuple[Dim, ...]) -> None:
    assert resolve_axes(description, type_) == expected


@pytest.mark.parametrize(
    ("type_", "number", "expected"),
    [
        (ONE_TIME, 0, B),
        (ONE_TIME, 1, ENC),
        (ONE_TIME, -1, F),
        (ONE_TIME, -3, B),
        (FEATURE, 0, F),
        (FEATURE, -1, F),
        (FEATURE_FIRST, 0, B),
        (FEATURE_FIRST, 1, F),
        (FEATURE_FIRST, -1, ENC),
    ],
)
def test_numbers_count_batch_first(type_: MarkedType, number: int, expected: Dim) -> None:
    assert resolve_axis(number, type_) is expected


@pytest.mark.parametrize(
    ("type_", "description", "expected"),
    [
        (ONE_TIME, "stag:enc", ENC),
        (ONE_TIME, "stag:ENC-time", ENC),
        (ONE_TIME, "stag:time", ENC),
        (ONE_TIME, "stag:enc_time_1", ENC),  # RETURNN: no match, as "-" is not "_"
        (TWO_TIMES, "stag:dec.time:x", DEC),
        (MIXED, "stag:heads", HEADS),
        (MarkedType((B, THREE, ENC), feature=THREE), "stag:static", THREE),
        (TWO_TIMES, "stag-single:0:time", DEC),
        (TWO_TIMES, "stag-single:1:time", ENC),
        (TWO_TIMES, "stag-single:-1:time", ENC),
        (ONE_TIME, "tag:feature", F),
        (ONE_TIME, "tag:batch", B),
        (MarkedType((B, DATA)), "stag:extern_data:data", DATA),
        (MarkedType((B, DATA)), "stag:time:var:extern_data:data", DATA),
    ],
)
def test_names(type_: MarkedType, description: str, expected: Dim) -> None:
    assert resolve_axis(description, type_) is expected


def test_a_name_to_the_letter_comes_first() -> None:
    dash, underscore = Symbol("a-b", varies_over=(B,)), Symbol("a_b", varies_over=(B,))
    type_ = MarkedType((B, dash, underscore))
    assert resolve_axis("stag:a_b", type_) is underscore
    assert resolve_axis("stag:a-b", type_) is dash
    with pytest.raises(DimError, match="a-b and a_b"):
        resolve_axis("stag:a b", type_)


@pytest.mark.parametrize(
    ("type_", "description", "message"),
    [
        (STATIC, "T", "there is no axis 'T'"),
        (BATCH, "F", "there is no axis 'F'"),
        (FEATURE, "b", "there is no axis 'b'"),
        (BATCH, "bf", "there is no axis 'f'"),
        (ONE_TIME, "spatial:1", "'spatial' is Enc-Time_1$"),
        (ONE_TIME, "spatial:x", "expected a number"),
        (STATIC, "dyn:0", "none of them"),
        (ONE_TIME, "t:0", "unknown axis"),
        (ONE_TIME, "dim:9", "none of them"),
        (MarkedType((THREE, Symbol("other", static_size=3))), "dim:3", r"static-3\(3\) and other\(3\)"),
        (ONE_TIME, "dim:many", "expected a size"),
        (TWO_TIMES, "stag:time", "dec.time:x and Enc-Time_1"),
        (ONE_TIME, "stag:feature", "none of them"),
        (ONE_TIME, "stag:batch", "none of them"),
        (SEARCHING, "tag:beam", "none of them"),
        (ONE_TIME, "stag:", "expected stag:NAME"),
        (ONE_TIME, "stag:--", "none of them"),
        (ONE_TIME, "stag-single:1:time", "of that name are Enc-Time_1$"),
        (ONE_TIME, "stag-single:time", "expected stag:NAME"),
        (ONE_TIME, "spatail", "did you mean 'spatial'"),
        (ONE_TIME, "dym:0", "did you mean 'dyn:i'"),
        (ONE_TIME, "x", "say one of B, T, F"),
        (ONE_TIME, "x?", "unknown axis"),
        (ONE_TIME, "", "say one of"),
        (ONE_TIME, 3, "there are 3 axes"),
        (ONE_TIME, -4, "there are 3 axes"),
        (SEARCHING, 3, "there are 3 axes"),
        (ONE_TIME, True, "True is no axis"),
        (ONE_TIME, None, "None is no axis"),
        (ONE_TIME, 1.5, "1.5 is no axis"),
        (ONE_TIME, DEC, "there is no dim dec.time:x"),
        (ONE_TIME, ["t", "stag:dec"], "none of them"),
    ],
)
def test_what_means_nothing_is_refused(type_: MarkedType, description: Any, message: str) -> None:
    with pytest.raises(DimError, match=message):
        resolve_axes(description, type_)


@pytest.mark.parametrize(
    ("type_", "description", "message"),
    [
        (TWO_TIMES, "spatial", "dec.time:x and Enc-Time_1"),
        (STATIC, "dyn", "none of them"),
        (STATIC, "T?", "none of them"),
        (ONE_TIME, "bt", "batch and Enc-Time_1"),
    ],
)
def test_one_axis_must_be_one(type_: MarkedType, description: str, message: str) -> None:
    with pytest.raises(DimError, match=f"must be one dim, but it is {message}"):
        resolve_axis(description, type_)


def test_only_optional_forms_may_find_nothing() -> None:
    assert resolve_axes("T?", STATIC) == ()
    assert resolve_axes("T?", ONE_TIME) == (ENC,)
    with pytest.raises(DimError, match="no axis 'T'"):
        resolve_axes("T", STATIC)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (TWO_TIMES, DEC),
        (MarkedType((B, ENC, DEC)), ENC),
        (MarkedType((B, DEC, ENC), time=ENC), ENC),
        (MarkedType((THREE, B, ENC)), ENC),
        (STATIC, None),
        (MarkedType((B, THREE), time=THREE), THREE),
        (BATCH, None),
        (MarkedType((B, UNKNOWN), feature=UNKNOWN), None),
        (MarkedType((B, linear_dim([(UNKNOWN, 1), (F, 1)], 0))), None),
    ],
)
def test_default_time(type_: MarkedType, expected: Dim | None) -> None:
    assert type_.default_time is expected
