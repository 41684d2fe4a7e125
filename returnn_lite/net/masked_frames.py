"""The dim of the masked frames in a loop (`out_spatial_dim` of a masked computation), used by other layers there.

In a loop there is no such axis: a layer whose options name it runs over the frames at which the mask is true, so it is
built under the mask, with the loop's steps in place of the dim.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from returnn_lite.dims import Dim
from returnn_lite.ir import Value
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.masked import MaskedComputation, with_dim
from returnn_lite.net.specs import LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


@dataclass(frozen=True)
class MaskedFrames:
    """The frames of a loop at which `mask` is true. `declared` is the config's dim for them, `frames` that of the
    clock."""

    declared: Dim
    mask: Value
    frames: Dim


def masked_frames_of(scope: Scope, spec: LayerSpec) -> MaskedFrames | None:
    """The masked frames that the options of a layer name, if they do. Raises LayerError for those of two masks."""
    dims = set(_dims_of(spec.layer)) if not isinstance(spec.layer, MaskedComputation) else set()
    named = [found for dim in dims if (found := _named(scope, dim)) is not None]
    if len(named) > 1:
        raise LayerError(
            f"the options name the frames of two masks: {', '.join(one.declared.name for one in named)}",
            "Use one of them in a layer.",
        )
    return named[0] if named else None


def _named(scope: Scope, dim: Dim) -> MaskedFrames | None:
    """What a masked computation of this loop's body names so, here or in a network around, which is built first."""
    around: Scope | None = scope
    while around is not None and around.place == scope.place:
        for name, spec in around.spec.layers.items():
            if spec.class_name == "masked_computation" and dim in _dims_of(
                getattr(spec.layer, "out_spatial_dim", None)
            ):
                around.layer(name)
        if dim in around.masked_frames:
            return around.masked_frames[dim]
        around = around.parent
    return None


def _dims_of(options: Any) -> list[Dim]:
    if isinstance(options, Dim):
        return [options]
    if isinstance(options, dict):
        return [dim for value in options.values() for dim in _dims_of(value)]
    if isinstance(options, list | tuple | set):
        return [dim for value in options for dim in _dims_of(value)]
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return [dim for field in dataclasses.fields(options) for dim in _dims_of(getattr(options, field.name))]
    return []


def over_steps(spec: LayerSpec, named: MaskedFrames, over: Dim) -> LayerSpec:
    """The layer with the loop's steps in place of the masked frames."""
    return replace(spec, layer=with_dim(spec.layer, named.declared, over))
