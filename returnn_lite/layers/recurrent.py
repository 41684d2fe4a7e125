"""Recurrent layers with named units: `rec`, `rnn_cell`, and what reads their state (SEMANTICS 3.1, 3.2, 11).

The input product is a primitive of its own, so that it can leave a loop; the unit is one step where the source is one
step of the loop around, else the whole sequence.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

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
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Building, Layer, LayerBuilder, LoopRequest, Outputs
from returnn_lite.layers.cells.builder import CellBuilder, Inits
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.decoding import cell_of, unit_of
from returnn_lite.layers.cells.directions import BothDirections, Merge
from returnn_lite.layers.cells.given_states import GivenStates
from returnn_lite.layers.cells.references import Path, references_of
from returnn_lite.layers.cells.running import run_unit
from returnn_lite.layers.cells.wrapping import unit_on
from returnn_lite.layers.errors import UNKNOWN_SIZE, LayerError
from returnn_lite.layers.kept import KEPT


class _WithUnit(Layer):
    """A layer that runs a unit, unless that is a network: its states are those of the unit."""

    joins_sources = True
    inner_scope = "rec"

    unit: NetDict | CellSpec
    unit_opts: dict[str, Any] | None = option("options of a unit that is a name", default=None)
    in_loop: ClassVar[bool] = False
    """Whether names mean what they do in `rnn_cell`."""
    initial_state: LayerRef | float | int | dict[str, Any] | list[Any] | None = option("the state before", default=None)
    state: LayerRef | dict[str, Any] | None = option("the state before, at each step of the loop", default=None)

    def joins(self) -> bool:
        if is_network(self.unit):
            return True
        try:
            return len(self.runs.input_names()) == 1
        except LayerError:  # which `build` reports
            return True

    def state_keys(self) -> tuple[str, ...]:
        if is_network(self.unit):
            return ()
        try:
            return self.runs.state_keys()
        except LayerError:  # which `build` reports
            return ()

    @classmethod
    def references_inside(cls, options: Mapping[Any, Any]) -> Iterator[tuple[Path, str]]:
        return references_of(options)

    @functools.cached_property
    def cell(self) -> Cell:
        """The unit, if it is no network. Raises LayerError."""
        return unit_of(self.unit, self.unit_opts, in_loop=self.in_loop)

    @property
    def runs(self) -> Cell | BothDirections:
        """What has the states: the unit, or its copies in both directions. Raises LayerError."""
        return self.cell

    @property
    def given_states(self) -> GivenStates:
        """What the options say of the states."""
        return GivenStates(self.initial_state, self.state, self.state_keys())

    def on_sources(
        self, b: LayerBuilder, cells: CellBuilder, sources: Sequence[View], reverse: bool = False
    ) -> Outputs:
        """The cell on its sources: one step where there are no frames, else the whole sequence."""
        x, time = sources[-1], cells.frames
        _require_frames(b, sources, time)
        out = self._out(b, x)
        unit = unit_on(cells, self.cell, sources, out)
        states = self.cell.states(cells, x.type, out)
        return run_unit(b, x, unit, states, time, reverse, self.given_states)

    def _out(self, b: LayerBuilder, x: View) -> Dim:
        """The feature dim of the output, of the size that the cell says or the options of the layer do."""
        size, out = self.cell.out_size_on(x.type), b.surroundings.out_feature()
        if out is None and size is None:
            b.fail(*UNKNOWN_SIZE, "")
        if out is None:
            assert size is not None
            return b.new_feature(size)
        if size is not None and out.size is not None and out.size != size:
            b.fail(f"the unit has {size} features, but n_out is {out.size}", "Leave one of them out.")
        return out

    def begins_with_state(self) -> bool:
        return bool(self.state_keys()) and self.given_states.initial not in (None, 0, "zeros")


class Rec(_WithUnit, names=("rec",)):
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
        "the states before are those that the batch before ended with, in an epoch's first batch zero", default=False
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
    unroll: bool = option("how the loop is run; the result is the same", default=False)
    back_prop: bool | None = option("False stops gradients", default=None)
    use_global_rec_step_offset: bool = option(
        "steps are counted from a number that a program around the graph feeds",
        default=False,
        unsupported="no program feeds one. Leave it out; add a number to ':i' for steps that begin later",
    )
    include_eos: bool = option("whether the step that ends a sequence counts", default=False)
    debug: bool | None = option("has no influence on results", default=None)

    def build(self, b: LayerBuilder, *sources: View) -> Outputs | Building:
        return self._loop(b, sources) if is_network(self.unit) else self._run(b, sources)

    def _loop(self, b: LayerBuilder, sources: tuple[View, ...]) -> Building:
        for name in ("unit_opts", "initial_state", "state", "merge", "unit_backward"):
            if getattr(self, name) is not None:
                b.fail(f"{name} is for units with a name, not for a network", "Leave it out.", name)
        outputs: Outputs = yield _loop_request(b, self, sources)
        return outputs

    def _run(self, b: LayerBuilder, sources: tuple[View, ...]) -> Outputs:
        if not sources:
            b.fail("a unit needs a source", "Give 'from'.", "from")
        inits = Inits(self.forward_weights_init, self.recurrent_weights_init, self.bias_init)
        time = self._time(b, _of_frames(sources))
        if self.stateful and self.initial_state is not None:
            b.fail("the states before are those of the batch before", "Leave out initial_state.", "stateful")
        if self.direction == "both":
            outputs = self._both_ways(b, sources, time, inits)
        else:
            for name in ("merge", "unit_backward"):
                if getattr(self, name) is not None:
                    b.fail(f"{name} is for both directions", "Give 'direction: both', or leave it out.", name)
            cells = CellBuilder(b, "rec", inits, self.input_projection, time)
            outputs = self.on_sources(b, cells, sources, self.direction == -1)
        if self.back_prop is not False:
            return outputs
        parts = {name: b.stop_gradient(part) for name, part in outputs.parts.items()}
        return Outputs(b.stop_gradient(outputs.value), parts, outputs.state)

    @property
    def runs(self) -> Cell | BothDirections:
        return self.both if self.direction == "both" else self.cell

    @property
    def given_states(self) -> GivenStates:
        return replace(super().given_states, initial=KEPT[0]) if self.stateful else super().given_states

    @functools.cached_property
    def both(self) -> BothDirections:
        """The unit in both directions; a list is a stack of such. Raises LayerError."""
        names = ("unit", "unit" if self.unit_backward is None else "unit_backward")
        units = [getattr(self, name) for name in names]
        lists = [unit for unit in units if isinstance(unit, list | tuple)]
        merge = self.merge or "concat"
        if not lists:
            own = self.cell
            other = own if self.unit_backward is None else cell_of(self.unit_backward, ("unit_backward",))
            return BothDirections([own], [other], merge, stacked=False)
        if len(lists) != 2 or not lists[0] or len(lists[0]) != len(lists[1]):
            raise LayerError("a list of units needs one of as many backwards", "Give two lists.", "unit_backward")
        forward, backward = (
            [cell_of(one, (name, i)) for i, one in enumerate(unit)] for name, unit in zip(names, lists, strict=True)
        )
        return BothDirections(forward, backward, merge, stacked=True)

    def _both_ways(self, b: LayerBuilder, sources: tuple[View, ...], time: Dim | None, inits: Inits) -> Outputs:
        if time is None:
            b.fail("one step of a loop can't run in both directions", "Put the layer outside of the loop.", "direction")
        if self.state is not None:
            b.fail("'state' is for one step of a loop", "Give initial_state.", "state")
        _require_frames(b, sources, time)

        def builder_of(name: str) -> CellBuilder:
            return CellBuilder(b, f"rec/{name}", inits, self.input_projection, time)

        return self.both.run(b, builder_of, sources, time, self.given_states)

    def _time(self, b: LayerBuilder, x: View) -> Dim | None:
        if self.axis is None:
            time = x.type.default_time
            if time is None and b.loop is None:
                b.fail(f"the source has no time axis to run over: {x.type}", "Give 'axis'.", "axis")
            return time
        if isinstance(self.axis, Dim) and self.axis is b.loop:
            return None
        return b.axis(self.axis, x)


def _require_frames(b: LayerBuilder, sources: Sequence[View], time: Dim | None) -> None:
    """Fails for a source over other frames."""
    for other in sources:
        if time is not None and other.type.default_time not in (None, time):
            b.fail(
                f"the sources have other frames: {other.type}, and those of {time}",
                "Declare one of them with same_dim_tags_as, or use reinterpret_data with size_base.",
                "from",
            )


def _of_frames(sources: Sequence[View]) -> View:
    """The source that says what frames there are: the first one with a time axis."""
    return next((x for x in sources if x.type.default_time is not None), sources[0])


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
    return LoopRequest(layer.unit, source, layer.axis, most, layer.include_eos)


class RnnCell(_WithUnit, names=("rnn_cell",)):
    """One step of a unit in a loop, on a source of one frame; the whole sequence outside of loops."""

    source_count = (1, None)

    in_loop = True

    unit: CellSpec = option("a recurrent cell")
    weights_init: Init | None = option("initialiser of the weights", default=None)
    direction: Literal[1] | None = option("a cell runs forwards", default=None)

    def build(self, b: LayerBuilder, *sources: View) -> Outputs:
        inits = Inits(self.weights_init, self.weights_init)
        frames = _of_frames(sources).type.default_time if b.loop is None else None
        return self.on_sources(b, CellBuilder(b, "rec", inits, frames=frames), sources)


class GetLastHiddenState(Layer, names=("get_last_hidden_state",)):
    """The state of recurrent layers after their last frame; `key` picks one, else all of a layer are joined."""

    source_count = (1, None)

    combine: Literal["concat", "add"] = option("what is done with several layers", default="concat")
    key: str | int | None = option("c, h, or * for all", default="*")

    def build(self, b: LayerBuilder, *sources: View) -> View:
        parts: list[View] = []
        for reference in b.source_names:
            state = b.layer_outputs(reference).state
            if not state:
                b.fail(f"'{reference}' has no state", "Give recurrent layers.", "from")
            if self.key in ("*", None):
                own = [state[name] for name in sorted(state)]
                parts.append(b.concat_features(own) if len(own) > 1 else own[0])
            elif self.key in state:
                parts.append(state[str(self.key)])
            else:
                b.fail(f"'{reference}' has no state '{self.key}'", f"It has {', '.join(state)}.", "key")
        if self.combine == "concat":
            return b.concat_features(parts)
        total = parts[0]
        for part in parts[1:]:
            total = b.add(
                total, b.relabel(part, b.feature_of(part), b.feature_of(total), f"states added by '{b.name}'")
            )
        return total


LAYERS = (Rec, RnnCell, GetLastHiddenState)
