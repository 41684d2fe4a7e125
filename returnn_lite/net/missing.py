"""What is said of references that lead nowhere, or in a circle."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.layers.base import LayerError
from returnn_lite.net.context import NetworkContext
from returnn_lite.net.option_values import option_that_says, references_in_options
from returnn_lite.net.overlays import owner
from returnn_lite.net.references import Reference, ReferenceKind, is_read_around, parse_reference
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec

NOT_DATA = {
    "seq_tag": "a network does not see the tags of its sequences",
    "seq_idx": "a network does not see where in the dataset its sequences are",
    "batch_dim": "a network computes on each sequence alone, whatever the batch",
}
"""Keys that RETURNN has without an entry in extern_data."""
OR_WORDS = ("initial_output", "initial_state")
"""Options whose strings may be words as well, such as `zeros`."""


def no_such_key(context: NetworkContext, key: str) -> LayerError:
    """A data key that nothing gives."""
    if key in NOT_DATA:
        return LayerError(f"'data:{key}' is not supported: {NOT_DATA[key]}", "Give it as an entry of extern_data.")
    if key in context.registered:
        return LayerError(
            f"'data:{key}' is not there yet: the layer that registers it needs this one, or is in another network",
            "Read that layer itself.",
        )
    known = list(dict.fromkeys([*context.extern_data.entries, *context.registered]))
    hint = nearest_hint(key, known).strip() or f"The keys are {', '.join(known)}."
    return LayerError(f"there is no data key '{key}'", hint)


def no_such_layer(scope: Scope, name: str) -> LayerError:
    """A layer that a network has not, nor an overlay and the network below it."""
    hint = nearest_hint(name, list(scope.spec.layers)).strip()
    if scope.tag:
        hint = "It is there only in search or in evaluation." if name in scope.spec.absent else hint
        return LayerError(f"there is no layer '{name}' in the overlay '{scope.tag}' of the network", hint)
    if scope.parent is not None and name in scope.parent.spec.layers:
        hint = f"Write 'base:{name}' for the layer of the network around."
    elif name in scope.context.extern_data:
        hint = f"Write 'data:{name}' for the data key."
    network = f"the network of '{scope.path}'" if scope.path else "the network"
    return LayerError(f"there is no layer '{name}' in {network}", hint)


def no_such_part(scope: Scope, reference: Reference, parts: Sequence[str]) -> LayerError:
    """Something below a layer that has these parts."""
    wanted = "/".join(reference.parts)
    hint = nearest_hint(wanted, list(parts)).strip()
    child = scope.children.get(reference.name)
    if child is not None and reference.parts[0] in child.spec.layers:
        hint = f"Set is_output_layer: true on '{reference.parts[0]}' to see it from outside of the loop."
    return LayerError(f"layer '{reference.name}' has no part '{wanted}'", hint)


def no_step_before(scope: Scope, name: str) -> LayerError:
    """`prev:` of a layer that a loop has not."""
    hint = nearest_hint(name, list(scope.spec.layers)).strip()
    return LayerError(f"there is no layer '{name}' to read the step before of", hint)


def no_network_around(text: str) -> LayerError:
    """`base:` in the outermost network."""
    return LayerError(f"'base:{text}': the network is not inside another one", "Leave 'base:' out.")


def report_missing_if_unread(scope: Scope) -> None:
    """Reports targets, and layers to collocate with, that are not there: a layer without a loss may never read its
    target, and nothing reads the other."""
    specs = [*scope.spec.layers.values(), *(s for layers in scope.spec.overrides.values() for s in layers.values())]
    for spec in specs:
        loss, inputs = spec.common.loss, spec.common.inputs
        for option, given, missing in (
            ("target", loss.target, _missing_target),
            ("size_target", loss.size_target, _missing_target),
            ("collocate_with", inputs.collocate_with, _missing),
        ):
            for text in [given] if isinstance(given, str) else given or ():
                error = missing(scope, text)
                if error is not None:
                    scope.context.report(spec, error.at(option))


def report_missing_references(scope: Scope, spec: LayerSpec) -> None:
    """Reports what the options of a layer that fails refer to without its being there, as far as it is not reported
    yet: building stops at the first."""
    for option, text in references_in_options(spec):
        if option == "target" or (option in OR_WORDS and not text.startswith("base:")):
            continue
        error = _missing(scope, text)
        if error is None:
            continue
        scope.context.report(spec, error.at(option))


def _missing_target(scope: Scope, key: str) -> LayerError | None:
    if key.startswith("layer:"):
        return _missing(scope, key.removeprefix("layer:"))
    return None if key in _data_keys(scope) else no_such_key(scope.context, key)


def _missing(scope: Scope, text: str) -> LayerError | None:
    """What is wrong with a reference, as far as it can be said before what it leads to is built."""
    try:
        reference = parse_reference(text)
    except LayerError as error:
        return error
    if scope.parent is not None and scope.seen is not None and is_read_around(reference):
        return _missing(scope.parent, text)
    if reference.kind is ReferenceKind.DATA:
        return None if reference.name in _data_keys(scope) else no_such_key(scope.context, reference.name)
    if reference.kind is ReferenceKind.BASE:
        return no_network_around(reference.name) if scope.parent is None else _missing(scope.parent, reference.name)
    found = owner(scope, reference)
    if reference.name in {*found.spec.layers, *found.spec.broken, *found.spec.absent}:
        return None
    if reference.kind is ReferenceKind.LAYER:
        return no_such_layer(found, reference.name)
    return no_step_before(found, reference.name) if reference.kind is ReferenceKind.PREVIOUS else None


def _data_keys(scope: Scope) -> Collection[str]:
    """The data keys that a scope sees, or will see once all is built."""
    extern_data = scope.context.extern_data
    keys = {*extern_data.entries, *extern_data.broken, *scope.context.registered}
    around: Scope | None = scope
    while around is not None:
        keys |= set(around.inputs)
        around = around.parent
    return keys


def report_cycle(scope: Scope, cycle: Sequence[str]) -> None:
    """Reports layers that need each other, at the one that reads what comes after it in the config: that is where the
    cycle closes for a reader."""
    order = {name: number for number, name in enumerate(scope.spec.layers)}
    pairs = list(itertools.pairwise(cycle))
    reader, read = next((pair for pair in pairs if order[pair[0]] <= order[pair[1]]), pairs[-1])
    spec = scope.spec.layers[reader]
    error = LayerError(
        f"the layers {' -> '.join(cycle)} need each other in the same step",
        "In a loop, read one of them from the step before with 'prev:'.",
        option_that_says(spec, read),
    )
    scope.context.report(spec, error)
