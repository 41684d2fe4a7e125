"""Initialisers of parameters: numbers, strings as in RETURNN's configs, and dicts → rules of `ir.ops.sources`."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite.config.expression import Call, ExpressionError, Name, Node, Number, Text, Unary
from returnn_lite.config.expression_parser import parse_expression
from returnn_lite.config.options import Init
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.sources import Initializer
from returnn_lite.layers.errors import LayerError

Arguments = dict[str, float | str]
Rule = tuple[str, tuple[tuple[str, float | str], ...]]
"""Its name, and its arguments with their names."""

# The arguments of each rule in TensorFlow's order, with their defaults.
VARIANCE_SCALING: Arguments = {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"}
RULES: Mapping[str, tuple[str, Arguments]] = {
    "constant": ("constant", {"value": 0.0}),
    "zeros": ("constant", {}),
    "ones": ("constant", {}),
    "random_normal": ("normal", {"mean": 0.0, "stddev": 1.0}),
    "truncated_normal": ("truncated_normal", {"mean": 0.0, "stddev": 1.0}),
    "random_uniform": ("uniform", {"minval": 0.0, "maxval": 1.0}),
    "variance_scaling": ("variance_scaling", VARIANCE_SCALING),
    "glorot_uniform": ("variance_scaling", {}),
    "glorot_normal": ("variance_scaling", {}),
    "xavier": ("variance_scaling", {}),
    "he_uniform": ("variance_scaling", {}),
    "he_normal": ("variance_scaling", {}),
    "lecun_uniform": ("variance_scaling", {}),
    "lecun_normal": ("variance_scaling", {}),
    "orthogonal": ("orthogonal", {"gain": 1.0}),
    "identity": ("identity", {"gain": 1.0}),
}
FIXED: Mapping[str, Arguments] = {
    "zeros": {"value": 0.0},
    "ones": {"value": 1.0},
    "glorot_uniform": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"},
    "glorot_normal": {"scale": 1.0, "mode": "fan_avg", "distribution": "truncated_normal"},
    "xavier": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"},
    "he_uniform": {"scale": 2.0, "mode": "fan_in", "distribution": "uniform"},
    "he_normal": {"scale": 2.0, "mode": "fan_in", "distribution": "truncated_normal"},
    "lecun_uniform": {"scale": 1.0, "mode": "fan_in", "distribution": "uniform"},
    "lecun_normal": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"},
}
# Arguments that say how random numbers are drawn, not from what; the engine's seeds decide.
IGNORED = frozenset({"seed", "dtype", "verify_shape", "class"})
CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": ("fan_in", "fan_out", "fan_avg"),
    "distribution": ("uniform", "normal", "truncated_normal", "untruncated_normal"),
}


def initializer(spec: Init, in_dims: tuple[Dim, ...] = (), out_dims: tuple[Dim, ...] = ()) -> Initializer:
    """The rule that an initialiser of a config means; `in_dims` and `out_dims` give fan in and fan out.

    A number is constant. A string is a name ("glorot_uniform", "xavier", "orthogonal") or a call
    ("random_normal_initializer(stddev=0.1)"); a dict has `class` and arguments. Raises LayerError.
    """
    rule, arguments = _rule_of_scalar(spec) if isinstance(spec, str | float) else _rule(spec)
    return Initializer(rule, arguments, in_dims, out_dims)


@functools.lru_cache(maxsize=256)
def _rule_of_scalar(spec: str | float) -> Rule:
    """`_rule`, once for all the parameters that begin in the same way."""
    return _rule(spec)


def _rule(spec: Init) -> Rule:
    name, positional, given = _read(spec)
    plain = _plain(name)
    if plain not in RULES:
        near = difflib.get_close_matches(plain, RULES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(RULES)}"
        raise LayerError(f"there is no initialiser '{name}'", hint)
    rule, defaults = RULES[plain]
    if len(positional) > len(defaults):
        raise LayerError(f"initialiser '{name}' takes {len(defaults)} arguments, not {len(positional)}")
    arguments = {**FIXED.get(plain, defaults), **dict(zip(defaults, positional, strict=False))}
    for key, value in given.items():
        if key in IGNORED:
            continue
        if key not in defaults:
            known = f"it takes {', '.join(defaults)}" if defaults else "it takes none"
            raise LayerError(f"initialiser '{name}' has no argument '{key}'", known)
        arguments[key] = value
    _check(name, arguments)
    return rule, tuple(arguments.items())


def _read(spec: Init) -> tuple[str, Sequence[Any], Mapping[str, Any]]:
    """Name, positional and named arguments of an initialiser."""
    if isinstance(spec, bool | int | float):
        return "constant", [float(spec)], {}
    if isinstance(spec, Mapping):
        if not isinstance(spec.get("class"), str):
            raise LayerError("an initialiser dict needs 'class'", "such as {class: VarianceScaling, scale: 0.78}")
        return spec["class"], [], {key: value for key, value in spec.items() if key != "class"}
    if not isinstance(spec, str):
        raise LayerError(f"an initialiser is a number, a string or a dict, not {spec!r}")
    try:
        node = parse_expression(spec)
    except ExpressionError as error:
        raise LayerError(f"initialiser '{spec}': {error}") from error
    if isinstance(node, Name):
        return node.name, [], {}
    if isinstance(node, Call) and isinstance(node.function, str):
        named = {key: _literal(spec, argument) for key, argument in dict(node.keywords).items()}
        return node.function, [_literal(spec, argument) for argument in node.arguments], named
    return "constant", [_literal(spec, node)], {}


def _literal(spec: str, node: Node) -> Any:
    if isinstance(node, Number | Text):
        return node.value
    if isinstance(node, Unary) and node.operator == "-":
        return -_literal(spec, node.operand)
    raise LayerError(f"initialiser '{spec}' may only hold numbers and strings")


def _plain(name: str) -> str:
    """A name in the table's spelling: tf.random_normal_initializer, RandomNormal → random_normal."""
    name = name.rpartition(".")[2].removesuffix("_initializer").removesuffix("Initializer")
    if name != name.lower():
        name = "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
    return {"normal": "random_normal", "uniform": "random_uniform"}.get(name, name)


def _check(name: str, arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        if key in CHOICES and value not in CHOICES[key]:
            raise LayerError(f"initialiser '{name}': {key} is one of {', '.join(CHOICES[key])}, not {value!r}")
        if key not in CHOICES and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise LayerError(f"initialiser '{name}': {key} must be a number, not {value!r}")
