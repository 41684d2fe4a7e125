"""Which layers a layer reads, as what is behind its references."""

from __future__ import annotations

from returnn_lite.ir.layer_reads import Read
from returnn_lite.net.overlays import owner
from returnn_lite.net.references import Reference, ReferenceKind, parse_reference
from returnn_lite.net.scope import Scope


def record_read(scope: Scope, reader: str, text: str, *, is_source: bool = False) -> None:
    """Notes that the layer with path `reader` reads the reference `text`, which has been resolved in `scope`."""
    known = scope.context.layers.reads.setdefault(reader, {})
    for read in _reads_of(scope, text):
        known[read] = known.get(read, False) or is_source


def _reads_of(scope: Scope, text: str) -> tuple[Read, ...]:
    """The layers behind a valid reference. The data of a nested network are the sources of the layer around it."""
    around: Scope | None = scope
    while around is not None:
        scope = around
        reference = parse_reference(text)
        if reference.kind in (ReferenceKind.NONE, ReferenceKind.STEP):
            return ()
        if reference.kind is ReferenceKind.DATA and reference.name in scope.inputs:
            return tuple(
                read for read, is_source in scope.context.layers.reads.get(scope.path, {}).items() if is_source
            )
        if reference.kind is ReferenceKind.DATA and scope.parent is None:
            return (Read(f"data:{reference.name}"),)
        if reference.kind is ReferenceKind.BASE:
            text = reference.name
        elif reference.kind is not ReferenceKind.DATA:
            found = owner(scope, reference)
            if reference.name in found.spec.layers:
                return (Read(_path(found, reference), reference.kind is ReferenceKind.PREVIOUS),)
        around = scope.parent
    return ()


def _path(scope: Scope, reference: Reference) -> str:
    """The layer itself, or as deep below it as there are layers; further parts are results of that layer."""
    path = scope.path_of(scope.spec.layers[reference.name])
    child = scope.children.get(reference.name)
    if child is None or not reference.parts or reference.parts[0] not in child.spec.layers:
        return path
    return _path(child, Reference(ReferenceKind.LAYER, reference.parts[0], reference.parts[1:]))
