"""Parameters of one name and shape each in the place of others; what does not fit is told all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.lazy_numpy import np
from returnn_lite.weights.gates import WeightsError
from returnn_lite.weights.stacks import read_stack, systems

if TYPE_CHECKING:
    from returnn_lite.weights.gates import Array

MOST_TOLD = 8
"""How many mistakes a message names."""


def replaced_parameters(
    given: Mapping[str, Array], wanted: Mapping[str, Array], archive: str, origin: str
) -> tuple[dict[str, Array], list[str]]:
    """The `given` arrays with the dtypes of the `wanted` ones, and what a user may want to know of that.

    Raises WeightsError for names that are missing or no parameters, for other shapes, and for what is no number.
    """
    wrong = [_unknown(name, array, given, wanted) for name, array in given.items() if name not in wanted]
    wrong += [f"has no '{name}' {list(array.shape)}" for name, array in wanted.items() if name not in given]
    both = {name: (array, wanted[name]) for name, array in given.items() if name in wanted}
    wrong += [
        f"'{name}' has shape {list(array.shape)}, the parameter has {list(old.shape)}"
        for name, (array, old) in both.items()
        if array.shape != old.shape
    ]
    wrong += [
        f"'{name}' is {array.dtype}, the parameter {old.dtype}"
        for name, (array, old) in both.items()
        if not _fits(array, old)
    ]
    wrong += [
        f"'{name}' has {bad} of {array.size} numbers that are infinite or none (NaN)"
        for name, (array, _) in both.items()
        if array.dtype.kind in "fc" and (bad := int((~np.isfinite(array)).sum()))
    ]
    if wrong:
        more = [f"{len(wrong) - MOST_TOLD} more do not fit"] if len(wrong) > MOST_TOLD else []
        raise WeightsError(f"'{archive}' for {origin}: {'; '.join([*wrong[:MOST_TOLD], *more])}.{_of_system(given)}")
    rounded = [
        f"'{name}' is rounded from {array.dtype} to {old.dtype}"
        for name, (array, old) in both.items()
        if array.dtype.itemsize > old.dtype.itemsize
    ]
    return {name: array.astype(old.dtype) for name, (array, old) in both.items()}, rounded


def _unknown(name: str, array: Array, given: Mapping[str, Array], wanted: Mapping[str, Array]) -> str:
    """Of parameters of its shape that are missing, the one with the nearest name is meant."""
    same = [other for other, old in wanted.items() if other not in given and old.shape == array.shape]
    hint = nearest_hint(name, same) or (f" Of this shape there is '{same[0]}'." if len(same) == 1 else "")
    return f"'{name}' {list(array.shape)} is no parameter{'.' if hint.startswith(' Did') else ''}{hint}".rstrip(".")


def _fits(array: Array, old: Array) -> bool:
    return array.dtype == old.dtype or (array.dtype.kind == old.dtype.kind == "f")


def _of_system(given: Mapping[str, Array]) -> str:
    """Whether the names are those of a recurrent layer of another system."""
    for system in systems():
        try:
            read_stack(given, system)
        except WeightsError:
            continue
        return f" The names are those of a layer of {system}: --layer PATH --layout {system}"
    return ""
