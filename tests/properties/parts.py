"""What random layers are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SIZE = 3
Layers = dict[str, Any]
Draw = st.DrawFn


@dataclass(frozen=True)
class Place:
    """What a layer may read: layers [SIZE], masks, those of the layers whose step before it may read as well, and
    labels or nothing.

    With `ahead` it may look at steps to come: nothing that it reads depends on it. `alone`: it sees no other sequence.
    """

    sources: list[str]
    masks: list[str]
    both: list[str]
    labels: str = "prev:output"
    ahead: bool = False
    alone: bool = False


def linear(sources: list[str] | str, activation: str | None = None) -> Layers:
    """A layer [SIZE]."""
    return {"class": "linear", "from": sources, "n_out": SIZE, "activation": activation}


def combined(kind: str, *sources: str) -> Layers:
    """Elementwise."""
    return {"class": "combine", "kind": kind, "from": list(sources)}


def a_source(draw: Draw, place: Place) -> str:
    return draw(st.sampled_from(place.sources))


def some_sources(draw: Draw, place: Place) -> list[str]:
    return draw(st.lists(st.sampled_from(place.sources), min_size=1, max_size=2, unique=True))


ATTENTION = {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": SIZE}


def summed(name: str, window: Layers) -> Layers:
    """The sum of the squares of the frames of a window, and the frames one after the other."""
    return {
        f"{name}_w": window,
        f"{name}_f": {"class": "merge_dims", "axes": ["stag:window", "F"], "from": f"{name}_w"},
        name: linear(f"{name}_f", "tanh"),
    }
