"""Recurrent layers: `rec`, `rnn_cell` (SEMANTICS 3.1, 3.2, 11).

The input product is a primitive of its own, so that it can leave a loop; the unit is one step where the source is one
step of the loop around, else the whole sequence.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal

from returnn_lite.config.options import (
    AxisSpec,
    CellSpec,
    Init,
    LayerRef,
    LengthExpression,
    NetDict,
    is_network,
    option,
)
from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import STEPS_A_ROUND
from returnn_lite.ir.layer_reads import CellRecord
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Building, LayerBuilder, LoopRequest, Outputs
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.decoding import again, cells_of, unit_of
from returnn_lite.layers.cells.directions import BothDirections, Merge
from returnn_lite.layers.cells.given_states import GivenStates
from returnn_lite.layers.cells.inits import Inits
from returnn_lite.layers.cells.streams import keep_numbers
from returnn_lite.layers.cells.unit import Steps
from returnn_lite.layers.errors import LayerError
from returnn_lite.layers.kept import STATEFUL
from returnn_lite.layers.old_recurrences import OLD_OPTIONS
from returnn_lite.layers.recompute import WHAT_IT_IS, Recomputed, RecomputeSpec, recomputed
from returnn_lite.layers.unit_layer import UnitLayer, over_same_frames, source_of_frames

STEPS = "steps"
"""What `recompute` calls all that a unit does but its input products."""


class Rec(UnitLayer, names=("rec",)):
    """A recurrent layer: over the time of its source, or a step of the loop around; or a loop over a network of its
    own."""

    takes_lengths = True
    source_count = (0, None)

    unit: NetDict | CellSpec = option("a recurrent cell, or the layers of a loop", default="lstm")
    direction: Literal[1, -1, "both"] | None = option(
        "-1 runs from each sequence's end to its beginning; both: in each direction a copy of the unit, of a list one "
        "after the other",
        default=None,
    )
    unit_backward: CellSpec | None = option("with both: the unit backwards, if another than forwards", default=None)
    merge: Merge | None = option(
        "with both: what becomes of the outputs, each of which is a part of the layer, NAME/forward and NAME/backward; "
        "default concat; none: no more than these, which are joined where the layer is read",
        default=None,
    )
    stateful: bool = option(
        "the states before are those that the batch before ended with, in an epoch's first batch zero; checkpoints "
        "have them; see streams",
        default=False,
    )
    streams: LayerRef | None = option(
        "with stateful: a layer or data key that has for each sequence the number of its stream, 0 or more; where that "
        "in the same place of the batch before is another one, the states begin anew, as initial_state says",
        default=None,
    )
    input_projection: bool = option("False: the source goes into the gates as it is", default=True)
    max_seq_len: int | LengthExpression | None = option("the most steps, if 'end' decides", default=None)
    max_seq_len_via: LayerRef | None = option(
        "a layer that says it: an int, or one for each sequence, in place of max_seq_len", default=None
    )
    axis: AxisSpec | None = option("the axis to run over; default the time axis", default=None)
    forward_weights_init: Init | None = option("initialiser of the input weights", default=None)
    recurrent_weights_init: Init | None = option("initialiser of the recurrent weights", default=None)
    bias_init: Init | None = option("initialiser of the biases", default=None)
    optimize_move_layers_out: bool | None = option("has no influence on results: see --no-optimize", default=None)
    cheating: bool | Literal["exclusive"] = option("without effect here, as in RETURNN; see choice", default=False)
    unroll: bool | int = option(
        "the steps are written out, with the same numbers: true: all where their number is fixed (the dim has a size), "
        f"else {STEPS_A_ROUND} in each round of the loop; a number: so many in each round",
        default=False,
        least=1,
    )
    back_prop: bool | None = option("False stops gradients", default=None)
    use_global_rec_step_offset: bool = option(
        "steps are counted from a number that a program around the graph feeds",
        default=False,
        unsupported="no program feeds one. Leave it out; add a number to ':i' for steps that begin later",
    )
    include_eos: bool = option("whether the step that ends a sequence counts", default=False)
    debug: bool | None = option("has no influence on results", default=None)
    recompute: RecomputeSpec | None = option(
        f"{WHAT_IT_IS}; of a unit with a name [steps]: all but its input products; default as the layer around says",
        default=None,
    )

    def recomputes(self) -> Recomputed | None:
        inside = list(self.unit) if is_network(self.unit) else [STEPS]
        return None if self.recompute is None else recomputed(self.recompute, inside)

    @classmethod
    def instead_of(cls, option: str) -> str | None:
        return OLD_OPTIONS.get(option)

    def mistakes(self) -> Iterator[LayerError]:
        yield from super().mistakes()
        try:
            self.recomputes()
        except LayerError as error:
            yield from error.all

    def running(self, b: LayerBuilder) -> AbstractContextManager[None]:
        own = self.recomputes()
        if own is None or not own.names or not b.mode.train:
            return nullcontext()
        return b.ir.within(replace(b.ir.origin, recompute=b.name))

    def build(self, b: LayerBuilder, *sources: View) -> Outputs | Building:
        return self._loop(b, sources) if is_network(self.unit) else self._run(b, sources)

    def _loop(self, b: LayerBuilder, sources: tuple[View, ...]) -> Building:
        inits = ("forward_weights_init", "recurrent_weights_init", "bias_init")
        for name in ("unit_opts", "initial_state", "state", "streams", "merge", "unit_backward", *inits):
            if getattr(self, name) is not None:
                b.fail(f"{name} is for units with a name, not for a network", "Leave it out.", name)
        if not self.input_projection:
            b.fail("a network has no input projection of its own", "Leave it out.", "input_projection")
        if self.stateful:
            hint = "Give these 'initial_output: keep_over_epoch', or cells 'initial_state: keep_over_epoch'."
            b.fail("stateful is for units with a name: the layers of a network say what they keep", hint, "stateful")
        outputs: Outputs = yield _loop_request(b, self, sources)
        return self._stopped(b, outputs)

    def _run(self, b: LayerBuilder, sources: tuple[View, ...]) -> Outputs:
        if not sources:
            b.fail("a unit needs a source", "Give 'from'.", "from")
        inits = Inits(self.forward_weights_init, self.recurrent_weights_init, self.bias_init)
        time = self._time(b, source_of_frames(sources))
        self._check_streams(b, time)
        if self.direction == "both":
            outputs = self._both_ways(b, sources, time, inits)
        else:
            for name in ("merge", "unit_backward"):
                if getattr(self, name) is not None:
                    b.fail(f"{name} is for both directions", "Give 'direction: both', or leave it out.", name)
            cells = CellBuilder(b, "rec", inits, self.input_projection, time)
            outputs = self.on_sources(b, cells, sources, self._steps(b, time))
        if self.streams is not None:
            keep_numbers(b, self.streams)
        return self._stopped(b, outputs)

    def _check_streams(self, b: LayerBuilder, time: Dim | None) -> None:
        """Raises LayerError for what does not go with `stateful` and `streams`."""
        if self.streams is None:
            if self.stateful and self.initial_state is not None:
                hint = "Leave out initial_state, or say with 'streams' which sequences begin with it."
                b.fail("the states before are those of the batch before", hint, "stateful")
        elif not self.stateful:
            b.fail("streams says where kept states begin anew", "Give 'stateful: true', too.", "streams")
        elif time is None:
            b.fail("one step of a loop has no streams", "Put the layer outside of the loop.", "streams")

    def _stopped(self, b: LayerBuilder, outputs: Outputs) -> Outputs:
        """The outputs, without gradients if `back_prop` is false."""
        if self.back_prop is not False:
            return outputs
        parts = {name: b.stop_gradient(part) for name, part in outputs.parts.items()}
        return replace(outputs, value=b.stop_gradient(outputs.value), parts=parts)

    def cell_records(self) -> tuple[CellRecord, ...]:
        if is_network(self.unit) or self.direction != "both":
            return super().cell_records()
        return self.both.cell_records(self.unit, self.unit_backward, self.unit_opts)

    @property
    def runs(self) -> Cell | BothDirections:
        return self.both if self.direction == "both" else self.cell

    @property
    def given_states(self) -> GivenStates:
        given = super().given_states
        if not self.stateful:
            return given
        return replace(given, initial=STATEFUL) if self.streams is None else replace(given, streams=self.streams)

    @functools.cached_property
    def both(self) -> BothDirections:
        """The unit in both directions; a list is a stack of such. Raises LayerError."""
        names = ("unit", "unit" if self.unit_backward is None else "unit_backward")
        units = [self.unit, again(self.unit) if self.unit_backward is None else self.unit_backward]
        lists = [unit for unit in units if isinstance(unit, list | tuple)]
        merge = self.merge or "concat"
        if not lists:
            opts = self.unit_opts if self.unit_backward is None else None
            other = unit_of(units[1], opts, in_loop=False, path=(names[1],))
            return BothDirections([self.cell], [other], merge, stacked=False)
        if len(lists) != 2 or not lists[0] or len(lists[0]) != len(lists[1]):
            raise LayerError("a list of units needs one of as many backwards", "Give two lists.", "unit_backward")
        forward, backward = (cells_of(unit, (name,)) for name, unit in zip(names, lists, strict=True))
        return BothDirections(forward, backward, merge, stacked=True)

    def _both_ways(self, b: LayerBuilder, sources: tuple[View, ...], time: Dim | None, inits: Inits) -> Outputs:
        if time is None:
            b.fail("one step of a loop can't run in both directions", "Put the layer outside of the loop.", "direction")
        if self.state is not None:
            b.fail("'state' is for one step of a loop", "Give initial_state.", "state")

        def builder_of(name: str) -> CellBuilder:
            return CellBuilder(b, f"rec/{name}", inits, self.input_projection, time)

        run = functools.partial(self.run_unit, b)
        steps = Steps(time, unroll=self._unroll)
        return self.both.run(b, builder_of, over_same_frames(b, sources, time), steps, run)

    def _steps(self, b: LayerBuilder, time: Dim | None) -> Steps | None:
        """Those over the frames; None for one of the loop around."""
        if time is not None:
            return Steps(time, self.direction == -1, self._unroll)
        if self.direction == -1:
            b.fail("one step of a loop can't run backwards", "Put the layer outside of the loop.", "direction")
        if self.unroll is not False:
            b.fail("one step of a loop can't be unrolled", "Give it to the layer of the loop around.", "unroll")
        return None

    @property
    def _unroll(self) -> int:
        """As of `ir.Loop`."""
        return 1 - self.unroll if isinstance(self.unroll, bool) else self.unroll

    def _time(self, b: LayerBuilder, x: View) -> Dim | None:
        if self.axis is None:
            time = x.type.default_time
            if time is None and b.loop is None:
                b.fail(f"the source has no time axis to run over: {x.type}", "Give 'axis'.", "axis")
            return time
        if isinstance(self.axis, Dim) and self.axis is b.loop:
            return None
        return b.axis(self.axis, x)


def _loop_request(b: LayerBuilder, layer: Rec, sources: tuple[View, ...]) -> LoopRequest:
    """The loop of a rec layer whose unit is a network."""
    if layer.direction not in (None, 1):
        hint = (
            "Leave it out, which is what RETURNN computes; or reverse the source before and the result after the loop."
        )
        b.fail("a loop over a network runs forwards only", hint, "direction")
    source = sources[0] if sources else None
    assert is_network(layer.unit)
    most: int | str | View | None = layer.max_seq_len
    if layer.max_seq_len_via is not None:
        if most is not None:
            b.fail("max_seq_len says it, too", "Leave out one of them.", "max_seq_len_via")
        most = b.layer(layer.max_seq_len_via)
        if most.type.dtype not in ("int32", "int64") or any(dim.kind is not DimKind.BATCH for dim in most.type.dims):
            hint = "Give a layer with one int, or one for each sequence, such as 'length'."
            b.fail(f"the most steps can't be {most.type}", hint, "max_seq_len_via")
    return LoopRequest(layer.unit, source, layer.axis, most, layer.include_eos, layer._unroll)


class RnnCell(UnitLayer, names=("rnn_cell",)):
    """One step of a unit in a loop, on a source of one frame; the whole sequence outside of loops."""

    source_count = (1, None)

    in_loop = True

    unit: CellSpec = option("a recurrent cell")
    weights_init: Init | None = option("initialiser of the weights", default=None)
    direction: Literal[1] | None = option("a cell runs forwards", default=None)

    def build(self, b: LayerBuilder, *sources: View) -> Outputs:
        inits = Inits(self.weights_init, self.weights_init)
        frames = source_of_frames(sources).type.default_time if b.loop is None else None
        steps = None if frames is None else Steps(frames)
        return self.on_sources(b, CellBuilder(b, "rec", inits, frames=frames), sources, steps)


LAYERS = (Rec, RnnCell)
