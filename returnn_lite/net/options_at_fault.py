"""Which option of a layer a mistake is about, where what found it knows only the value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from returnn_lite.config.decode import option_names, option_types, values_of_type
from returnn_lite.layers.errors import LayerError
from returnn_lite.layers.initializers import initializer
from returnn_lite.net.specs import LayerSpec


def at_option(spec: LayerSpec, error: LayerError) -> LayerError:
    """The error with the option that it is about, where what raised it did not know the layer's options."""
    return LayerError(error.message, error.hint, _option_of(spec, error), error.item)


def _option_of(spec: LayerSpec, error: LayerError) -> str:
    loss = spec.common.loss
    size_target = (loss.size_target or "").removeprefix("layer:")
    if error.option == "target" and size_target and repr(size_target) in error.message:
        return "size_target"
    if error.option:
        return error.option
    given = (loss.loss_opts or {}).values()
    if any(isinstance(value, str) and repr(value) in error.message for value in given):
        return "loss_opts"
    return next((name for name, value in _values(spec, "initializer") if _fails_with(value, error.message)), "")


def _fails_with(value: Any, message: str) -> bool:
    try:
        initializer(value)
    except LayerError as error:
        return error.message == message
    return False


def option_that_says(spec: LayerSpec, reference: str) -> str:
    """The option that refers to a layer; empty if none does by itself (a nested network may)."""
    if reference in spec.sources:
        return "from"
    return next((name for name, value in _values(spec, "layer") if value == reference), "")


def references_in_options(spec: LayerSpec) -> Iterator[tuple[str, str]]:
    """Every option that refers to a layer, with the reference; sources are none."""
    return ((option, value) for option, value in _values(spec, "layer") if isinstance(value, str))


def axis_option_in(spec: LayerSpec, message: str) -> str:
    """The option whose axis description a message quotes; empty if there is none."""
    return next(
        (name for name, value in _values(spec, "axis") if isinstance(value, str) and repr(value) in message), ""
    )


def _values(spec: LayerSpec, kind: str) -> Iterator[tuple[str, Any]]:
    common = spec.common
    for group in (spec.layer, common.output, common.parameters, common.loss, common.inputs):
        types = option_types(type(group))
        for name in option_names(type(group)):
            for value in values_of_type(types[name], getattr(group, name), kind):
                for item in value if isinstance(value, list | tuple) else [value]:
                    yield name, item
