"""Runs a recurrent unit: one step in the body of a loop, or the frames of a sequence."""

from __future__ import annotations

from collections.abc import Mapping

from returnn_lite.dims import Dim, DimKind, MarkedType
from returnn_lite.ir.ops.axes import Reverse
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, Outputs
from returnn_lite.layers.cells.given_states import GivenStates, entry_of
from returnn_lite.layers.cells.initial_states import initial_state, keep_last_states
from returnn_lite.layers.cells.states_of_layers import dims_around, state_of_layer
from returnn_lite.layers.cells.unit import DimsOfStates, States, Steps, Unit


def run_unit(
    b: LayerBuilder,
    x: View,
    unit: Unit,
    states: DimsOfStates,
    steps: Steps | None,
    given: GivenStates,
) -> Outputs:
    """The whole sequence in these steps, or one of the loop around; with the state at the end, or after the step."""
    types = {key: _type(dims, _dtype(x)) for key, dims in states.items()}
    if steps is None:
        return _one_step(b, x, unit, types, given)
    if given.each is not None:
        b.fail("'state' is for one step of a loop", "Give initial_state.", "state")
    inits = {key: initial_state(b, key, given, types, unit, steps.over) for key in types}
    if unit.whole is None:
        outputs = _over_steps(b, unit, steps, inits, types)
    else:
        output, frames = unit.whole(steps, inits)
        final = {key: _final(b, frames[key], steps, inits[key]) for key in types}
        outputs = Outputs(output, {}, final, held=_held(output, frames, final))
    keep_last_states(b, inits, outputs.state, given, types)
    return outputs


def _type(dims: tuple[Dim, ...], dtype: str) -> MarkedType:
    """Of a state; one number for each frame of an encoder has no features."""
    return MarkedType(dims, dtype, feature=dims[-1] if dims[-1].kind is DimKind.FEATURE else None)


def _dtype(x: View) -> str:
    """Of the states: that of the source, unless these are labels."""
    return x.type.dtype if x.type.is_float else "float32"


def _one_step(b: LayerBuilder, x: View, unit: Unit, types: Mapping[str, MarkedType], given: GivenStates) -> Outputs:
    if b.loop is None:
        b.fail(f"the source has no time axis to run over: {x.type}")
    if given.each is not None:
        if given.initial is not None:
            b.fail("'state' and 'initial_state' exclude each other", "Leave out one.", "state")
        each = {key: entry_of(b, given.each, key, given.keys, "state") for key in types}
        before = {
            key: state_of_layer(b, key, each[key], types, {*dims_around(unit, None), *types[key].dims}, "state")
            for key in types
        }
        output, after = unit.step(unit.inputs, before)
        return Outputs(output, {}, after)
    inits = {key: initial_state(b, key, given, types, unit) for key in types}
    delays = {key: b.delay(key, types[key], inits[key]) for key in types}
    output, after = unit.step(unit.inputs, {key: delay.now for key, delay in delays.items()})
    for key, delay in delays.items():
        delay.next = after[key]
        if b.ir.clock and given.initial not in (None, 0, "zeros"):
            b.ir.hold(after[key], inits[key])
    keep_last_states(b, inits, after, given, types)
    return Outputs(output, {}, after)


def _over_steps(b: LayerBuilder, unit: Unit, steps: Steps, inits: States, types: Mapping[str, MarkedType]) -> Outputs:
    """The whole sequence as a loop over the steps of the unit; backwards over the reversed frames."""
    time, reverse = steps.over, steps.reverse
    inputs = [_backwards(b, value, time) if reverse else value for value in unit.inputs]
    point = b.ir.point
    b.ir.open_loop(time, unroll=steps.unroll)
    try:
        delays = {key: b.delay(key, types[key], inits[key]) for key in types}
        output, after = unit.step([b.ir.element(value) for value in inputs], {k: d.now for k, d in delays.items()})
        for key, delay in delays.items():
            delay.next = after[key]
        stacks = [(f"{b.name}:output", output), *((f"{b.name}:{key}", value) for key, value in after.items())]
        outer = b.ir.close_loop(stacks)
    except BaseException:
        b.ir.abandon_loops(point)
        raise
    whole = _frames_first(b, outer[f"{b.name}:output"], time)
    final = {key: b.apply(Last(time), outer[f"{b.name}:{key}"], inits[key]) for key in types}
    return Outputs(_backwards(b, whole, time) if reverse else whole, {}, final, held=_held(output, after, final))


def _held(output: View, states: States, final: States) -> View | None:
    """At the end the state that the output is; None if it is none."""
    return next((final[key] for key, state in states.items() if state.of is output.of), None)


def _frames_first(b: LayerBuilder, frames: View, time: Dim) -> View:
    """A stack of steps with its frames before the dims that each step has, as the source has them."""
    outer = (DimKind.BATCH, DimKind.BEAM)
    inner = [dim for dim in frames.type.dims if dim.kind not in outer and dim is not time]
    return b.reorder(frames, (time, *inner)) if time in frames.type else frames


def _backwards(b: LayerBuilder, frames: View, time: Dim) -> View:
    return b.apply(Reverse(time), frames) if time in frames.type else frames


def _final(b: LayerBuilder, frames: View, steps: Steps, init: View) -> View:
    """The state when the sequence is through: its last frame, or its first when it ran backwards."""
    if not steps.reverse:
        return b.apply(Last(steps.over), frames, init)
    first = b.gather(frames, b.constant(0, "int32"), steps.over, clip=True)
    return b.select(b.binary("greater", b.length(steps.over), 0), first, init)
