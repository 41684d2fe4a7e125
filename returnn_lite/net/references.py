"""Reference strings: what a name in `from` or in a layer-valued option stands for (SEMANTICS 1.2)."""

from __future__ import annotations

import enum
import functools

from returnn_lite.dims.records import record
from returnn_lite.layers.base import LayerError

NESTED_OVERLAY = "overlays are those of the outermost network"


class ReferenceKind(enum.Enum):
    """Where a reference points."""

    NONE = "none"
    LAYER = "layer"
    PREVIOUS = "prev"
    BASE = "base"
    DATA = "data"
    STEP = ":i"
    OVERLAY = "extra"


@record(frozen=True)
class Reference:
    """`name` is a layer, a data key, or for BASE what the parent resolves; `parts` the path below a layer (`x/a/b`).
    `tag` is the overlay network (`extra.search`) that a layer is built in."""

    kind: ReferenceKind
    name: str = ""
    parts: tuple[str, ...] = ()
    tag: str = ""


UNIT = "unit"
"""The name of the one layer in the scope of a unit, such as that of a masked computation."""


def is_read_around(reference: Reference) -> bool:
    """Whether a reference in a unit means what it means in the scope around: whatever is not the unit's own."""
    own = reference.kind is ReferenceKind.LAYER and reference.name == UNIT
    return not own and reference.kind not in (ReferenceKind.DATA, ReferenceKind.STEP, ReferenceKind.NONE)


def overlay_of(text: str) -> tuple[str, str] | None:
    """`extra.search:x` as the overlay's tag and what is meant in it; None for a name without."""
    tag, colon, name = text.partition(":")
    return (tag, name) if colon and (tag == "extra" or tag.startswith("extra.")) else None


@functools.lru_cache(maxsize=1024)
def parse_reference(text: str) -> Reference:
    """Parses a reference. Raises LayerError for forms that can't be."""
    if text == "none":
        return Reference(ReferenceKind.NONE)
    if text == ":i":
        return Reference(ReferenceKind.STEP)
    if text in ("data", "data:data"):
        return Reference(ReferenceKind.DATA, "data")
    if text.startswith("data:"):
        return Reference(ReferenceKind.DATA, text.removeprefix("data:"))
    if text.startswith("base:"):
        return Reference(ReferenceKind.BASE, text.removeprefix("base:"))
    overlay = overlay_of(text)
    if overlay is not None:
        return _in_overlay(text, *overlay)
    previous = text.startswith("prev:")
    name = text.removeprefix("prev:")
    if name.startswith("prev:"):
        raise LayerError(
            f"'{text}' reads two steps back", "Add a layer that copies 'prev:...' and read that with 'prev:'."
        )
    if (previous and (name.startswith(("base:", "data:")) or overlay_of(name))) or name == "":
        raise LayerError(f"'{text}' is not a layer", "'prev:' goes before the name of a layer of the same loop.")
    head, *parts = name.split("/")
    return Reference(ReferenceKind.PREVIOUS if previous else ReferenceKind.LAYER, head, tuple(parts))


def _in_overlay(text: str, tag: str, name: str) -> Reference:
    if overlay_of(name) is not None or name == "" or name.startswith(("prev:", "base:", ":")):
        raise LayerError(f"'{text}' is not a layer", "A layer of the outermost network goes after 'extra...:'.")
    inner = parse_reference(name)
    if inner.kind is ReferenceKind.DATA:
        return inner  # an overlay has the data of the network that it lies over
    return Reference(ReferenceKind.OVERLAY, inner.name, inner.parts, tag)
