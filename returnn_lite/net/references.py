"""Reference strings: what a name in `from` or in a layer-valued option stands for (SEMANTICS 1.2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from returnn_lite.layers.base import LayerError


class ReferenceKind(enum.Enum):
    """Where a reference points."""

    NONE = "none"
    LAYER = "layer"
    PREVIOUS = "prev"
    BASE = "base"
    DATA = "data"
    STEP = ":i"


@dataclass(frozen=True)
class Reference:
    """`name` is a layer, a data key, or for BASE what the parent resolves; `parts` the path below a layer (`x/a/b`)."""

    kind: ReferenceKind
    name: str = ""
    parts: tuple[str, ...] = ()


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
    if text.startswith("extra"):
        head = text.partition(":")[0]
        if ":" in text and (head == "extra" or head.startswith("extra.")):
            raise LayerError(
                f"'{text}': overlay networks are not supported", "Write the layer out under a name of its own."
            )
    previous = text.startswith("prev:")
    name = text.removeprefix("prev:")
    if name.startswith("prev:"):
        raise LayerError(
            f"'{text}' reads two steps back", "Add a layer that copies 'prev:...' and read that with 'prev:'."
        )
    if (previous and name.startswith(("base:", "data:"))) or name == "":
        raise LayerError(f"'{text}' is not a layer", "'prev:' goes before the name of a layer of the same loop.")
    head, *parts = name.split("/")
    return Reference(ReferenceKind.PREVIOUS if previous else ReferenceKind.LAYER, head, tuple(parts))
