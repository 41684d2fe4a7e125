"""The dim of the masked frames in a loop (`out_spatial_dim` of a masked computation), used by other layers there.

In a loop there is no such axis: a layer whose options name it runs over the frames at which the mask is true, so it is
built under the mask, with the loop's steps in place of the dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.masked import with_dim
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec


@dataclass(frozen=True)
class MaskedFrames:
    """The frames of a loop at which `mask` is true. `declared` is the config's dim for them, `frames` that of the
    clock."""

    declared: Dim
    mask: View
    frames: Dim


def masked_frames_of(scope: Scope, spec: LayerSpec) -> MaskedFrames | None:
    """The masked frames that the options of a layer name, if they do. Raises LayerError for those of two masks."""
    around = scope.naming_frames
    if not around or spec.layer.picks_frames:
        return None
    named = [found for dim in _dims_of(spec.layer) if (found := _named(around, dim)) is not None]
    if len(named) > 1:
        raise LayerError(
            f"the options name the frames of two masks: {', '.join(one.declared.name for one in named)}",
            "Use one of them in a layer.",
        )
    return named[0] if named else None


def _named(scopes: Sequence[Scope], dim: Dim) -> MaskedFrames | None:
    """What a masked computation names so, which is built first."""
    for scope in scopes:
        for name in scope.spec.named_frames.get(dim, ()):
            masked = scope.layer(name).masked
            if masked is not None:
                return MaskedFrames(dim, *masked)
    return None


def _dims_of(options: Any) -> list[Dim]:
    """The dims in options, nested ones and those of a decoded layer as well."""
    found: dict[Dim, None] = {}
    waiting = [options]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Dim):
            found[value] = None
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            waiting += (getattr(value, field.name) for field in dataclasses.fields(value))
    return list(found)


def over_steps(spec: LayerSpec, named: MaskedFrames, over: Dim) -> LayerSpec:
    """The layer with the loop's steps in place of the masked frames."""
    return replace(spec, layer=with_dim(spec.layer, named.declared, over))
