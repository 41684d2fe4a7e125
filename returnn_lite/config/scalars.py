"""Scalars of YAML's dialect: which texts are numbers, true or false, or nothing, and which are Python's notation."""

from __future__ import annotations

import math
import re

INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+")
FLOAT = re.compile(r"[-+]?([0-9]+(_[0-9]+)*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
SPECIAL |= {key.replace("inf", "Inf").replace("nan", "NaN"): value for key, value in SPECIAL.items()} | {
    key.upper(): value for key, value in SPECIAL.items()
}
LONGEST_NUMBER = 100
"""Characters of an int: no tensor holds one as long, and reading a very long one takes its time."""
NULLS = ("", "null", "~", "Null", "NULL")
BOOLS = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}


def is_text_unquoted(text: str) -> bool:
    """True if the text is read as itself without quotes, as far as its meaning goes."""
    if text in BOOLS or text in NULLS or text in SPECIAL or text in ("None", "<<"):
        return False
    return not (INT.fullmatch(text) or FLOAT.fullmatch(text) or is_tuple(text) or has_open_brackets(text))


def is_tuple(text: str) -> bool:
    """True for `()` and `(a, b)`, but not for `(a + b) * f(c, d)`: the first bracket is closed by the last, and a
    comma is directly within."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth, has_comma = 0, text == "()"
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        has_comma |= letter == "," and depth == 1
        if depth == 0 and index < len(text) - 1:
            return False
    return has_comma


def has_open_brackets(text: str) -> bool:
    """True if a round bracket is not closed, as in what YAML makes of `[(2, 2)]`: the texts `(2` and `2)`."""
    return text.count("(") > text.count(")")
