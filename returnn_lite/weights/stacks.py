"""The weights of recurrent layers of several cells, one on top of the other and in one direction or both, under the
names that each system gives them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.weights.conversion import sums, write
from returnn_lite.weights.gates import Gates, WeightsError
from returnn_lite.weights.layouts import LAYOUTS, layout_for, variants
from returnn_lite.weights.naming import Place, in_scopes, name_in_stack
from returnn_lite.weights.stored import stored_cells

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

Stack = Sequence[Sequence[Gates]]
"""The cells of each layer: forwards, or forwards and backwards."""
DIRECTION = re.compile(r"(?<![^/.])(?:(forward|fwd?)|(backward|bwd?))(?![a-z])")
WITH_BIAS = ("tensorflow", "caffe2")
"""Whose cells always have a bias."""
MOST_TOLD = 6
"""How many arrays a message names."""


def systems() -> list[str]:
    """The systems whose names `read_stack` and `write_stack` know, without the variants of a GRU."""
    found = dict.fromkeys(system for layouts in LAYOUTS.values() for system in layouts)
    return [system for system in found if not system.endswith(("_reset_after", "_reset_before"))]


def read_stack(
    arrays: Mapping[str, Array], system: str, kind: str | None = None, forget_bias: float | None = None
) -> list[list[Gates]]:
    """The cells of a recurrent layer of a system. `kind` is needed where names and shapes leave it open, `forget_bias`
    what is added at run time, if not what the layout says. Raises WeightsError, also if there is any other array."""
    kinds = [one for one in LAYOUTS if variants(one, system) and kind in (None, one)]
    if not kinds:
        what = f"{kind}s" if kind in LAYOUTS else "cells"
        raise WeightsError(f"no {what} in the layout '{system}'.{nearest_hint(system, systems())}")
    renamed = in_scopes(arrays, system)
    named = {name: arrays[old] for name, old in renamed.items()}
    shapes = {name: array.shape for name, array in named.items()}
    cells = stored_cells(shapes, kinds, [one for two in kinds for one in variants(two, system)])
    left = set(named) - {name for cell in cells for name in cell.names(shapes)}
    if left or not cells:
        raise WeightsError(_not_a_cell([renamed[name] for name in left or named], arrays, system, kinds))
    return stacked({cell.scope: cell.gates(named, forget_bias) for cell in cells})


def write_stack(stack: Stack, system: str, forget_bias: float | None = None) -> dict[str, Array]:
    """The arrays of a recurrent layer under the names of a system, without those of the layer. Raises WeightsError for
    what it can't hold."""
    found: dict[str, Array] = {}
    for place, gates in placed(stack):
        whole = gates.with_bias() if system.startswith(WITH_BIAS) else gates
        written = write(whole, layout_for(gates.kind, system, reset_after=gates.reset_after), forget_bias)
        for name, array in written.items():
            found[name_in_stack(name, system, place)] = array
    return found


def sums_of_stack(stack: Stack, system: str, forget_bias: float | None = None) -> list[str]:
    """What `write_stack` adds up, each once."""
    cells = [gates for layer in stack for gates in layer]
    found = (
        one
        for gates in cells
        for one in sums(gates, layout_for(gates.kind, system, reset_after=gates.reset_after), forget_bias)
    )
    return list(dict.fromkeys(found))


def stacked(cells: Mapping[str, Gates]) -> list[list[Gates]]:
    """Cells by scope as a stack: the order of layers is that of the numbers in their names. Raises WeightsError if
    they are none."""
    order = stacked_scopes({scope: (gates.inputs, gates.outputs) for scope, gates in cells.items()})
    return [[cells[scope] for scope in layer] for layer in order]


def stacked_scopes(sizes: Mapping[str, tuple[int, int]]) -> list[list[str]]:
    """The scopes of cells, given the sizes of what each reads and gives, by layer and direction. Raises WeightsError if
    they are no stack."""
    layers: dict[str, dict[bool, str]] = {}
    for scope in sizes:
        backward, name = _without_direction(scope)
        layers.setdefault(name, {})[backward] = scope
    ordered = [layers[name] for name in sorted(layers, key=_natural)]
    if any(False not in layer or len(layer) != len(ordered[0]) for layer in ordered):
        raise WeightsError(f"of these cells some have no other direction: {_named(list(sizes))}")
    found = [[layer[backward] for backward in sorted(layer)] for layer in ordered]
    for below, above in itertools.pairwise(found):
        given = sum(sizes[scope][1] for scope in below)
        for scope in above:
            if sizes[scope][0] != given:
                what = f"the output of {_named(below)} has {given}"
                raise WeightsError(f"'{scope}' reads {sizes[scope][0]} numbers, and {what}: they are no stack")
    return found


def _without_direction(scope: str) -> tuple[bool, str]:
    """Whether a scope says that its cell runs backwards, and the scope without what says so."""
    *_, last = (None, *DIRECTION.finditer(scope))
    return (False, scope) if last is None else (last[2] is not None, scope[: last.start()] + scope[last.end() :])


def _named(scopes: Sequence[str]) -> str:
    return " and ".join(f"'{scope}'" for scope in scopes)


def _natural(text: str) -> list[str | int]:
    """To sort names by the numbers in them."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _not_a_cell(left: Sequence[str], arrays: Mapping[str, Array], system: str, kinds: Sequence[str]) -> str:
    told = [f"'{name}' {list(arrays[name].shape)}" for name in sorted(left)]
    more = ", .." if len(told) > MOST_TOLD else ""
    what = f"{', '.join(told[:MOST_TOLD])}{more}: no part of a" if told else "there is no"
    names = dict.fromkeys(", ".join(LAYOUTS[kind][one].names()) for kind in kinds for one in variants(kind, system))
    return f"{what} cell ({', '.join(kinds)}) of the layout '{system}', which has {'; or '.join(names)}"


def placed(stack: Stack) -> list[tuple[Place, Gates]]:
    """Each cell with its place."""
    return [
        (Place(gates.kind, gates.reset_after, number, len(stack), bool(backward), len(layer) > 1), gates)
        for number, layer in enumerate(stack)
        for backward, gates in enumerate(layer)
    ]
