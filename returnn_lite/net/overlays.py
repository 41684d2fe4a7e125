"""Overlay networks: `extra.search:x` is layer x once more, with the same parameters, in a network that lies over the
outermost one (SEMANTICS 1.2).

Only what is asked for is built again. What it reads comes from the network below, but for layers that the config
defines for the overlay, `extra.search:y: {...}`. With `search` among the parts of its tag the overlay searches,
whatever the network below does; without, it does not. In training and evaluation its loops have the steps of their
targets.
"""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.layers.base import LayerError, Mode
from returnn_lite.net.references import NESTED_OVERLAY, Reference, ReferenceKind
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import overlaid


def overlay(scope: Scope, tag: str) -> Scope:
    """The overlay of a tag, over the outermost network; the same one each time. Raises LayerError inside of another
    network."""
    if scope.parent is not None:
        raise LayerError(f"'{tag}:': {NESTED_OVERLAY}", f"Write 'base:{tag}:...', one 'base:' a network around.")
    below = scope.below or scope
    if tag not in below.overlays:
        mode = _mode_of_overlay(below.mode, "search" in tag.split("."))
        spec = overlaid(below.spec, tag, mode)
        below.overlays[tag] = Scope(
            below.context,
            spec,
            "",
            below.parameters,
            below.driver,
            mode,
            below.losses,
            below=below,
            tag=tag,
            marks=below.marks,
        )
    return below.overlays[tag]


def owner(scope: Scope, reference: Reference) -> Scope:
    """The scope that has the layer which a reference names: in an overlay, the network below has what the config does
    not define for it."""
    if reference.kind is ReferenceKind.OVERLAY:
        return overlay(scope, reference.tag)
    if scope.below is None or reference.kind is not ReferenceKind.LAYER:
        return scope
    spec, name = scope.below.spec, reference.name
    is_own = name in spec.overrides.get(scope.tag, {}) or f"{scope.tag}:{name}" in spec.broken
    return scope if is_own else scope.below


def built_in_all(scope: Scope) -> frozenset[str]:
    """The names of the layers of the outermost network that are built, those of overlays with their tags."""
    tagged = {f"{tag}:{name}" for tag, over in scope.overlays.items() for name in over.built}
    return frozenset(scope.built) | tagged


def unused(scope: Scope) -> list[str]:
    """The layers of the outermost network that no output needs, neither here nor in an overlay; those with mistakes are
    not counted."""
    rebuilt = {name for over in scope.overlays.values() for name in (*over.built, *over.failed)}
    found = set(scope.spec.layers) - set(scope.built) - scope.failed - rebuilt
    for tag, layers in scope.spec.overrides.items():
        over = scope.overlays.get(tag)
        tried = {*over.built, *over.failed} if over is not None else set()
        found |= {f"{tag}:{name}" for name in layers if name not in tried}
    return sorted(found)


def _mode_of_overlay(below: Mode, search: bool) -> Mode:
    """Beside losses, a search takes as many steps as the target: the results of both can be compared."""
    return replace(below, search=search, steps_of_target=search and below.losses and not below.search)
