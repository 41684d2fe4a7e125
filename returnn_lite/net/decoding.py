"""Options of layers and losses decoded in the network's context: which group an option belongs to, and what it
refers to."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from returnn_lite.config.decode import Report, decode, meant_options, option_names, unknown_option
from returnn_lite.config.diagnostics import AnyPath, nearest
from returnn_lite.config.kinds import options_with_kind
from returnn_lite.layers.base import Layer
from returnn_lite.layers.errors import LayerError
from returnn_lite.layers.expected_loss import ExpectedLoss
from returnn_lite.layers.initializers import initializer
from returnn_lite.layers.loss import Loss
from returnn_lite.layers.losses import LOSSES
from returnn_lite.layers.sequence_losses import SEQUENCE_LOSSES
from returnn_lite.net.common_options import InputOptions, LossOptions, OutputOptions, ParameterOptions
from returnn_lite.net.context import NetworkContext

Options = TypeVar("Options")
_LOSSES: tuple[type[Loss], ...] = (*LOSSES, *SEQUENCE_LOSSES, ExpectedLoss)
LOSS_CLASSES: Mapping[str, type[Loss]] = {name: cls for cls in _LOSSES for name in cls.class_names}
GROUPS = (OutputOptions, ParameterOptions, LossOptions, InputOptions)
OF_NETWORK = ("class", "from")


@dataclasses.dataclass(frozen=True)
class CommonOptions:
    """The options that every layer takes."""

    output: OutputOptions
    parameters: ParameterOptions
    loss: LossOptions
    inputs: InputOptions


def decode_options(
    context: NetworkContext, cls: type[Options], values: Mapping[str, Any], path: AnyPath
) -> Options | None:
    """An option class whose dict has nothing else in it; mistakes are reported, then the result is None."""
    names = option_names(cls)
    ok = True
    for name in values:
        if name not in names:
            context.report_at((*path, name), f"unknown option '{name}'", unknown_option(name, names))
            ok = False
    decoded = decode(cls, values, _reporter(context, path), meant_options(values, names))
    return decoded if ok else None


def decode_layer(
    context: NetworkContext, cls: type[Layer], options: Mapping[str, Any], path: AnyPath
) -> tuple[Layer, CommonOptions] | None:
    """A layer's own options and the common ones; mistakes of both are reported, then the result is None.

    A name that the layer declares is its own, even if it is a common one as well.
    """
    layer_class: type = cls
    known = _known_options(layer_class)
    ok = True
    for name in options:
        if name not in known:
            hint = cls.instead_of(name) or unknown_option(name, known)
            context.report_at((*path, name), f"unknown option '{name}' of {cls.class_names[0]}", hint)
            ok = False
    report = _reporter(context, path)
    layer = decode(cls, options, report, meant_options(options, known))
    right = _options_right(context, cls, layer, options, path)
    own = option_names(cls)
    rest = {name: value for name, value in options.items() if name not in own}
    groups = [
        _defaults(group) if rest.keys().isdisjoint(option_names(group)) else decode(group, rest, report)
        for group in GROUPS
    ]
    if (
        not ok
        or layer is None
        or any(group is None for group in groups)
        or not _initializers_right(layer, options, report)
        or not right
    ):
        return None
    output, parameters, loss, inputs = groups
    assert isinstance(output, OutputOptions)
    assert isinstance(parameters, ParameterOptions)
    assert isinstance(loss, LossOptions)
    assert isinstance(inputs, InputOptions)
    return layer, CommonOptions(output, parameters, loss, inputs)


def _options_right(
    context: NetworkContext, cls: type[Layer], layer: Layer | None, options: Mapping[str, Any], path: AnyPath
) -> bool:
    """Whether the layer finds no mistakes in its options, or in those of them that could be decoded; those that it
    finds are reported."""
    if layer is None:
        failed: set[str] = set()
        decode(cls, options, lambda name, *_: failed.add(name))
        layer = decode(cls, {name: value for name, value in options.items() if name not in failed}, lambda *_: None)
    wrong = [] if layer is None else list(layer.mistakes())
    for error in wrong:
        context.report_at((*path, *error.path), error.message, error.hint)
    return not wrong


def _initializers_right(layer: Layer, options: Mapping[str, Any], report: Report) -> bool:
    """Whether the initialisers that are given are some; mistakes are reported."""
    ok = True
    for option in options_with_kind(type(layer), "initializer"):
        if options.get(option) is None:
            continue
        try:
            initializer(options[option])
        except LayerError as error:
            report(option, error.message, error.hint)
            ok = False
    return ok


@functools.cache
def _known_options(cls: Hashable) -> tuple[str, ...]:
    """The names of all options that a layer class may have, in order."""
    assert isinstance(cls, type)
    return tuple(sorted({*option_names(cls), *OF_NETWORK, *(name for group in GROUPS for name in option_names(group))}))


@functools.cache
def _defaults(group: Hashable) -> object:
    """A group of common options of which none is given."""
    assert isinstance(group, type)
    return group()


def _reporter(context: NetworkContext, path: AnyPath) -> Report:
    """Reports mistakes in the options of one dict."""

    def report(name: str, message: str, hint: str) -> None:
        context.report_at((*path, name), message, hint)

    return report


def unknown_name(name: str, candidates: list[str]) -> str:
    """A did-you-mean, or the list of what there is."""
    found = nearest(name, candidates)
    return f"Did you mean '{found}'?" if found is not None else f"There are {', '.join(sorted(candidates))}."
