"""Steps along the frequency axis: windows of the features of a frame, and what a cell has at each of them."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder


def count_of_windows(size: int, window: int, skip: int) -> int:
    """How many windows begin `skip` apart and fit into a size; 0 or less if none does."""
    return (size - window) // skip + 1


def windows(b: CellBuilder, x: View, starts: Sequence[int], window: Dim, steps: Dim) -> View:
    """The windows of the features that begin at `starts`: x[starts[k] + i] at [steps k, window i]."""
    feature = b.feature_of(x)
    return at_steps(b, [b.slice(x, feature, start, window) for start in starts], steps, window)


def at_steps(b: CellBuilder, parts: Sequence[View], steps: Dim, each: Dim) -> View:
    """Values [each], one for each step, as one [steps, each]."""
    joined = linear_dim([(each, len(parts))], 0)
    value = b.concat([(part, each) for part in parts], joined)
    return b.as_features(b.split_dim(value, joined, (steps, each)), each)


def by_step(b: CellBuilder, x: View, steps: Dim, each: Dim) -> list[View]:
    """The values [each] of x [steps, each], in the order of the steps."""
    count = steps.size or 1
    joined = linear_dim([(each, count)], 0)
    parts = b.split(b.merge_dims(x, (steps, each), joined), joined, [each] * count)
    return [b.with_feature(part, each) for part in parts]
