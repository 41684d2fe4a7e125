"""Runs a recurrent unit: one step in the body of a loop, or the frames of a sequence; and the states it starts from."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from returnn_lite.dims import Dim, DimKind, MarkedType
from returnn_lite.ir.ops.axes import Reverse
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, Outputs
from returnn_lite.layers.cells.given_states import Entry, GivenStates, entry_of
from returnn_lite.layers.cells.unit import DimsOfStates, States, Unit
from returnn_lite.layers.kept import KEPT, kept_parameter
from returnn_lite.layers.search import of_the_best


def run_unit(
    b: LayerBuilder,
    x: View,
    unit: Unit,
    states: DimsOfStates,
    time: Dim | None,
    reverse: bool,
    given: GivenStates,
) -> Outputs:
    """One step if there is no time dim, else the whole sequence; with the state after the step, or at the end."""
    types = {key: _type(dims, _dtype(x)) for key, dims in states.items()}
    if time is None:
        return _one_step(b, x, unit, types, reverse, given)
    if given.each is not None:
        b.fail("'state' is for one step of a loop", "Give initial_state.", "state")
    inits = {key: initial_state(b, key, given, types, unit, time) for key in types}
    if unit.whole is None:
        outputs = _over_steps(b, unit, time, reverse, inits, types)
    else:
        output, frames = unit.whole(time, reverse, inits)
        final = {key: _final(b, frames[key], time, inits[key], reverse) for key in types}
        outputs = Outputs(output, {}, final)
    _keep(b, inits, outputs.state, given)
    return outputs


def _type(dims: tuple[Dim, ...], dtype: str) -> MarkedType:
    """Of a state; one number for each frame of an encoder has no features."""
    return MarkedType(dims, dtype, feature=dims[-1] if dims[-1].kind is DimKind.FEATURE else None)


def _dtype(x: View) -> str:
    """Of the states: that of the source, unless these are labels."""
    return x.type.dtype if x.type.is_float else "float32"


def _one_step(
    b: LayerBuilder, x: View, unit: Unit, types: Mapping[str, MarkedType], reverse: bool, given: GivenStates
) -> Outputs:
    if b.loop is None:
        b.fail(f"the source has no time axis to run over: {x.type}")
    if reverse:
        b.fail("one step of a loop can't run backwards", "Put the layer outside of the loop.", "direction")
    if given.each is not None:
        if given.initial is not None:
            b.fail("'state' and 'initial_state' exclude each other", "Leave out one.", "state")
        each = {key: entry_of(b, given.each, key, given.keys, "state") for key in types}
        before = {
            key: _of_layer(b, key, each[key], types, {*_around(unit, None), *types[key].dims}, "state") for key in types
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
    _keep(b, inits, after, given)
    return Outputs(output, {}, after)


def _over_steps(
    b: LayerBuilder, unit: Unit, time: Dim, reverse: bool, inits: States, types: Mapping[str, MarkedType]
) -> Outputs:
    """The whole sequence as a loop over the steps of the unit; backwards over the reversed frames."""
    inputs = [_backwards(b, value, time) if reverse else value for value in unit.inputs]
    point = b.ir.point
    b.ir.open_loop(time)
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
    return Outputs(_backwards(b, whole, time) if reverse else whole, {}, final)


def _frames_first(b: LayerBuilder, frames: View, time: Dim) -> View:
    """A stack of steps with its frames before the dims that each step has, as the source has them."""
    outer = (DimKind.BATCH, DimKind.BEAM)
    inner = [dim for dim in frames.type.dims if dim.kind not in outer and dim is not time]
    return b.reorder(frames, (time, *inner)) if time in frames.type else frames


def _backwards(b: LayerBuilder, frames: View, time: Dim) -> View:
    return b.apply(Reverse(time), frames) if time in frames.type else frames


def _final(b: LayerBuilder, frames: View, time: Dim, init: View, reverse: bool) -> View:
    """The state when the sequence is through: its last frame, or its first when it ran backwards."""
    if not reverse:
        return b.apply(Last(time), frames, init)
    first = b.gather(frames, b.constant(0, "int32"), time, clip=True)
    return b.select(b.binary("greater", b.length(time), 0), first, init)


def initial_state(
    b: LayerBuilder,
    key: str,
    options: GivenStates,
    types: Mapping[str, MarkedType],
    unit: Unit,
    time: Dim | None = None,
) -> View:
    """The state before the first step, from any form of `initial_state`; where the steps are those of the loop around,
    made outside of it."""
    type_ = types[key]
    entry = entry_of(b, options.initial, key, options.keys, "initial_state")
    given = entry.value
    if given in (None, "zeros"):
        given = 0.0
    if given == "ones":
        given = 1.0
    if isinstance(given, int | float) and not isinstance(given, bool):
        return b.constant_outside(float(given), type_.dtype, type_.dims)
    if given == "var":
        # RETURNN's names: those of a whole sequence are in the scope of the unit, those of a step beside it.
        name = f"initial_{key if len(options.keys) > 1 else 'var'}"
        return b.param(f"rec/{name}" if b.loop is None else name, type_.dims, 0.0)
    if not isinstance(given, str):
        b.fail(f"initial_state can't be {given!r}", "Give a number, zeros, ones, var or a layer.", "initial_state")
    if given == "placeholder":
        hint = "Give a layer, such as 'data:KEY' of an entry of extern_data."
        b.fail("a placeholder is for a program around the graph to feed", hint, "initial_state")
    if given in KEPT:
        return _kept_state(b, key, given, type_)
    around = {*_around(unit, time), *type_.dims}
    if b.loop is None or time is not None:
        return _of_layer(b, key, entry, types, around, "initial_state")
    outputs = b.layer_outputs(given)
    _require_one(b, key, given, outputs, around, "initial_state")
    if b.ir.varies_in_loop(outputs.state.get(key, outputs.value)):
        b.fail(
            f"the state before the first step can't be '{given}', which each step computes",
            "Name a layer from around with 'base:', or use 'state' for a state before each step.",
            "initial_state",
        )
    with b.ir.at_outer():
        return _named(b, key, given, _cut(b, outputs, entry, key, types), type_)


def _around(unit: Unit, time: Dim | None) -> Collection[Dim]:
    """The dims that a unit has a state for each entry of, with those of its inputs."""
    return {dim for value in unit.inputs for dim in value.type.dims if dim is not time}


def _kept_state(b: LayerBuilder, key: str, given: str, type_: MarkedType) -> View:
    """The state that the batch before ended with, of the sequence in the same place of the batch; 0 at first.

    In search that of the best hypothesis.
    """
    if b.ir.point.level > 1:
        what = "in a loop inside of another, there is no last step of a batch"
        b.fail(f"{given}: {what}", "Give a number or a layer.", "initial_state")
    name = f"keep_state_{key}"
    return b.surroundings.parameter(kept_parameter(f"rec/{name}" if b.loop is None else name, b.batch, type_, given))


def _keep(b: LayerBuilder, inits: States, after: States, given: GivenStates) -> None:
    """Has the last states assigned where `initial_state` says that they are kept."""
    for key, init in inits.items():
        if entry_of(b, given.initial, key, given.keys, "initial_state").value in KEPT:
            if b.loop is None:
                b.ir.assign(init, of_the_best(b, after[key])[0])
            else:
                b.ir.keep_last(init, after[key])


def _cut(b: LayerBuilder, outputs: Outputs, entry: Entry, key: str, types: Mapping[str, MarkedType]) -> Outputs:
    """What a layer gives for a state: where it has no such state, but as many features as all of the entry's states
    together, those of that one, in the order of the unit's states."""
    value, group = outputs.value, [types[one] for one in entry.group if one in types]
    if key in outputs.state or len(group) < 2 or len(group) != len(entry.group) or value.type.feature is None:
        return outputs
    features = [type_.feature for type_ in group if type_.feature is not None]
    sizes = [dim.size for dim in features if dim.size is not None]
    if sum(sizes) != value.type.feature.size or len(sizes) != len(group):
        return outputs
    place = entry.group.index(key)
    part = b.slice(value, value.type.feature, sum(sizes[:place]), features[place])
    return Outputs(b.as_features(part, features[place]))


