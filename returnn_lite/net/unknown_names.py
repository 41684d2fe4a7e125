"""References that lead nowhere: they are found before a layer is built, all at once, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.layers.base import LayerError
from returnn_lite.net.context import NetworkContext
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


def report_unknown_names(scope: Scope, spec: LayerSpec) -> bool:
    """Reports all that the options of a layer refer to without its being there; True if there is something.

    What only a built layer knows is found when it is read: the parts that it makes (`x/0`), and whether a layer that is
    there in another mode is needed in this one.
    """
    wrong = False
    for link in spec.links:
        error = None if link.may_lead_nowhere else _unknown(scope, link.reference)
        if error is not None:
            scope.context.report(spec, error.at(link.option, link.inside or None))
            wrong = True
    return wrong


def report_unknown_targets(scope: Scope) -> None:
    """Reports targets that are not there, also those of layers without a loss, which may never read them."""
    specs = [*scope.spec.layers.values(), *(s for layers in scope.spec.overrides.values() for s in layers.values())]
    for spec in specs:
        loss = spec.common.loss
        for option, given in (("target", loss.target), ("size_target", loss.size_target)):
            for key in [given] if isinstance(given, str) else given or ():
                error = _unknown_target(scope, key)
                if error is not None:
                    scope.context.report(spec, error.at(option))


def _unknown_target(scope: Scope, key: str) -> LayerError | None:
    if not key.startswith("layer:"):
        return _unknown(scope, Reference(ReferenceKind.DATA, key))
    try:
        return _unknown(scope, parse_reference(key.removeprefix("layer:")))
    except LayerError as error:
        return error


def _unknown(scope: Scope, reference: Reference) -> LayerError | None:
    """What is wrong with a reference, as far as it can be said before what it leads to is built."""
    if scope.parent is not None and scope.seen is not None and is_read_around(reference):
        return _unknown(scope.parent, reference)
    name, kind = reference.name, reference.kind
    if kind is ReferenceKind.DATA:
        return None if _has_data(scope, name) else no_such_key(scope.context, name)
    try:
        if kind is ReferenceKind.BASE:
            return no_network_around(name) if scope.parent is None else _unknown(scope.parent, parse_reference(name))
        found = owner(scope, reference)
    except LayerError as error:
        return error
    if name in found.spec.layers or name in found.spec.broken or name in found.spec.absent:
        return None
    if kind in (ReferenceKind.LAYER, ReferenceKind.OVERLAY):
        return no_such_layer(found, name)
    return no_step_before(found, name) if kind is ReferenceKind.PREVIOUS else None


def _has_data(scope: Scope, key: str) -> bool:
    """Whether a scope sees a data key, or will once all is built."""
    extern_data = scope.context.extern_data
    if key in extern_data or key in extern_data.broken or key in scope.context.registered:
        return True
    around: Scope | None = scope
    while around is not None and key not in around.inputs:
        around = around.parent
    return around is not None
