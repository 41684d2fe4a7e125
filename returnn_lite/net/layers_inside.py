"""Layers inside of a layer: what `x/a/b` names, where a subnetwork is x or the unit of x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from returnn_lite.net.specs import UNIT, LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


def layer_of_part(scope: Scope, spec: LayerSpec, parts: Sequence[str]) -> tuple[Scope, LayerSpec]:
    """The layer that a part of a layer is, and its scope, once the layer is built; the layer itself if the part is a
    result of it (`x/0` of a split). A loop's parts are its own: they have its frames."""
    current = scope, spec
    for part in parts:
        inside = _scope_inside(*current)
        if inside is None or part not in inside.spec.layers:
            return scope, spec
        current = inside, inside.spec.layers[part]
    return current


def _scope_inside(scope: Scope, spec: LayerSpec) -> Scope | None:
    inside = scope.children.get(spec.name)
    while inside is not None and UNIT in inside.spec.layers:
        inside = inside.children.get(UNIT)
    return inside if inside is not None and inside.place.level == scope.place.level else None
