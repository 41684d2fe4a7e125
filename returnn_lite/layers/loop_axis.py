"""Axis descriptions of layers that may also mean the axis of the loop around, which a per-step value does not have."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.config.options import AxisSpec
from returnn_lite.dims import Dim, DimError, DimKind
from returnn_lite.dims.axes import resolve_axis
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder


def axis_or_loop(b: LayerBuilder, description: AxisSpec, x: View) -> Dim:
    """The dim of x that a description means, or else the dim of the loop; "T" is the loop's if x has no time dim.

    Raises DimError if it means neither.
    """
    try:
        return b.axis(description, x)
    except DimError:
        if b.loop is None or b.loop in x.type:
            raise
        whole = replace(x.type, dims=(b.loop, *x.type.dims), time=b.loop)
        return resolve_axis(description, whole, b.ir.layers_with)


def for_each_sequence(b: LayerBuilder, x: View) -> View:
    """A value of a step, for each sequence that has a number of steps of its own: also what all sequences share differs
    where it is seen from other steps."""
    assert b.loop is not None
    batch = [dim for dim in b.loop.over if dim.kind is DimKind.BATCH]
    masked = [dim for mask in b.ir.clock for dim in mask.value.type.dims]
    missing = [dim for dim in dict.fromkeys((*batch, *masked)) if dim not in x.type]
    return b.expand(x, *missing) if missing else x
