"""The states that a unit starts from, in all forms of `initial_state`, and those that stay for the next batch."""

from __future__ import annotations

from collections.abc import Mapping

from returnn_lite.dims import Dim, DimKind, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.cells.given_states import GivenStates, entry_of
from returnn_lite.layers.cells.states_of_layers import (
    as_state,
    dims_around,
    part_of_joined,
    require_one,
    state_of_layer,
)
from returnn_lite.layers.cells.streams import goes_on
from returnn_lite.layers.cells.unit import States, Unit
from returnn_lite.layers.kept import KEPT, STATEFUL, kept_parameter
from returnn_lite.layers.search import of_the_best


def initial_state(
    b: LayerBuilder,
    key: str,
    options: GivenStates,
    types: Mapping[str, MarkedType],
    unit: Unit,
    time: Dim | None = None,
) -> View:
    """The state before the first step, from any form of `initial_state`; where the steps are those of the loop around,
    made outside of it. Of a stream that goes on, that at which the batch before ended."""
    first = _first_state(b, key, options, types, unit, time)
    if options.streams is None:
        return first
    before = _kept_state(b, key, STATEFUL, types[key])
    return b.with_feature(b.select(goes_on(b, options.streams), before, first), types[key].feature)


def _first_state(
    b: LayerBuilder,
    key: str,
    options: GivenStates,
    types: Mapping[str, MarkedType],
    unit: Unit,
    time: Dim | None,
) -> View:
    type_ = types[key]
    entry = entry_of(b, options.initial, key, options.keys, "initial_state")
    given = entry.value
    if given in (None, "zeros"):
        given = 0.0
    if given == "ones":
        given = 1.0
    if isinstance(given, int | float) and not isinstance(given, bool):
        constant = b.constant_outside if time is None else b.constant
        return constant(float(given), type_.dtype, type_.dims)
    if given == "var":
        # RETURNN's names: those of a whole sequence are in the scope of the unit, those of a step beside it.
        name = f"initial_{key if len(options.keys) > 1 else 'var'}"
        return b.param(f"rec/{name}" if b.loop is None else name, type_.dims, 0.0)
    if not isinstance(given, str):
        b.fail(f"initial_state can't be {given!r}", "Give a number, zeros, ones, var or a layer.", "initial_state")
    if given == "placeholder":
        hint = "Give a layer, such as 'data:KEY' of an entry of extern_data."
        b.fail("a placeholder is for a program around the graph to feed", hint, "initial_state")
    if given in KEPT and options.streams is not None:
        hint = "Give what it begins with, or leave out initial_state: zeros."
        b.fail("a stream does not begin with the state of the batch before", hint, "initial_state")
    if given in (*KEPT, STATEFUL):
        return _kept_state(b, key, given, type_)
    around = {*dims_around(unit, time), *type_.dims}
    if b.loop is None or time is not None:
        return state_of_layer(b, key, entry, types, around, "initial_state")
    outputs = b.layer_outputs(given)
    require_one(b, key, given, outputs, around, "initial_state")
    if b.ir.varies_in_loop(outputs.state.get(key, outputs.value)):
        b.fail(
            f"the state before the first step can't be '{given}', which each step computes",
            "Name a layer from around with 'base:', or use 'state' for a state before each step.",
            "initial_state",
        )
    with b.ir.at_outer():
        return as_state(b, key, given, part_of_joined(b, outputs, entry, key, types), type_)


def _kept_state(b: LayerBuilder, key: str, given: str, type_: MarkedType) -> View:
    """The state that the batch before ended with, of the sequence in the same place of the batch; 0 at first.

    In search that of the best hypothesis.
    """
    if b.ir.point.level > 1:
        what = "in a loop inside of another, there is no last step of a batch"
        b.fail(f"{given}: {what}", "Give a number or a layer.", _option(given))
    if any(dim.size is None for dim in type_.dims if dim.kind is DimKind.SPATIAL):
        what = f"the state '{key}' is {type_}, and the next batch has other frames"
        b.fail(f"{given}: {what}", "Leave it out, or take another unit.", _option(given))
    name = f"keep_state_{key}"
    return b.surroundings.parameter(kept_parameter(f"rec/{name}" if b.loop is None else name, b.batch, type_, given))


def _option(given: str) -> str:
    """Which option says that a state is kept."""
    return "stateful" if given == STATEFUL else "initial_state"


def keep_last_states(
    b: LayerBuilder, inits: States, after: States, given: GivenStates, types: Mapping[str, MarkedType]
) -> None:
    """Has the last states assigned where `initial_state` or `streams` say that they are kept."""
    for key, init in inits.items():
        if given.streams is not None:
            b.ir.assign(_kept_state(b, key, STATEFUL, types[key]), of_the_best(b, after[key])[0])
        elif entry_of(b, given.initial, key, given.keys, "initial_state").value in (*KEPT, STATEFUL):
            if b.loop is None:
                b.ir.assign(init, of_the_best(b, after[key])[0])
            else:
                b.ir.keep_last(init, after[key])
