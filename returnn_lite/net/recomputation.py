"""Which layers are computed again when gradients are taken, by the options `recompute` of those around them.

A layer that is has a mark on what it makes: the path of the layer that says it of all of its insides, or some. Layers
of one mark are computed again together. Of the outermost network each layer has a mark of its own.
What is chosen by memory (`auto`) has no marks here: these are found when the graph is known (`memory/automatic.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from returnn_lite.layers.base import Layer, Recomputed
from returnn_lite.layers.recompute import recomputed
from returnn_lite.memory.automatic import MemoryLimit


@dataclass(frozen=True)
class Marks:
    """The marks of the layers of one namespace: which of them have one, and which; None for their own path."""

    chosen: Recomputed = Recomputed()
    mark: str | None = ""

    def of(self, name: str, path: str) -> str:
        """The mark of a layer, "" for none, unless its own options say another."""
        if not self.chosen.has(name):
            return ""
        return path if self.mark is None else self.mark


NONE = Marks()


def outermost_marks(given: object, names: list[str]) -> Marks:
    """Those of the outermost network, by the config's own key. Raises LayerError."""
    return NONE if given is None else Marks(recomputed(given, names), None)


def mark_of(layer: Layer, around: str, path: str) -> str:
    """The mark of what a layer makes itself, where the layer around gives it the mark `around`. Raises LayerError."""
    own = layer.recomputes()
    if own is None:
        return around
    return path if own.all else ""


def marks_inside(layer: Layer, around: str, path: str) -> Marks:
    """The marks of the layers inside of a layer. Raises LayerError."""
    own = layer.recomputes()
    if own is None:
        return Marks(Recomputed(all=True), around) if around else NONE
    return Marks(own, path)


def limit_of(recompute: Recomputed | None, path: str) -> Iterator[MemoryLimit]:
    """The limit that the option of the layer at a path has in `auto`; of the config's own, "" is the path."""
    if recompute is not None and recompute.memory is not None:
        yield MemoryLimit(path, recompute.memory)
