"""Masked computation: layers that run only at the steps at which a mask is true (SEMANTICS 5)."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.config.options import AxisSpec, DimSpec, LayerDict, LayerRef, option
from returnn_lite.dims import Dim, Masked
from returnn_lite.dims.axes import default_time
from returnn_lite.ir import Value
from returnn_lite.ir.ops.indexing import Compress, Hold
from returnn_lite.layers.base import Layer, LayerBuilder, Outputs
from returnn_lite.layers.constants import renamed


class MaskedComputation(Layer, names=("masked_computation",)):
    """Runs `unit` at the steps at which `mask` is true; in a loop its value is held at the others.

    Outside of a loop the result has only the frames at which the mask is true. The mask does not count beyond a
    sequence's length.
    """

    source_count = (0, None)

    mask: LayerRef = option("a bool layer")
    unit: LayerDict = option("the layer; 'data' is its source")
    masked_from: LayerRef | None = option("a sequence that has only the masked frames already", default=None)
    in_spatial_dim: AxisSpec | None = option(
        "the dim that the mask is over; default the time of the mask", default=None
    )
    out_spatial_dim: DimSpec | None = option("the dim of the masked frames", default=None)

    def build(self, b: LayerBuilder, *sources: Value) -> Outputs:
        mask = b.layer(self.mask)
        if mask.type.dtype != "bool":
            b.fail(f"the mask '{self.mask}' is {mask.type}, not bool", "Use a compare layer.", "mask")
        if b.loop is not None and b.loop not in mask.type:
            return self._in_loop(b, mask, sources)
        return self._outside(b, mask, sources)

    def _in_loop(self, b: LayerBuilder, mask: Value, sources: tuple[Value, ...]) -> Outputs:
        assert b.loop is not None
        clock = b.ir.clock
        dim = Masked(clock[-1].dim if clock else b.loop, mask, b.name, mask.type.dims)
        if self.out_spatial_dim is not None:
            b.fail("in a loop there is no dim of the masked frames", "leave it out", "out_spatial_dim")
        if self.masked_from is not None:
            b.fail(
                "masked_from inside of a loop is not supported",
                "Let the unit compute the frames from 'from'.",
                "masked_from",
            )
        with b.ir.masked(mask, dim):
            return self._unit(b, sources)

    def _outside(self, b: LayerBuilder, mask: Value, sources: tuple[Value, ...]) -> Outputs:
        over = b.axis(self.in_spatial_dim if self.in_spatial_dim is not None else "T", mask)
        if self.masked_from is not None:
            if self.out_spatial_dim is not None:
                b.fail("masked_from has the dim of the masked frames", "leave it out", "out_spatial_dim")
            return self._unit(b, (b.layer(self.masked_from),))
        dim = masked_dim(b, mask, over)
        outputs = self._unit(b, tuple(self._compressed(b, source, mask, over, dim) for source in sources))
        if self.out_spatial_dim is None:
            return outputs
        parts = {name: self._named(b, value, dim) for name, value in outputs.parts.items()}
        return replace(outputs, value=self._named(b, outputs.value, dim), parts=parts)

    def _named(self, b: LayerBuilder, x: Value, dim: Dim) -> Value:
        return renamed(b, x, dim, self.out_spatial_dim, "out_spatial_dim") if dim in x.type else x

    def _compressed(self, b: LayerBuilder, x: Value, mask: Value, over: Dim, dim: Dim) -> Value:
        return b.apply(Compress(over, dim), x, mask) if over in x.type else x

    def _unit(self, b: LayerBuilder, sources: tuple[Value, ...]) -> Outputs:
        inputs = {"data": b.concat_features(sources)} if sources else {}
        return b.surroundings.unit(self.unit, inputs, option="unit")


class Unmask(Layer, names=("unmask",)):
    """Puts a masked sequence back: each frame has the value of the last frame at which the mask was true.

    In a loop a masked layer's value is held anyway, so that this is the identity there.
    """

    source_count = (1, 1)

    mask: LayerRef = option("the mask of the masked computation")
    skip_initial: bool = option(
        "an option of old versions",
        default=False,
        unsupported="frames before the first true mask are zero; leave it out",
    )

    def build(self, b: LayerBuilder, x: Value) -> Value:
        mask = b.layer(self.mask)
        masked = next((dim for dim in x.type.dims if isinstance(dim, Masked) and dim.mask is mask), None)
        if masked is None:
            masked = next((dim for dim in x.type.dims if isinstance(dim, Masked)), None)
        if masked is None and b.loop is None:
            x, masked = self._of_other_name(b, x, mask)
        if masked is None:
            return x
        zero = b.constant(0, x.type.dtype, (), x.type.sparse)
        return b.apply(Hold(masked, masked.dim), x, mask, zero)

    def _of_other_name(self, b: LayerBuilder, x: Value, mask: Value) -> tuple[Value, Masked]:
        """x with the dim of the masked frames in place of its own time, which has as many (`out_spatial_dim`)."""
        over, time = b.axis("T", mask), default_time(x.type)
        if time is None or time is over:
            b.fail(f"'{x.name}' is not masked: {x.type}", "Give a layer that a masked_computation made.", "from")
        masked = masked_dim(b, mask, over)
        return b.relabel(x, time, masked, f"'{b.name}' puts as many frames back as its mask has"), masked


def masked_dim(b: LayerBuilder, mask: Value, over: Dim) -> Masked:
    """The dim of the frames of `over` at which the mask is true."""
    return Masked(over, mask, b.name, tuple(dim for dim in mask.type.dims if dim is not over))


LAYERS = (MaskedComputation, Unmask)
