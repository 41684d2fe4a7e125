"""The JSON schema (draft-07) of configs, derived from the declarations of options: for editors, and as documentation.

The messages that users read come from `decode`, not from here.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from returnn_lite.config.decode import UNIONS, members_of, option_info, option_names, option_types
from returnn_lite.config.options import Kind, UnspecifiedType

Schema = dict[str, Any]
PLAIN: Mapping[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    None: {"type": "null"},
    type(None): {"type": "null"},
}
KINDS: Mapping[str, Schema] = {
    "layer": {"type": "string"},
    "axis": {"type": ["string", "integer", "array"]},
    "dim": {"type": ["integer", "string"]},
    "initializer": {"type": ["number", "string", "object"]},
    "activation": {"type": "string"},
    "expression": {"type": "string"},
    "length": {"type": "string"},
    "network": {"$ref": "#/definitions/network"},
    "layer options": {"$ref": "#/definitions/layer"},
    "function": {"not": {}},
    "cell": {"$ref": "#/definitions/cell"},
}


def value_schema(expected: Any) -> Schema:
    """The schema of a declared type."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Annotated and isinstance(arguments[1], Kind):
        return dict(KINDS[arguments[1].name])
    if origin in UNIONS:
        return _union([value_schema(choice) for choice in members_of(expected) if choice is not UnspecifiedType])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (list, tuple, set):
        return {"type": "array", "items": value_schema(arguments[0]) if arguments else {}}
    if origin is dict:
        return {"type": "object", "additionalProperties": value_schema(arguments[1])}
    return dict(PLAIN.get(expected, {}))


def _union(choices: Sequence[Schema]) -> Schema:
    unique = [choice for index, choice in enumerate(choices) if choice not in choices[:index]]
    if {} in unique:
        return {}
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def options_schema(cls: type) -> dict[str, Schema]:
    """The properties of an option class, with descriptions."""
    types_of_options = option_types(cls)
    properties = {}
    for name in option_names(cls):
        info = option_info(cls, name)
        schema = value_schema(types_of_options[name])
        if info.least is not None:
            schema = {**schema, "minimum": info.least}
        if info.below is not None:
            schema = {**schema, "exclusiveMaximum": info.below}
        note = f" (not supported: {info.unsupported})" if info.unsupported else ""
        properties[name] = {**schema, "description": info.description + note}
    return properties


SOURCES: Schema = {"type": ["string", "array"], "items": {"type": "string"}}
"""A name, or a list of them."""
SOURCES_WITH_AXES: Schema = {
    "type": "array",
    "items": {"type": "array", "items": [{"type": "string"}, KINDS["axis"]], "minItems": 2, "maxItems": 2},
}
"""Pairs of a name and an axis."""


def layer_schema(
    names: Sequence[str], cls: type, common: Mapping[str, Schema], required: Sequence[str], sources: Schema
) -> Schema:
    """The schema of one layer class under its names. `common` are the options that every layer takes, `sources` what
    `from` is."""
    return {
        "if": {"properties": {"class": {"enum": list(names)}}},
        "then": {
            "description": (cls.__doc__ or "").split("\n")[0],
            "properties": {
                "class": {"enum": list(names)},
                "from": dict(sources),
                **common,
                **options_schema(cls),
            },
            "required": ["class", *required],
            "additionalProperties": False,
        },
    }


def cell_schema(names: Sequence[str], cls: type, old_options: Mapping[str, str], required: Sequence[str]) -> Schema:
    """The schema of a recurrent cell under its names. `old_options` are other systems' names of its options."""
    own = options_schema(cls)
    old = {name: own[ours] for name, ours in old_options.items() if ours in own}
    return {
        "if": {"properties": {"class": {"enum": list(names)}}},
        "then": {
            "description": (cls.__doc__ or "").split("\n")[0],
            "properties": {"class": {"enum": list(names)}, **own, **old},
            "required": ["class", *required],
            "additionalProperties": False,
        },
    }


def config_schema(
    layers: Sequence[Schema],
    class_names: Sequence[str],
    cells: Sequence[Schema],
    keys: Mapping[str, Schema],
    title: str,
) -> Schema:
    """The schema of a whole config. One that `extends` others may have layers without a class, which change those of
    the others, and null, which removes them."""
    network = {
        "type": "object",
        "patternProperties": {"^#": {}},
        "additionalProperties": {"$ref": "#/definitions/layer"},
    }
    change = {"type": "object", "not": {"required": ["class"]}}
    changes = {
        **network,
        "additionalProperties": {"anyOf": [{"$ref": "#/definitions/layer"}, change, {"type": "null"}]},
    }
    layer = {
        "type": "object",
        "required": ["class"],
        "properties": {"class": {"enum": sorted(class_names)}},
        "allOf": list(layers),
    }
    named = {"type": "object", "required": ["class"], "properties": {"class": {"type": "string"}}}
    stack = {"type": "array", "items": {"$ref": "#/definitions/cell"}, "minItems": 1}
    cell = {"anyOf": [{"type": "string"}, stack, {**named, "allOf": list(cells)}]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "properties": dict(keys),
        "if": {"required": ["extends"]},
        "then": {"properties": {"network": changes}},
        "else": {"properties": {"network": {"$ref": "#/definitions/network"}}, "required": ["network"]},
        "definitions": {"network": network, "layer": layer, "cell": cell},
    }
