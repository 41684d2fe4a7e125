"""What the options of a layer refer to: each reference is parsed once, when the layer is decoded, and keeps its option.

The layers that nested networks read around them are references of the layer that has these networks (their `base:`
taken off), so that all that it needs is known before it is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.config.kinds import options_of_kind, options_with_kind, values_of_kind
from returnn_lite.config.options import is_network
from returnn_lite.layers.base import Layer, LayerError
from returnn_lite.net.context import Found
from returnn_lite.net.decoding import LOSS_CLASSES, CommonOptions
from returnn_lite.net.references import Reference, ReferenceKind, parse_reference

BASE = "base:"
OR_WORDS = ("initial_output", "initial_state")
"""Options whose strings may be words as well, such as `zeros`."""


@dataclass(frozen=True)
class Link:
    """A reference of a layer and the option that it is in; `may_lead_nowhere` if it need not be one to a layer."""

    option: str
    text: str
    reference: Reference
    may_lead_nowhere: bool = False
    inside: tuple[str | int, ...] = ()
    """Where in the option it is, if that is a dict or a list."""

    @property
    def layer(self) -> str | None:
        """The layer of the same network that is needed in the same step; in an overlay with the overlay's tag. What a
        loss reads is needed only where the loss is built."""
        if self.option == "loss_opts":
            return None
        if self.reference.kind is ReferenceKind.LAYER:
            return self.reference.name
        return f"{self.reference.tag}:{self.reference.name}" if self.reference.kind is ReferenceKind.OVERLAY else None


def links_of(
    layer: Layer,
    common: CommonOptions,
    sources: Sequence[str],
    target: str | None,
    options: Mapping[Any, Any],
    classes: Mapping[str, type[Layer]],
    found: Found,
) -> tuple[Link, ...]:
    """Every reference in the options: first the sources, then those of other options, then those of what is inside.

    Raises LayerError, with the option, for a string that can't be one.
    """
    links = [_link("from", text) for text in sources]
    for group in (layer, common.output, common.parameters, common.loss, common.inputs):
        for option, text in options_of_kind(group, "layer"):
            if isinstance(text, str):
                is_word = option == "target" or (option in OR_WORDS and not text.startswith(BASE))
                links.append(_link(option, text, may_lead_nowhere=is_word))
    links += (_link(path[0], text, inside=path[1:]) for path, text in layer.references_inside(options))
    links += (_link("loss_opts", text) for text in _of_loss(common.loss.loss, common.loss.loss_opts))
    inside: list[str] = []
    if any(isinstance(value, Mapping) for value in options.values()):
        for unit in [*_units_in(options, classes)][1:]:
            inside += _of_unit(unit, classes)
        for network in _networks_in(options, classes):
            inside += _outward(network, classes, found)
    for length in values_of_kind(layer, "length"):
        inside += (name.removeprefix(BASE) for name in _quoted(length) if name.startswith(BASE))
    for text in inside:  # what is wrong with one is said of the layer inside
        try:
            links.append(_link("", text, may_lead_nowhere=True))
        except LayerError:
            continue
    if target is not None and target.startswith("layer:"):
        links.append(_link("target", target.removeprefix("layer:")))
    return tuple(links)


def _link(option: str, text: str, *, may_lead_nowhere: bool = False, inside: tuple[str | int, ...] = ()) -> Link:
    try:
        return Link(option, text, parse_reference(text), may_lead_nowhere, inside)
    except LayerError as error:
        raise error.at(option, inside or None) from error


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


def _of_loss(name: object, options: Any) -> Iterator[str]:
    """What the options of a loss refer to, and those of the one among them."""
    while isinstance(options, Mapping) and isinstance(name, str) and name in LOSS_CLASSES:
        layers = options_with_kind(LOSS_CLASSES[name], "layer")
        yield from (value for option in layers if isinstance(value := options.get(option), str))
        options = options.get("loss")
        name = options.get("class") if isinstance(options, Mapping) else None


def _of_unit(options: Mapping[Any, Any], classes: Mapping[str, type[Layer]]) -> Iterator[str]:
    """What the options of a layer inside refer to, which sees what the layer around it sees."""
    given = options.get("from", ())
    yield from ((given,) if isinstance(given, str) else (name for name in given if isinstance(name, str)))
    cls = classes[options["class"]]
    yield from (value for name in options_with_kind(cls, "layer") if isinstance(value := options.get(name), str))
    yield from (text for _, text in cls.references_inside(options))


def _units_in(options: Any, classes: Mapping[str, type[Layer]]) -> Iterator[Mapping[Any, Any]]:
    """The options of a layer, of the one among its options, and so on."""
    while isinstance(options, Mapping) and isinstance(name := options.get("class"), str) and name in classes:
        yield options
        options = next((options.get(key) for key in options_with_kind(classes[name], "layer options")), None)


def _networks_in(options: Any, classes: Mapping[str, type[Layer]]) -> Iterator[Mapping[Any, Any]]:
    """The networks that the options of a layer have, and those of the layers whose options are among them."""
    for one in _units_in(options, classes):
        names = options_with_kind(classes[one["class"]], "network")
        yield from (value for name in names if is_network(value := one.get(name)))


def _quoted(text: str) -> Iterator[str]:
    """The layers that an expression of lengths names, such as `max_len_from('base:encoder')`."""
    return (part for part in text.replace('"', "'").split("'")[1::2])
