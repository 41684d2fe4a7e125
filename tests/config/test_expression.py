"""Expressions in configs: a closed grammar, and where what is outside of it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returnn_lite.config.expression import (
    LARGEST_INT,
    Attribute,
    Binary,
    Call,
    Compare,
    ExpressionError,
    Name,
    Nothing,
    Number,
    Sequence,
    Text,
    Unary,
    calculated,
)
from returnn_lite.config.expression_parser import DEEPEST, LONGEST, parse_expression


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("1e-3", Number(0, 1e-3)),
        ("True", Number(0, True)),
        ("None", Nothing(0)),
        ("'x'", Text(0, "x")),
        ("tf.nn.relu", Name(0, "tf.nn.relu")),
        ("-x", Unary(0, "-", Name(1, "x"))),
        ("a // 2", Binary(0, "//", Name(0, "a"), Number(5, 2))),
        ("a and b", Binary(0, "&", Name(0, "a"), Name(6, "b"))),
        ("a <= 1", Compare(0, "<=", Name(0, "a"), Number(5, 1))),
        ("[1, (a,)]", Sequence(0, (Number(1, 1), Sequence(4, (Name(5, "a"),))))),
        ("f(1, axis=2)", Call(0, "f", (Number(2, 1),), (("axis", Number(10, 2)),))),
        ("source(0).dim", Attribute(0, Call(0, "source", (Number(7, 0),), ()), "dim")),
        ("  a  ", Name(2, "a")),
        ("é + b", Binary(0, "+", Name(0, "é"), Name(4, "b"))),
        (" (a\n + b)", Binary(2, "+", Name(2, "a"), Name(7, "b"))),
        ("'\\d'", Text(0, "\\d")),
    ],
)
def test_grammar(text: str, node: object) -> None:
    assert parse_expression(text) == node


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("a +", 0),
        ("lambda x: x", 0),
        ("1 + (lambda x: x)", 5),
        ("  é + (b if c else d)", 7),
        ("(a +\r\n b[0])", 7),
        ("1 + 99999999999999999999", 4),
        ("0x" + "f" * 4000, 0),
        ("[x for x in y]", 0),
        ("a if b else c", 0),
        ("x[0]", 0),
        ("f'{x}'", 0),
        ("a < b < c", 0),
        ("a @ b", 0),
        ("a := 1", 0),
        ("f(**k)", 0),
        ("f(*k)", 2),
        ("f()()", 0),
        ("(1)(2)", 0),
        ("x.__class__", 0),
        ("source(0).__class__", 0),
        ("1j", 0),
        ("b'x'", 0),
        ("...", 0),
        ("import os", 0),
        ("", 0),
        ("-" * (DEEPEST + 2) + "1", 0),
        ("1" * (LONGEST + 1), 0),
    ],
)
def test_refused(text: str, column: int) -> None:
    with pytest.raises(ExpressionError) as error:
        parse_expression(text)
    assert str(error.value)
    if column:
        assert error.value.column == column


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("a if b else c", "write tf.where(condition, x, y)"),
        ("x[0]", "use a slice, gather or squeeze layer"),
        ("a < b < c", "write tf.logical_and(a < b, b < c)"),
        ("a @ b", "use a dot layer"),
        ("1 + (lambda x: x)", "a function can only be given in a Python config"),
        ("{1: 2}", "allowed are numbers, strings, + - * /"),
        ("x" * 200 + " if a else b", "x... "[:-1]),
    ],
)
def test_what_to_write_instead(text: str, instead: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse_expression(text)
    assert instead in str(error.value)
    assert len(str(error.value)) < 300


PIECES = [
    "a",
    "é",
    "1",
    "9",
    "(",
    ")",
    "[",
    "]",
    ".",
    ",",
    "+",
    "**",
    " ",
    "\n",
    "\r",
    "\t",
    "'",
    "=",
    "lambda",
    "\x00",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20))
def test_any_text_is_an_expression_or_refused_within_it(text: str) -> None:
    try:
        column = parse_expression(text).column
    except ExpressionError as error:
        column = error.column
    assert 0 <= column <= len(text)


@pytest.mark.parametrize(
    ("left", "sign", "right", "result"),
    [
        (2, "**", 62, 2**62),
        (1, "**", 10**9, 1),
        (2, "**", -1, 0.5),
        (7, "//", 2, 3),
        (7, "/", 2, 3.5),
        (True, "&", False, False),
        (1.5, "<", 2, True),
        (LARGEST_INT, "+", 0, LARGEST_INT),
    ],
)
def test_calculated(left: float, sign: str, right: float, result: object) -> None:
    assert calculated(left=left, sign=sign, right=right) == result


@pytest.mark.parametrize(
    ("left", "sign", "right", "message"),
    [
        (9, "**", 9**9, "9 ** 387420489 is too large for a tensor"),
        (-9, "**", 9**9, "-9 ** 387420489 is too large for a tensor"),
        (2, "**", 63, "2 ** 63 is too large for a tensor"),
        (LARGEST_INT, "*", 2, "is too large for a tensor"),
        (10.0, "**", 400, "10.0 ** 400 is too large for a tensor"),
        (1, "/", 0, "1 / 0 divides by zero"),
        (1.0, "//", 0, "1.0 // 0 divides by zero"),
        (1, "%", 0, "1 % 0 divides by zero"),
        (0, "**", -1, "0 ** -1 divides by zero"),
        (1, "&", 1.5, "1 & 1.5: '&' takes ints or booleans"),
        (-8, "**", 0.5, "-8 ** 0.5 is not a real number"),
    ],
)
def test_not_calculated(left: float, sign: str, right: float, message: str) -> None:
    with pytest.raises(ExpressionError) as error:
        calculated(sign, left, right)
    assert message in str(error.value)
