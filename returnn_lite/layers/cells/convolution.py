"""Products of cells that are convolutions: over the spatial dims of a source, and over those of the state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from returnn_lite.config.options import Init
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.ops import contraction
from returnn_lite.ir.ops.contraction import SpatialDim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.spatial_dims import Sizes, spatial_dims


@dataclass(frozen=True)
class Window:
    """What a kernel sees at each place: its part of the spatial dims, and the features."""

    spatial: tuple[SpatialDim, ...]
    feature: Dim
    """The rows of the kernel: the features of a source; those of a state under another name."""

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """The spatial dims of the kernel."""
        return tuple(one.filter for one in self.spatial)

    @property
    def places(self) -> tuple[Dim, ...]:
        """The spatial dims of the product."""
        return tuple(one.output for one in self.spatial)

    def on_state(self, rows: Dim) -> Window:
        """The window of a kernel of the same sizes on a state at the places of this one; the product has as many."""
        return Window(tuple(SpatialDim(s.output, s.output, s.filter, padding="same") for s in self.spatial), rows)

    def kernel(self, b: CellBuilder, name: str, rows: Dim, out: Dim, init: Init) -> View:
        """The parameter [sizes.., rows, out]."""
        dims = (*self.sizes, rows, out)
        return b.param(name, dims, init, in_dims=dims[:-1], out_dims=(*self.sizes, out))

    def product(self, b: CellBuilder, x: View, kernel: View) -> View:
        """The convolution of x with a kernel [sizes.., feature, out]: [places.., out]."""
        (out,) = (dim for dim in kernel.type.dims if dim not in (*self.sizes, self.feature))
        seen = b.relabel(x, b.feature_of(x), self.feature, "rows of recurrent weights")
        product = b.apply(contraction.Conv(self.spatial, self.feature, self.feature, out), seen, kernel)
        return b.with_feature(product, out)


def window_on(
    b: CellBuilder,
    x: MarkedType,
    sizes: Sequence[int],
    strides: Sequence[int] = (1,),
    dilation_rate: Sequence[int] = (1,),
    padding: str = "same",
) -> Window:
    """The window of a kernel on a source, over its spatial dims in order.

    Raises LayerError for a source of more or fewer dims.
    """
    if x.feature is None:
        b.fail(f"a convolution needs a source with features, not {x}", "Put a linear layer before it.")
    places = b.places(x)
    if len(places) != len(sizes):
        found = f"{len(places)} spatial dims [{', '.join(map(str, places))}] of {x}"
        b.fail(f"a kernel of {len(sizes)} sizes can't go over the {found}", "Take a cell of as many dims as there are.")
    return Window(spatial_dims(b, places, sizes, tuple(strides), tuple(dilation_rate), padding), x.feature)


def for_each_dim(b: CellBuilder, given: Sizes, count: int, name: str) -> tuple[int, ...]:
    """The numbers of an option, one for each of so many spatial dims; a single one is for all. Raises LayerError."""
    numbers = (given,) * count if isinstance(given, int) else given
    if len(numbers) != count:
        b.fail(f"{name} has {len(numbers)} numbers for {count} spatial dims", "Give one for each, or one for all.")
    if min(numbers) < 1:
        b.fail(f"{name} has numbers of at least 1, not {min(numbers)}")
    return numbers
