"""Expressions in configs: a closed grammar, and where what is outside of it stands."""

from __future__ import annotations

import pytest

from returnn_lite.config.expression import (
    DEEPEST,
    LONGEST,
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
    parse_expression,
)


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
        ("  a  ", Name(0, "a")),
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
