"""The JSON schema of configs, from the declarations of layers, common options and top-level keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from returnn_lite.config.schema import (
    SOURCES,
    SOURCES_WITH_AXES,
    cell_schema,
    config_schema,
    layer_schema,
    options_schema,
)
from returnn_lite.config.top_level import NETWORK_KEYS, WITHOUT_EFFECT
from returnn_lite.layers.cells.registry import all_cells
from returnn_lite.layers.registry import LAYERS
from returnn_lite.net.decoding import GROUPS


def schema_of_configs(further_keys: Mapping[str, Any]) -> dict[str, Any]:
    """The schema; `further_keys` are the schemas of the keys that the engine reads."""
    common = {name: schema for group in GROUPS for name, schema in options_schema(group).items()}
    classes = {cls: cls.class_names for cls in LAYERS.values()}
    layers = []
    for cls, names in classes.items():
        sources = SOURCES_WITH_AXES if cls.sources_have_axes else SOURCES
        layers.append(layer_schema(names, cls, common, _required(cls), sources))
    cells = [cell_schema(cls.cell_names, cls, cls.old_options, _required(cls)) for cls in all_cells()]
    described = {key: {"description": text} for key, text in {**WITHOUT_EFFECT, **NETWORK_KEYS}.items()}
    return config_schema(layers, list(LAYERS), cells, {**described, **further_keys}, "A config of returnn_lite")


def _required(cls: type) -> list[str]:
    """The options without a default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(cls)
    return [field.name for field in fields if field.default is missing and field.default_factory is missing]
