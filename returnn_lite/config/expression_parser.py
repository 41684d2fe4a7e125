"""From the text of an expression to what is of the grammar: Python parses it, and nothing else is let through."""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Mapping
from keyword import iskeyword

from returnn_lite.config.expression import (
    FROM_CONFIG,
    LARGEST_INT,
    Attribute,
    Binary,
    Call,
    Compare,
    ExpressionError,
    Name,
    Node,
    Nothing,
    Number,
    Sequence,
    Text,
    Unary,
)

LONGEST = 5000
"""Characters that an expression may have."""
DEEPEST = 60
"""How deep it may be nested."""
LINE_END = re.compile(r"\r\n|\r|\n")
BINARY = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
}
UNARY = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~", ast.Not: "not"}
COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
ALLOWED = "numbers, strings, + - * / // % **, comparisons, names, calls and lists"
INSTEAD: Mapping[type[ast.AST], str] = {
    ast.IfExp: "write tf.where(condition, x, y)",
    ast.Subscript: "use a slice, gather or squeeze layer, which name their axis",
    ast.Compare: "write tf.logical_and(a < b, b < c); 'is' and 'in' are none of the comparisons",
    ast.MatMult: "use a dot layer, which names the dims it sums over",
    ast.Lambda: "a function can only be given in a Python config",
}
"""What to write for some of what is not in the grammar."""
_PARSING = threading.Lock()
"""Python counts the depth of trees for all threads together (3.11), and has one list of warnings for all."""


def parse_expression(text: str) -> Node:
    """The expression in a string. Raises ExpressionError with the column of what does not belong."""
    if len(text) > LONGEST:
        raise ExpressionError(f"the expression has {len(text)} characters; {LONGEST} are allowed")
    if text.isascii() and text.isidentifier() and not iskeyword(text):
        return Name(0, text)  # most are, and Python takes its time
    try:
        with _PARSING, warnings.catch_warnings():
            # What Python finds odd about a text, such as an unknown escape, is no message about the config.
            warnings.simplefilter("ignore")
            parsed = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = 0
        if isinstance(error, SyntaxError) and error.offset:
            starts = _line_starts(text)
            line = min(max(error.lineno or 1, 1), len(starts))
            column = min(starts[line - 1] + error.offset - 1, len(text))
        raise ExpressionError(f"{_shown(text)} is not an expression (column {column + 1})", column) from None
    _count_characters(parsed, text)
    return _node(parsed.body, 0)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _line_starts(text: str) -> list[int]:
    """The columns in the whole text at which its lines begin, as Python sees it without the space around."""
    before = len(text) - len(text.lstrip())
    return [before, *(before + end.end() for end in LINE_END.finditer(text.strip()))]


def _count_characters(tree: ast.AST, text: str) -> None:
    """Makes col_offset, which counts the UTF-8 bytes of a line, count the characters of the text."""
    starts, lines = _line_starts(text), LINE_END.split(text.strip())
    for node in ast.walk(tree):
        if isinstance(node, ast.expr):
            before = lines[node.lineno - 1].encode()[: node.col_offset]
            node.col_offset = starts[node.lineno - 1] + len(before.decode(errors="ignore"))


def _node(node: ast.expr, depth: int) -> Node:
    if depth > DEEPEST:
        raise ExpressionError(f"the expression is nested deeper than {DEEPEST}", node.col_offset)
    column, below = node.col_offset, depth + 1
    key = _config_key(node)
    if key is not None:
        return Name(column, FROM_CONFIG + key)
    if isinstance(node, ast.Constant):
        return _constant(node)
    if isinstance(node, ast.Name):
        return Name(column, node.id)
    if isinstance(node, ast.Attribute):
        return _attribute(node, below)
    if isinstance(node, ast.Call):
        return _call(node, below)
    if isinstance(node, ast.UnaryOp):
        return Unary(column, UNARY[type(node.op)], _node(node.operand, below))
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return Binary(column, BINARY[type(node.op)], _node(node.left, below), _node(node.right, below))
    if isinstance(node, ast.BoolOp):
        return _bool(node, below)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
        operator = COMPARE[type(node.ops[0])]
        return Compare(column, operator, _node(node.left, below), _node(node.comparators[0], below))
    if isinstance(node, ast.List | ast.Tuple):
        return Sequence(column, tuple(_node(element, below) for element in node.elts))
    raise _foreign(node)


def _config_key(node: ast.expr) -> str | None:
    """The key that `self.network.get_config().typed_value("key")` reads, or `typed_dict["key"]`; None for others."""
    match node:
        case ast.Call(ast.Attribute(source, "typed_value"), [ast.Constant(str(key))], []):
            pass
        case ast.Subscript(ast.Attribute(source, "typed_dict"), ast.Constant(str(key))):
            pass
        case _:
            return None
    if isinstance(source, ast.Call) and not source.args and not source.keywords:
        return key if _dotted(source.func) == "self.network.get_config" else None
    return key if _dotted(source) == "self.network._config" else None


def _foreign(node: ast.expr) -> ExpressionError:
    """The error for what is not in the grammar, with what to write instead where that is known."""
    kind = type(node.op) if isinstance(node, ast.BinOp) else type(node)
    instead = INSTEAD.get(kind, f"allowed are {ALLOWED}")
    return ExpressionError(f"{_shown(ast.unparse(node))} can't be in an expression; {instead}", node.col_offset)


def _constant(node: ast.Constant) -> Node:
    value = node.value
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise ExpressionError("this int is too large for a tensor", node.col_offset)
    if isinstance(value, bool | int | float):
        return Number(node.col_offset, value)
    if isinstance(value, str):
        return Text(node.col_offset, value)
    if value is None:
        return Nothing(node.col_offset)
    raise _foreign(node)


def _attribute(node: ast.Attribute, depth: int) -> Node:
    if node.attr.startswith("_"):
        raise ExpressionError(f"'{node.attr}': names with a leading underscore are private", node.col_offset)
    dotted = _dotted(node)
    if dotted is not None:
        return Name(node.col_offset, dotted)
    return Attribute(node.col_offset, _node(node.value, depth), node.attr)


def _dotted(node: ast.expr) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def _call(node: ast.Call, depth: int) -> Node:
    function = _node(node.func, depth)
    if not isinstance(function, Name | Attribute):
        raise ExpressionError("only a function by its name can be called", node.col_offset)
    keywords = []
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ExpressionError("'**' can't be in an expression", node.col_offset)
        keywords.append((keyword.arg, _node(keyword.value, depth)))
    arguments = tuple(_node(argument, depth) for argument in node.args)
    name = function.name if isinstance(function, Name) else function
    return Call(node.col_offset, name, arguments, tuple(keywords))


def _bool(node: ast.BoolOp, depth: int) -> Node:
    operator = "&" if isinstance(node.op, ast.And) else "|"
    result = _node(node.values[0], depth)
    for value in node.values[1:]:
        result = Binary(node.col_offset, operator, result, _node(value, depth))
    return result