def _of_layer(
    b: LayerBuilder, key: str, entry: Entry, types: Mapping[str, MarkedType], around: Collection[Dim], option: str
) -> View:
    """A layer's state of the key, or its value where it has none, as a state of this unit."""
    reference = entry.value
    if not isinstance(reference, str):
        b.fail(f"state: '{key}' is not a layer: {reference!r}", "Give a layer, or one for each state.", "state")
    outputs = _cut(b, b.layer_outputs(reference), entry, key, types)
    _require_one(b, key, reference, outputs, around, option)
    return _named(b, key, reference, outputs, types[key])


def _require_one(
    b: LayerBuilder, key: str, reference: str, outputs: Outputs, around: Collection[Dim], option: str
) -> None:
    """Fails if a layer has frames where one state is needed."""
    type_ = outputs.state.get(key, outputs.value).type
    if any(dim.is_ragged and dim.kind is DimKind.SPATIAL and dim not in around for dim in type_.dims):
        b.fail(
            f"the state '{key}' is one for each sequence, but '{reference}' has frames: {type_}",
            "Name a recurrent layer, whose last state is taken; or reduce the frames.",
            option,
        )


def _named(b: LayerBuilder, key: str, reference: str, outputs: Outputs, type_: MarkedType) -> View:
    """A layer's state of the key, or its value, with the dims of this unit's state: the features, and the spatial dims,
    in order where these are others. Without any it is the same at all places."""
    value, hidden = outputs.state.get(key, outputs.value), type_.feature
    if hidden is None:
        return value
    reason = f"the state '{key}' of '{b.name}' from '{reference}'"
    outer, feature = (DimKind.BATCH, DimKind.BEAM), b.feature_of(value)
    places = [dim for dim in type_.dims if dim is not hidden and dim not in value.type]
    given = [dim for dim in value.type.dims if dim.kind not in outer and dim not in (feature, *type_.dims)]
    if given and len(type_.dims) > 1:
        if [dim.size for dim in given] != [dim.size for dim in places]:
            message = f"{reason} has the dims [{_listed(given)}] where [{_listed(places)}] are needed"
            b.fail(message, "Name a layer with these.", "initial_state")
        for own, dim in zip(given, places, strict=True):
            value = b.relabel(value, own, dim, reason)
    return b.relabel(value, feature, hidden, reason)


def _listed(dims: Collection[Dim]) -> str:
    return ", ".join(map(str, dims))
