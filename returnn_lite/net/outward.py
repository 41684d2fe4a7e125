"""What layers refer to: those of the network around them too, as it is seen from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.config.decode import options_with_kind, values_of_kind
from returnn_lite.layers.base import Layer
from returnn_lite.net.context import Found
from returnn_lite.net.decoding import CommonOptions

BASE = "base:"


def references_of(
    layer: Layer,
    common: CommonOptions,
    target: str | None,
    options: Mapping[Any, Any],
    classes: Mapping[str, type[Layer]],
    found: Found,
) -> list[str]:
    """Every layer name in the options, those of nested networks seen from here (their `base:`) included."""
    names = list(values_of_kind(layer, "layer"))
    for group in (common.output, common.parameters, common.loss, common.inputs):
        names += values_of_kind(group, "layer")
    inside = [*_units_in(options, classes)][1:]
    for unit in inside:
        names += _of_unit(unit, classes)
    for network in _networks_in(options, classes):
        names += _outward(network, classes, found)
    for length in values_of_kind(layer, "length"):
        names += (name.removeprefix(BASE) for name in _quoted(length) if name.startswith(BASE))
    if target is not None and target.startswith("layer:"):
        names.append(target.removeprefix("layer:"))
    return [name for name in names if isinstance(name, str)]


def _outward(network: Mapping[Any, Any], classes: Mapping[str, type[Layer]], found: Found) -> tuple[str, ...]:
    """What the layers of a nested network refer to in the one around."""
    networks = [network]
    for inside in networks:  # grows
        networks += (
            one for options in inside.values() for one in _networks_in(options, classes) if id(one) not in found
        )
    for inside in reversed(networks):
        names = (name for options in reversed(inside.values()) for name in _of_layer(options, classes, found))
        outer = dict.fromkeys(name.removeprefix(BASE) for name in names if name.startswith(BASE))
        found[id(inside)] = (inside, tuple(outer))
    return found[id(network)][1]


def _of_layer(options: Any, classes: Mapping[str, type[Layer]], found: Found) -> Iterator[str]:
    """Every string that may be a name in the options of one layer, and what its nested networks refer to."""
    networks = {id(one) for one in _networks_in(options, classes)}
    waiting = [options]
    while waiting:
        value = waiting.pop()
        if id(value) in networks:
            yield from found[id(value)][1]
        elif isinstance(value, str):
            yield from _quoted(value) if "max_len_from(" in value else (value,)
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


def _of_unit(options: Mapping[Any, Any], classes: Mapping[str, type[Layer]]) -> Iterator[str]:
    """What the options of a layer inside refer to, which sees what the layer around it sees."""
    given = options.get("from", ())
    yield from ((given,) if isinstance(given, str) else (name for name in given if isinstance(name, str)))
    layers = options_with_kind(classes[options["class"]], "layer")
    yield from (value for name in layers if isinstance(value := options.get(name), str))


def _units_in(options: Any, classes: Mapping[str, type[Layer]]) -> Iterator[Mapping[Any, Any]]:
    """The options of a layer, of the one among its options, and so on."""
    while isinstance(options, Mapping) and isinstance(name := options.get("class"), str) and name in classes:
        yield options
        options = next((options.get(key) for key in options_with_kind(classes[name], "layer options")), None)


def _networks_in(options: Any, classes: Mapping[str, type[Layer]]) -> Iterator[Mapping[Any, Any]]:
    """The networks that the options of a layer have, and those of the layers whose options are among them."""
    for one in _units_in(options, classes):
        names = options_with_kind(classes[one["class"]], "network")
        yield from (value for name in names if isinstance(value := one.get(name), Mapping))


def _quoted(text: str) -> Iterator[str]:
    """The layers that an expression of lengths names, such as `max_len_from('base:encoder')`."""
    return (part for part in text.replace('"', "'").split("'")[1::2])
