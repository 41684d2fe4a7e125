"""Which layers a reference reads, by path: the network as a user wrote it, for `explain` and for pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returnn_lite.ir.layer_reads import Read
from returnn_lite.net.references import Reference, ReferenceKind, parse_reference

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


def record_read(scope: Scope, reader: str, text: str, *, is_source: bool = False) -> None:
    """Notes that the layer with path `reader` reads the reference `text`, which has been resolved in `scope`."""
    known = scope.context.reads.setdefault(reader, {})
    for read in reads_of(scope, text):
        known[read] = known.get(read, False) or is_source


def reads_of(scope: Scope, text: str) -> tuple[Read, ...]:
    """The layers behind a valid reference. The data of a nested network are the sources of the layer around it."""
    around: Scope | None = scope
    while around is not None:
        scope = around
        reference = parse_reference(text)
        if reference.kind in (ReferenceKind.NONE, ReferenceKind.STEP):
            return ()
        if reference.kind is ReferenceKind.DATA and reference.name in scope.inputs:
            return tuple(read for read, is_source in scope.context.reads.get(scope.path, {}).items() if is_source)
        if reference.kind is ReferenceKind.DATA and scope.parent is None:
            return (Read(f"data:{reference.name}"),)
        if reference.kind is ReferenceKind.BASE:
            text = reference.name
        elif reference.kind is not ReferenceKind.DATA:
            owner = scope.owner(reference)
            if reference.name in owner.spec.layers:
                return (Read(_path(owner, reference), reference.kind is ReferenceKind.PREVIOUS),)
        around = scope.parent
    return ()


def _path(scope: Scope, reference: Reference) -> str:
    """The layer itself, or as deep below it as there are layers; further parts are results of that layer."""
    path = scope.path_of(scope.spec.layers[reference.name])
    child = scope.children.get(reference.name)
    if child is None or not reference.parts or reference.parts[0] not in child.spec.layers:
        return path
    return _path(child, Reference(ReferenceKind.LAYER, reference.parts[0], reference.parts[1:]))
