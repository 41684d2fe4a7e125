"""The values of a layer's options by what they mean: which one refers to a layer, or describes an axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from returnn_lite.config.decode import option_names, option_types, values_of_type
from returnn_lite.net.specs import LayerSpec


def option_that_says(spec: LayerSpec, reference: str) -> str:
    """The option that refers to a layer; empty if none does by itself (a nested network may)."""
    if reference in spec.sources:
        return "from"
    if reference in (spec.common.loss.loss_opts or {}).values():
        return "loss_opts"
    return next((name for name, value in _values(spec, "layer") if value == reference), "")


def references_in_options(spec: LayerSpec) -> Iterator[tuple[str, str]]:
    """Every option that refers to a layer, with the reference; sources are none."""
    return ((option, value) for option, value in _values(spec, "layer") if isinstance(value, str))


def option_of_axis(spec: LayerSpec, description: object) -> str:
    """The option that describes an axis so; empty if there is none."""
    return next((name for name, value in _values(spec, "axis") if value is description), "")


def _values(spec: LayerSpec, kind: str) -> Iterator[tuple[str, Any]]:
    common = spec.common
    for group in (spec.layer, common.output, common.parameters, common.loss, common.inputs):
        types = option_types(type(group))
        for name in option_names(type(group)):
            for value in values_of_type(types[name], getattr(group, name), kind):
                for item in value if isinstance(value, list | tuple) else [value]:
                    yield name, item
