"""Streams: sequences in pieces, of which each batch has the next one in the same place (`streams` of `rec`).

The number of the stream that a place of the batch had is kept for the next batch as the states are; where it is another
one there, a stream begins.
"""

from __future__ import annotations

from returnn_lite.dims import DimKind, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.kept import STATEFUL, kept_parameter


def goes_on(b: LayerBuilder, reference: str) -> View:
    """Of each sequence, whether that in the same place of the batch before was of the same stream: bool [B]. Raises
    LayerError for a layer that gives no numbers."""
    return b.binary("equal", _kept(b), _numbers(b, reference))


def keep_numbers(b: LayerBuilder, reference: str) -> None:
    """Has the numbers of this batch's streams kept for the next one."""
    b.ir.assign(_kept(b), _numbers(b, reference))


def _numbers(b: LayerBuilder, reference: str) -> View:
    """The number of each sequence's stream, from 1 on: 0 is kept where there was none."""
    numbers = b.layer(reference)
    type_ = numbers.type
    if type_.dtype not in ("int32", "int64") or any(dim.kind is not DimKind.BATCH for dim in type_.dims):
        hint = "Give an entry of extern_data with 'shape: []' and 'dtype: int32'; of one with frames, gather the first."
        b.fail(f"'{reference}' has no number for each sequence: {type_}", hint, "streams")
    return b.add(b.cast(numbers, "int32"), 1)


def _kept(b: LayerBuilder) -> View:
    """Those of the batch before."""
    name = "rec/keep_streams"
    return b.surroundings.parameter(kept_parameter(name, b.batch, MarkedType((), "int32"), STATEFUL))
