"""The JSON schema: it accepts all of `configs/`, knows every option, and refuses what is no config."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from returnn_lite.config.compose import read_composed
from returnn_lite.config.schema import Schema, options_schema
from returnn_lite.config.source import parse_yaml, read_yaml
from returnn_lite.engine.options import OPTION_CLASSES
from returnn_lite.layers.registry import LAYERS
from returnn_lite.net.decoding import GROUPS
from returnn_lite.net.schema import schema_of_configs

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> Schema:
    return schema_of_configs({name: s for cls in OPTION_CLASSES for name, s in options_schema(cls).items()})


@pytest.fixture(scope="module")
def validator(schema: Schema) -> jsonschema.Draft7Validator:
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_published_configs_are_valid(path: Path, validator: jsonschema.Draft7Validator) -> None:
    assert [error.message for error in validator.iter_errors(read_composed(path).data)] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_published_configs_are_valid_as_written(path: Path, validator: jsonschema.Draft7Validator) -> None:
    """As an editor sees them: a file that extends another has only what it changes."""
    assert [error.message for error in validator.iter_errors(read_yaml(path).data)] == []


@pytest.mark.parametrize(
    "text",
    [
        "extends: base.yaml\nnetwork: {a: {class: linaer}}",
        "extends: base.yaml\nnetwork: {a: 3}",
        "extends: base.yaml\nnetwork: {a: {class: linear, from: data, n_out: 3, with_bais: true}}",
        "network: {a: {n_out: 3}}",
        "network: {a: null}",
        "task: train",
    ],
)
def test_only_changes_may_lack_a_class(text: str, validator: jsonschema.Draft7Validator) -> None:
    assert list(validator.iter_errors(parse_yaml(text, "net.yaml").data))


def properties_of_layers(schema: Schema) -> dict[str, dict[str, Any]]:
    found = {}
    for rule in schema["definitions"]["layer"]["allOf"]:
        for name in rule["if"]["properties"]["class"]["enum"]:
            found[name] = rule["then"]["properties"]
    return found


def test_every_option_of_every_layer_is_in_it(schema: Schema) -> None:
    properties = properties_of_layers(schema)
    assert sorted(properties) == sorted(LAYERS)
    common = {field.name for group in GROUPS for field in dataclasses.fields(group)}
    for name, cls in LAYERS.items():
        own = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        assert (own | common | {"class", "from"}) - set(properties[name]) == set(), name
        assert all(options["description"] for key, options in properties[name].items() if key in own), name


def test_every_key_of_the_engine_is_in_it(schema: Schema) -> None:
    names = {field.name for cls in OPTION_CLASSES for field in dataclasses.fields(cls)}
    assert names - set(schema["properties"]) == set()


@pytest.mark.parametrize(
    "network",
    [
        "{output: {from: data}}",
        "{output: {class: linaer, from: data}}",
        "{output: {class: linear, form: data, n_out: 3}}",
        "{output: {class: linear, from: data, n_out: three}}",
        "{output: {class: rec, from: data, unit: {x: {class: linear, from: data, with_bias: 3}}}}",
        "{output: {class: linear, from: data, n_out: 3, dropout: much}}",
        "[output]",
    ],
)
def test_mistakes_are_invalid(network: str, validator: jsonschema.Draft7Validator) -> None:
    assert list(validator.iter_errors(parse_yaml(f"network: {network}", "net.yaml").data))
