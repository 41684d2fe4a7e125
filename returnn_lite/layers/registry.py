"""All layer classes by the names that configs use. A module of layers ends with `LAYERS`; it is entered here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from returnn_lite.layers import (
    affine,
    attention,
    axes,
    choice,
    constants,
    contraction,
    convolution,
    dropout,
    edit_distances,
    evaluate,
    gradients,
    indexing,
    joining,
    language_model,
    masked,
    planes,
    pointwise,
    random_numbers,
    recurrent,
    reduction,
    search,
    sequence,
    structure,
    transpose,
)
from returnn_lite.layers.base import Layer

MODULES = (
    affine,
    attention,
    axes,
    choice,
    constants,
    contraction,
    convolution,
    dropout,
    edit_distances,
    evaluate,
    gradients,
    indexing,
    joining,
    language_model,
    masked,
    planes,
    pointwise,
    random_numbers,
    recurrent,
    reduction,
    search,
    sequence,
    structure,
    transpose,
)


def layers_by_name(classes: Iterable[type[Layer]]) -> dict[str, type[Layer]]:
    """The classes under each of their names; no name may be taken twice."""
    found: dict[str, type[Layer]] = {}
    for cls in classes:
        for name in cls.class_names:
            if name in found:
                raise ValueError(f"layer class '{name}' is both {found[name].__name__} and {cls.__name__}")
            found[name] = cls
    return found


LAYERS: Mapping[str, type[Layer]] = layers_by_name(cls for module in MODULES for cls in module.LAYERS)
