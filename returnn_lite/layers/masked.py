"""Masked computation: layers that run only at the steps at which a mask is true (SEMANTICS 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from returnn_lite.config.options import AxisSpec, DimSpec, LayerDict, LayerRef, option
from returnn_lite.dims import Dim, Masked
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.elementwise import AsIndex
from returnn_lite.ir.ops.masks import Compress, Hold
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Building, Layer, LayerBuilder, Mode, Outputs, UnitRequest
from returnn_lite.layers.constants import renamed
from returnn_lite.layers.loop_axis import axis_or_loop


class MaskedComputation(Layer, names=("masked_computation",)):
    """Runs `unit` at the steps at which `mask` is true; in a loop its value is held at the others.

    Before the first of these it is the unit's `initial_output`, or the output of its `initial_state`; 0 by default.
    Outside of a loop the result has only the frames at which the mask is true. The mask does not count beyond a
    sequence's length. With `masked_from` the k-th frame of that sequence is what the unit gets at the k-th such step.
    """

    source_count = (0, None)
    picks_frames = True

    mask: LayerRef = option("a bool layer")
    unit: LayerDict = option("the layer; 'data' is its source")
    masked_from: LayerRef | None = option("a sequence that has only the masked frames already", default=None)
    in_spatial_dim: AxisSpec | None = option(
        "the dim that the mask is over; default the time of the mask", default=None
    )
    out_spatial_dim: DimSpec | None = option("the dim of the masked frames", default=None)

    def build(self, b: LayerBuilder, *sources: View) -> Building:
        mask = b.layer(self.mask)
        if mask.type.dtype != "bool":
            b.fail(f"the mask '{self.mask}' is {mask.type}, not bool", "Use a compare layer.", "mask")
        if b.loop is not None and b.loop not in mask.type:
            return (yield from self._in_loop(b, mask, sources))
        return (yield from self._outside(b, mask, sources))

    def _in_loop(self, b: LayerBuilder, mask: View, sources: tuple[View, ...]) -> Building:
        assert b.loop is not None
        if self.in_spatial_dim is not None and axis_or_loop(b, self.in_spatial_dim, mask) is not b.loop:
            b.fail(f"the mask is over the steps of the loop, {b.loop}", "Leave it out.", "in_spatial_dim")
        clock = b.ir.clock
        dim = Masked(clock[-1].dim if clock else b.loop, mask.of, b.name, mask.of.type.dims)
        with b.ir.masked(mask, dim):
            inputs = sources if self.masked_from is None else (self._next_frame(b, self.masked_from),)
            outputs: Outputs = yield self._unit(b, inputs, _as_it_is)
            return replace(held(b, outputs, "Give initial_output in the unit.", "unit"), masked=(mask, dim))

    def _next_frame(self, b: LayerBuilder, name: LayerRef) -> View:
        """The frame of `masked_from` for this step: as many frames in as the mask was true before."""
        frames = b.layer(name)
        time = frames.type.default_time or next((dim for dim in frames.type.dims if dim.is_ragged), None)
        if time is None or b.ir.varies_in_loop(frames):
            b.fail(
                f"'{name}' is no sequence of masked frames from around the loop: {frames.type}",
                "Give a layer from around with 'base:', or let the unit compute the frames from 'from'.",
                "masked_from",
            )
        return b.gather(frames, b.apply(StepIndex()), time, clip=True)

    def reads_sources(self, mode: Mode) -> bool:
        return self.masked_from is None

    def named_frames(self) -> Dim | None:
        return self.out_spatial_dim if isinstance(self.out_spatial_dim, Dim) else None

    def result_options(self) -> Mapping[str, Any]:
        return self.unit

    def layers_inside(self) -> Mapping[str, Any]:
        unit = self.unit
        while unit.get("class") == "masked_computation":
            unit = unit.get("unit", {})
        inside: Mapping[str, Any] = unit.get("subnetwork", {}) if unit.get("class") == "subnetwork" else {}
        return inside

    def _outside(self, b: LayerBuilder, mask: View, sources: tuple[View, ...]) -> Building:
        over = b.axis(self.in_spatial_dim if self.in_spatial_dim is not None else "T", mask)
        if self.masked_from is not None:
            if self.out_spatial_dim is not None:
                b.fail("masked_from has the dim of the masked frames", "leave it out", "out_spatial_dim")
            frames: Outputs = yield self._unit(b, (b.layer(self.masked_from),), _as_it_is)
            return frames
        dim = masked_dim(b, mask, over)

        def compressed(x: View) -> View:
            return b.apply(Compress(over, dim), x, mask) if over in x.type else x

        outputs: Outputs = yield self._unit(b, tuple(compressed(source) for source in sources), compressed)
        if self.out_spatial_dim is None:
            return outputs
        parts = {name: self._named(b, value, dim) for name, value in outputs.parts.items()}
        return replace(outputs, value=self._named(b, outputs.value, dim), parts=parts)

    def _named(self, b: LayerBuilder, x: View, dim: Dim) -> View:
        return renamed(b, x, dim, self.out_spatial_dim, "out_spatial_dim") if dim in x.type else x

    def _unit(self, b: LayerBuilder, sources: tuple[View, ...], seen: Callable[[View], View]) -> UnitRequest:
        inputs = {"data": b.concat_features(sources)} if sources else {}
        unit = self.unit
        if b.loop is not None and b.ir.clock and self.out_spatial_dim is not None:
            if not isinstance(self.out_spatial_dim, Dim):
                b.fail("the dim of the masked frames is not static", "Give a dynamic Dim.", "out_spatial_dim")
            # Step by step the masked frames are some of the loop's: what runs over them runs over its steps.
            unit = with_dim(unit, self.out_spatial_dim, b.loop)
        return UnitRequest(unit, inputs, seen, "unit")


class Unmask(Layer, names=("unmask",)):
    """Puts a masked sequence back: each frame has the value of the last frame at which the mask was true.

    In a loop a masked layer's value is held anyway, so that this is the identity there; of a sequence from around the
    loop it gives the frame for the step, as many frames in as the mask has been true.
    """

    source_count = (1, 1)
    keeps_type_of = "from"

    mask: LayerRef = option("the mask of the masked computation")
    skip_initial: bool = option(
        "the source's first frame is that before the mask is first true, which is zero by default", default=False
    )

    def build(self, b: LayerBuilder, x: View) -> View:
        mask = b.layer(self.mask)
        if b.loop is not None:
            time = x.type.default_time
            if time is None or b.loop in mask.type or b.ir.differs_by_step(x):
                return x
            return self._indexed(b, x, time, b.cumsum(b.cast(mask, "int32"), b.loop))
        if self.skip_initial:
            over, time = b.axis("T", mask), x.type.default_time
            if time is None or time is over:
                b.fail(f"'{x.name}' is not masked: {x.type}", "Give a layer that a masked_computation made.", "from")
            counts = b.cumsum(b.cast(mask, "int32"), over)
            y = self._indexed(b, x, time, counts)
            return b.with_time(y, over)
        masked = next((dim for dim in x.type.dims if isinstance(dim, Masked) and dim.mask is mask.of), None)
        if masked is None:
            masked = next((dim for dim in x.type.dims if isinstance(dim, Masked)), None)
        if masked is None:
            x, masked = self._of_other_name(b, x, mask)
        varying = next((dim for dim in x.type.dims if masked in b.ir.lengths_over(dim)), None)
        if varying is not None:
            b.fail(
                f"how many {varying} there are differs between the frames of the mask, so that they can't be held",
                "Reduce or pick these before.",
                "from",
            )
        zero = b.constant(0, x.type.dtype, (), x.type.sparse)
        return b.apply(Hold(masked, masked.dim), x, mask, zero)

    def _indexed(self, b: LayerBuilder, x: View, time: Dim, count: View) -> View:
        """The frame of x for as many frames at which the mask has been true so far."""
        if self.skip_initial:
            return b.gather(x, count, time, clip=True)
        frame = b.gather(x, b.sub(count, 1), time, clip=True)
        return b.select(b.binary("greater", count, 0), frame, b.like(0, frame))

    def _of_other_name(self, b: LayerBuilder, x: View, mask: View) -> tuple[View, Masked]:
        """x with the dim of the masked frames in place of its own time, which has as many (`out_spatial_dim`)."""
        over, time = b.axis("T", mask), x.type.default_time
        if time is None or time is over:
            b.fail(f"'{x.name}' is not masked: {x.type}", "Give a layer that a masked_computation made.", "from")
        masked = masked_dim(b, mask, over)
        return b.relabel(x, time, masked, f"'{b.name}' puts as many frames back as its mask has"), masked


def with_dim(options: Any, old: Dim, new: Dim) -> Any:
    """Options, nested ones and those of a decoded layer as well, with a dim in place of another."""
    if isinstance(options, Mapping):
        return {key: with_dim(value, old, new) for key, value in options.items()}
    if isinstance(options, list | tuple):
        return type(options)(with_dim(value, old, new) for value in options)
    if isinstance(options, Layer):
        names = [field.name for field in fields(options)]  # type: ignore[arg-type]  # __init_subclass__ makes it one
        return type(options)(**{name: with_dim(getattr(options, name), old, new) for name in names})
    return new if isinstance(options, Dim) and options == old else options


def _as_it_is(x: View) -> View:
    """In a loop the clocks say which frames a layer under a mask gets."""
    return x


def held(b: LayerBuilder, outputs: Outputs, hint: str, option: str) -> Outputs:
    """What a layer under a mask shows to the others. Before the mask is first true, that is the layer's initial_output,
    and of a layer inside the one of its own (`m/x` that of x). Call it under the mask.

    Raises LayerError for labels without one; `hint` says what to do.
    """
    value, parts = outputs.value, outputs.parts
    first = b.surroundings.initial_output(value.type)
    if first is None and value.type.sparse is not None:
        b.fail("there is no value before the mask is first true: the output is sparse", hint, option)
    users = Counter([value, *parts.values()])

    def shown(x: View, first: View | None) -> View:
        if is_under_further_mask(b.ir, x):
            return x
        on_clock = on_this_clock(b.ir, x)
        if first is None:  # a state's output is held from that state, all else from zero
            return on_clock
        own = own_value(b.ir, x) if on_clock is x and users[x] > 1 else on_clock
        b.ir.hold(own, first)
        return own

    shown_parts = {name: shown(x, b.surroundings.initial_output(x.type, name)) for name, x in parts.items()}
    return replace(outputs, value=shown(value, first), parts=shown_parts)


def is_under_further_mask(b: Builder, x: View) -> bool:
    """True for what has frames that a mask in this one makes: at other steps it can't be held, and who reads it there
    is told."""
    made = b.clock_of_frames(x)
    return made is not None and len(made[1]) > len(b.clock)


def on_this_clock(b: Builder, x: View) -> View:
    """What a unit passes on as it got it (copy) is held as well where it is read outside of the mask."""
    node = b.producer(x)
    if node is not None and node.clock == b.clock:
        return x
    return own_value(b, x)


def own_value(b: Builder, x: View) -> View:
    """The same value as one of its own on the builder's clock."""
    return b.apply(AsIndex(x.type.sparse), x)


def masked_dim(b: LayerBuilder, mask: View, over: Dim) -> Masked:
    """The dim of the frames of `over` at which the mask is true."""
    return Masked(over, mask.of, b.name, tuple(dim for dim in mask.of.type.dims if dim is not over))


LAYERS = (MaskedComputation, Unmask)
