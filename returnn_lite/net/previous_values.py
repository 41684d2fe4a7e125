"""`prev:x`: the value of x one step before, a State of the loop body whose type is completed when x is built.

Before x is built, the type of `prev:x` has what is known of x from its options and its initial value; a feature dim
that can't be known yet is an `Unknown` that is solved when x is there. The other dims are solved afterwards, as the
least fixpoint over the strongly connected component (`ir.rewrite`).

Each key of the state of x ("c", "h") that is read becomes a State of the loop body too, beside the one that the unit of
x has itself: x may be built after the layer that reads its state. When x is there, both get the same initial and the
same next value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol, Unknown
from returnn_lite.ir.open_body import OpenState
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError, Outputs
from returnn_lite.layers.errors import UNKNOWN_SIZE
from returnn_lite.layers.kept import KEPT
from returnn_lite.net.context import NotChecked
from returnn_lite.net.expected_types import part_of_choice
from returnn_lite.net.initial_outputs import APPLIED, applied_to_zeros, first_value, initial_option
from returnn_lite.net.parameters import out_feature
from returnn_lite.net.references import Reference, ReferenceKind
from returnn_lite.net.resolution import layer_of_part, part
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.unknown_names import no_step_before


def previous_outputs(scope: Scope, reference: Reference) -> Outputs:
    """The value that a reference reads, and the state, if it names a recurrent layer. Raises LayerError outside of a
    loop or if there is no such layer."""
    name, builder = reference.name, scope.context.builder
    if builder.body is None or scope.point.level == 0:
        raise LayerError(f"'prev:{name}': there is no loop here, so no step before")
    if name in scope.spec.broken:
        raise NotChecked(name)
    if name not in scope.spec.layers:
        raise no_step_before(scope, name)
    if reference not in scope.previous:
        with builder.at(scope.point):
            scope.previous[reference] = _declared(scope, reference)
            scope.unconnected.append((scope, reference))
    value, spec = scope.previous[reference].now, scope.spec.layers[name]
    if reference.parts or not spec.layer.state_keys():
        return Outputs(value)
    return Outputs(value, state=PreviousStates(scope, spec))


class PreviousStates(Mapping[str, View]):
    """The states of one layer before the step; a State is made for each key that is asked for."""

    def __init__(self, scope: Scope, spec: LayerSpec) -> None:
        self.scope = scope
        self.spec = spec

    def __iter__(self) -> Iterator[str]:
        return iter(self.spec.layer.state_keys())

    def __len__(self) -> int:
        return len(self.spec.layer.state_keys())

    def __getitem__(self, key: str) -> View:
        if key not in self.spec.layer.state_keys():
            raise KeyError(key)
        known = self.scope.previous_states.setdefault(self.spec.name, {})
        if key not in known:
            with self.scope.context.builder.at(self.scope.point):
                known[key] = _declared_state(self.scope, self.spec, key)
            self.scope.unconnected.append((self.scope, Reference(ReferenceKind.PREVIOUS, self.spec.name)))
        return known[key].now


def assumed(scope: Scope) -> Iterator[Reference]:
    """The references of whose type nothing was known when they were read."""
    known = scope.context.dims.assumed
    return (reference for reference, delay in scope.previous.items() if delay.now.type.feature in known)


def connect(scope: Scope, reference: Reference) -> None:
    """Connects the State with its layer, which is built now if it is not yet."""
    _connect_states(scope, reference.name)
    delay = scope.previous[reference]
    if delay.next is not None:
        return
    delay.next = delay.now  # so that a layer with a mistake is not tried again
    value = part(scope, Reference(ReferenceKind.LAYER, reference.name, reference.parts)).value
    _require_of_all_steps(reference, scope.context.builder.dim_made_anew(value))
    owner, spec = layer_of_part(scope, scope.spec.layers[reference.name], reference.parts)
    with scope.context.builder.at(scope.point):
        delay.next = _fitted(scope, delay, value)
        if _is_layer_inside(scope, reference):
            _begin(owner, spec, delay)
        _begin_with_state(scope, spec, delay, value)
        if initial_option(spec) in KEPT:
            scope.context.builder.keep_last(delay.init, delay.next)
    if initial_option(spec) == APPLIED and (not reference.parts or _is_layer_inside(scope, reference)):
        applied = applied_to_zeros(owner, spec)
        with scope.context.builder.at(scope.loop_around.around):
            delay.init = _fitted(scope, delay, applied)


def _begin(scope: Scope, spec: LayerSpec, delay: OpenState) -> None:
    """Makes a State begin with what the options of a layer of this scope say. Raises LayerError."""
    if initial_option(spec) != APPLIED:
        with scope.context.builder.at(scope.loop_around.around):
            delay.init, _ = first_value(scope, spec, delay.now.type)


def _is_layer_inside(scope: Scope, reference: Reference) -> bool:
    """True for what is read of a layer inside of the one that it names, whose options count then."""
    layer = scope.spec.layers[reference.name].layer
    return bool(reference.parts) and reference.parts[0] in layer.layers_inside()


def _fitted(scope: Scope, delay: OpenState, value: View) -> View:
    builder = scope.context.builder
    now, given = delay.now.type.feature, value.type.feature
    if isinstance(now, Unknown) and now not in scope.context.dims.solved:
        if given is None:
            raise LayerError(f"{value.type} has no feature dim, but '{delay.now.name}' was taken to have one")
        if given != now and now in given.leaves:
            hint = "Have it keep its features: a state is of the same size in all steps."
            raise LayerError(f"its features change from step to step: {now} becomes {given}", hint)
        if isinstance(given, Unknown):
            scope.context.solve(now, given)
        else:
            # A dim of its own: the layers between may have both this one and the layer's feature in one value.
            scope.context.solve(now, Symbol(now.name, now.kind, given.size))
            value = builder.relabel(value, given, now, f"'{delay.now.name}' and the layer that it reads")
    elif now is not None and given is not None and now != given:
        value = builder.relabel(value, given, now, f"'{delay.now.name}' in the first step and later")
    if value.type.dtype != delay.now.type.dtype:
        if value.type.is_float is not delay.now.type.is_float:
            raise LayerError(
                f"the output is {value.type}, but '{delay.now.name}' was taken to be {delay.now.type.dtype}",
                "Say what it is with out_type.",
                "out_type",
            )
        value = builder.cast(value, delay.now.type.dtype)
    value = builder.as_index(value, delay.now.type.sparse)
    return builder.expand(value, *(dim for dim in delay.now.type.dims if dim.kind is DimKind.BATCH))


def _begin_with_state(scope: Scope, spec: LayerSpec, delay: OpenState, value: View) -> None:
    """Before the first step, the output of a recurrent layer is that of its initial_state, also under a mask; that
    of others what they say that it is held at."""
    body = scope.context.builder.body
    assert body is not None
    own = next((other.init for other in body.delays_to(value) if other is not delay), None)
    if (spec.layer.result_options() or spec.layer.begins_held) and initial_option(spec) is None:
        own = body.holds.get(value)
    elif not spec.layer.begins_with_state():
        own = None
    if own is None:
        return
    if spec.common.output.initial_output is not None:
        raise LayerError("initial_output is that of initial_state here", "Leave it out.", "initial_output")
    have, want = value.type.feature, delay.now.type.feature
    if have is None or want is None:
        delay.init = own
        return
    with scope.context.builder.at(scope.loop_around.around):
        delay.init = scope.context.builder.relabel(own, have, want, f"'{delay.now.name}' and its state")


def _declared(scope: Scope, reference: Reference) -> OpenState:
    spec = scope.spec.layers[reference.name]
    type_ = scope.expected.of(part_of_choice(spec, reference.parts), reference.parts)
    _require_of_all_steps(reference, scope.expected.dim_of_step(spec))
    is_known = type_ is not None
    if type_ is None:
        feature = Unknown(f"prev:{reference.name}:feature", DimKind.FEATURE)
        type_ = MarkedType((feature,), feature=feature)
        scope.context.dims.assumed[feature] = spec
    name = "/".join((reference.name, *reference.parts))
    with scope.context.builder.at(scope.loop_around.around):
        if _is_layer_inside(scope, reference) or (initial_option(spec) == APPLIED and not reference.parts):
            zero = False if type_.dtype == "bool" else 0  # until the layer is built
            init = scope.context.builder.constant(zero, type_.dtype, (), type_.sparse)
        else:
            try:
                init, type_ = first_value(scope, spec, type_, is_known)
            except LayerError as error:  # of the layer that is read, not of the one that reads it
                scope.context.report(spec, error)
                raise NotChecked(reference.name) from error
    scope.expected.is_declared(spec.name, type_)
    return scope.context.builder.delay(f"{scope.path}/prev:{name}", type_, init, f"{scope.path}/{name}")


def _require_of_all_steps(reference: Reference, made: Dim | None) -> None:
    """Raises LayerError for a layer of which each step has other frames: a state has the same dims in all steps."""
    if made is not None:
        name = reference.name
        raise LayerError(
            f"'prev:{name}': '{name}' has other frames in each step ({made}), but a state is as large in all steps",
            "Reduce them in their step and read 'prev:' of that. Of cum_concat, read "
            f"'{name}' itself: give it what was one step before.",
        )


def _declared_state(scope: Scope, spec: LayerSpec, key: str) -> OpenState:
    builder = scope.context.builder
    hidden = out_feature(scope, spec)
    if hidden is None:
        raise LayerError(*UNKNOWN_SIZE)
    type_ = MarkedType((hidden,), feature=hidden)
    with builder.at(scope.loop_around.around):
        zero = builder.constant(0.0, type_.dtype, type_.dims)
    name = f"{spec.name}:{key}"
    return builder.delay(f"{scope.path}/prev:{name}", type_, zero, f"{scope.path}/{name}")


def _connect_states(scope: Scope, name: str) -> None:
    """Connects the States of a layer with it, which is built now if it is not yet. Raises LayerError."""
    delays = scope.previous_states.get(name, {})
    if all(delay.next is not None for delay in delays.values()):
        return
    for delay in delays.values():
        delay.next = delay.now  # so that a layer with a mistake is not tried again
    state = scope.layer(name).state
    body = scope.context.builder.body
    assert body is not None
    for key, delay in delays.items():
        if key not in state:
            raise LayerError(f"'{name}' has no state '{key}'")
        delay.next = state[key]
        own = next((other for other in body.delays_to(state[key]) if other is not delay), None)
        if own is not None:
            delay.init = own.init
