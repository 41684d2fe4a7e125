"""What a cell is once it has its parameters and the values that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.dims import Dim
from returnn_lite.ir.views import View

States = Mapping[str, View]
"""By key; those of a cell inside of another have its name before the key: `0/h`."""
DimsOfStates = Mapping[str, tuple[Dim, ...]]
"""By key, the feature dim last; those of sequences and frames are left out."""


@dataclass(frozen=True)
class Steps:
    """The steps of a unit over the frames of a dim, from the last to the first with `reverse`; `unroll` as of
    `ir.Loop`."""

    over: Dim
    reverse: bool = False
    unroll: int = 1


@dataclass(frozen=True)
class Unit:
    """A cell with its parameters made.

    `inputs` is what does not depend on the state: products of the source, at all frames or at one. `step` goes from
    inputs and states to the output and the next states; `whole` does the same for all steps. Without it a whole
    sequence is a loop over steps.
    """

    inputs: tuple[View, ...]
    step: Callable[[Sequence[View], States], tuple[View, States]]
    whole: Callable[[Steps, States], tuple[View, States]] | None = None
