"""One layer in every place it can stand: on whole sequences, in a loop that it can leave, in a cycle that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .case import Case, Net, objective

Layer = Mapping[str, Any]
BOTH = (True, False)
EQUAL_LENGTHS = {"data": (6, 6), "frames": (3, 3), "classes": (3, 3)}
WIDTH = 6
INPUT: Layer = {"class": "linear", "activation": "tanh", "n_out": WIDTH}


def outside(
    name: str,
    layer: Layer,
    *,
    source: str | Sequence[str] = "x",
    more: Net | None = None,
    base: Net | None = None,
    loss: bool = True,
    encoder: bool = False,
    result: str = "probe",
    **options: Any,
) -> Case:
    """The layer "probe" on whole sequences.

    Its input "x" is [B, T, 6] over the time of "frames", or of "data" with `encoder`. `more` and `base` are layers it
    refers to (in a loop `more` stands beside it and `base` outside); `result` is what the loss looks at.
    """
    network: Net = {} if source == "data" else {"x": {**INPUT, "from": "data" if encoder else "data:frames"}}
    network |= {**(base or {}), **(more or {}), "probe": {"from": source, **layer}}
    if loss:
        network |= objective(result)
    return Case(f"{name}.outside", network | {"output": {"class": "copy", "from": result}}, ("output",), **options)


def looped(
    name: str,
    layer: Layer,
    *,
    source: str | Sequence[str] = "x",
    more: Net | None = None,
    loss: bool = True,
    cycle: bool = False,
    flat: Net | None = None,
    base: Net | None = None,
    encoder: bool = False,
    result: str = "probe",
    **options: Any,
) -> Case:
    """The layer "probe" in the body of a rec layer over "frames".

    Its input "x" is [B, 6], or [B, encoder time, 6] with `encoder`. With `cycle` the input depends on the output of the
    step before, through a linear layer on "flat" (given by `flat`, by default the probe itself).
    """
    step_input = ["data:source", "prev:back"] if cycle else "data:source"
    if encoder:
        unit: Net = {"query": {**INPUT, "from": step_input}}
        unit["x"] = {"class": "combine", "kind": "add", "from": ["base:encoder", "query"]}
    else:
        unit = {"x": {**INPUT, "from": step_input}}
    unit |= {**(more or {}), "probe": {"from": source, **layer}, "output": {"class": "copy", "from": result}}
    if cycle or encoder:
        unit |= {"flat": {"class": "copy", "from": "probe"}} if flat is None else flat
        unit["flat"] = {**unit["flat"], "is_output_layer": True}
    if cycle:
        unit["back"] = {"class": "linear", "activation": "tanh", "n_out": 3, "from": "flat", "initial_output": 0}
    network: Net = {**(base or {}), "output": {"class": "rec", "from": "data:frames", "unit": unit}}
    if encoder:
        network["encoder"] = {"class": "linear", "activation": None, "n_out": WIDTH, "from": "data"}
    if loss:
        network |= objective("output/flat" if encoder else "output")
    suffix = "cycle" if cycle else "loop"
    return Case(f"{name}.{suffix}", network, ("output",), optimize=BOTH, **options)


def everywhere(
    name: str, layer: Layer, *, flat: Net | None = None, cycle: bool = True, loss: bool = True, **options: Any
) -> list[Case]:
    """The same layer on whole sequences, in a loop and, unless told otherwise, in a cycle."""
    cases = [outside(name, layer, loss=loss, **options), looped(name, layer, loss=loss, **options)]
    if cycle:
        cases.append(looped(name, layer, loss=loss, cycle=True, flat=flat, **options))
    return cases


def inner(
    name: str, layer: Layer, *, flat: Net | None = None, cycle: bool = True, loss: bool = True, **options: Any
) -> list[Case]:
    """As `everywhere`, for a layer on an axis that is not the loop's: in the loop it works on the encoder's time."""
    if flat is None:
        # The loss looks at this: over an inner dynamic axis RETURNN sums the padding, too.
        flat = {"flat": {"class": "reduce", "mode": "mean", "axis": "T", "from": "probe"}}
    cases = [
        outside(name, layer, loss=loss, encoder=True, **options),
        looped(name, layer, loss=loss, encoder=True, flat=flat, **options),
    ]
    if cycle:
        cases.append(looped(name, layer, loss=loss, encoder=True, cycle=True, flat=flat, **options))
    return cases


def padding_apart(cases: Iterable[Case], reason: str) -> list[Case]:
    """Cases in which RETURNN sees the padding, and each once more on sequences of equal length, where we must agree."""
    result = []
    for case in cases:
        base, _, place = case.name.rpartition(".")
        result += [
            replace(case, differs=reason),
            replace(case, name=f"{base}.equal_lengths.{place}", lengths=EQUAL_LENGTHS),
        ]
    return result
