"""`prev:x`: the value of x one step before, a State of the loop body whose type is completed when x is built.

Before x is built, the type of `prev:x` has what is known of x from its options and its initial value; a feature dim
that can't be known yet is an `Unknown` that is solved when x is there. The other dims are solved afterwards, as the
least fixpoint over the strongly connected component (`ir.rewrite`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from returnn_lite.dims import DimKind, Symbol, TensorType, Unknown
from returnn_lite.ir import Value
from returnn_lite.ir.builder import OpenState
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.layers.base import LayerError, Outputs
from returnn_lite.layers.kept import KEPT, kept_parameter
from returnn_lite.net.applied import applied_to_zeros
from returnn_lite.net.expected_types import part_of_choice
from returnn_lite.net.failures import NotChecked
from returnn_lite.net.layers_inside import layer_of_part
from returnn_lite.net.missing import no_step_before
from returnn_lite.net.parameters import parameter_beside
from returnn_lite.net.previous_states import PreviousStates
from returnn_lite.net.references import Reference, ReferenceKind
from returnn_lite.net.specs import LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


APPLIED = "apply(0)"
"""The initial_output that is what the layer makes of zeros."""


class PreviousValues:
    """The `prev:` references of one scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._delays: dict[Reference, OpenState] = {}
        self._completed: set[Reference] = set()
        self.states: dict[str, PreviousStates] = {}
        """Those of the layers of which a state is read."""

    def outputs(self, reference: Reference) -> Outputs:
        """The value that the reference reads, and the state, if it names a recurrent layer. Raises LayerError."""
        value = self.value(reference)
        spec = self.scope.spec.layers[reference.name]
        if reference.parts or not spec.layer.state_keys():
            return Outputs(value)
        states = self.states.setdefault(reference.name, PreviousStates(self.scope, spec))
        return Outputs(value, state=states)

    def value(self, reference: Reference) -> Value:
        """What the reference reads. Raises LayerError outside of a loop or if there is no such layer."""
        scope = self.scope
        if scope.context.builder.body is None or scope.place.level == 0:
            raise LayerError(f"'prev:{reference.name}': there is no loop here, so no step before")
        if reference.name in scope.spec.broken:
            raise NotChecked(reference.name)
        if reference.name not in scope.spec.layers:
            raise no_step_before(scope, reference.name)
        if reference not in self._delays:
            with scope.context.builder.at(scope.place):
                self._delays[reference] = self._declare(reference)
        return self._delays[reference].now

    def declared(self, reference: Reference) -> Value | None:
        """What the reference reads, if it has been read before."""
        delay = self._delays.get(reference)
        return None if delay is None else delay.now

    def assumed(self) -> Iterator[tuple[str, Value]]:
        """The references of whose type nothing was known when they were read, and their values."""
        for reference, delay in self._delays.items():
            if delay.now.type.feature in self.scope.context.assumed_features:
                yield "/".join((reference.name, *reference.parts)), delay.now

    def pending(self) -> list[Reference]:
        """References whose layer has yet to be built."""
        waiting = {name for name, states in self.states.items() if states.incomplete}
        return [one for one in self._delays if one not in self._completed or one.name in waiting]

    def complete(self, reference: Reference) -> None:
        """Connects the State with its layer, which is built now if it is not yet."""
        states = self.states.get(reference.name)
        if states is not None and states.incomplete:
            states.complete()
        if reference in self._completed:
            return
        self._completed.add(reference)
        delay = self._delays[reference]
        delay.next = delay.now
        scope = self.scope
        value = scope.part(Reference(ReferenceKind.LAYER, reference.name, reference.parts)).value
        owner, spec = layer_of_part(scope, scope.spec.layers[reference.name], reference.parts)
        with scope.context.builder.at(scope.place):
            delay.next = self._fitted(delay, value)
            if self._is_layer_inside(reference):
                owner.previous.begin(spec, delay)
            self._begin_with_state(spec, delay, value)
            if initial_option(spec) in KEPT:
                scope.context.builder.keep_last(delay.init, delay.next)
        if initial_option(spec) == APPLIED and (not reference.parts or self._is_layer_inside(reference)):
            applied = applied_to_zeros(owner, spec)
            with scope.context.builder.at(scope.outer_place):
                delay.init = self._fitted(delay, applied)

    def begin(self, spec: LayerSpec, delay: OpenState) -> None:
        """Makes a State begin with what the options of a layer of this scope say. Raises LayerError."""
        if initial_option(spec) != APPLIED:
            with self.scope.context.builder.at(self.scope.outer_place):
                delay.init, _ = self._initial(spec, delay.now.type)

    def _is_layer_inside(self, reference: Reference) -> bool:
        """True for what is read of a layer inside of the one that it names, whose options count then."""
        layer = self.scope.spec.layers[reference.name].layer
        return bool(reference.parts) and reference.parts[0] in layer.layers_inside()

    def _fitted(self, delay: OpenState, value: Value) -> Value:
        builder = self.scope.context.builder
        now, given = delay.now.type.feature, value.type.feature
        if isinstance(now, Unknown) and now not in self.scope.context.solved_dims:
            if given is None:
                raise LayerError(f"{value.type} has no feature dim, but '{delay.now.name}' was taken to have one")
            if given != now and now in given.with_operands():
                hint = "Have it keep its features: a state is of the same size in all steps."
                raise LayerError(f"its features change from step to step: {now} becomes {given}", hint)
            if isinstance(given, Unknown):
                self.scope.context.solve(now, given)
            else:
                # A dim of its own: the layers between may have both this one and the layer's feature in one value.
                self.scope.context.solve(now, Symbol(now.name, now.kind, given.size))
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
        value = builder.annotate(value, sparse=delay.now.type.sparse, feature=value.type.feature, time=value.type.time)
        return builder.expand(value, *(dim for dim in delay.now.type.dims if dim.kind is DimKind.BATCH))

    def _begin_with_state(self, spec: LayerSpec, delay: OpenState, value: Value) -> None:
        """Before the first step, the output of a recurrent layer is that of its initial_state, also under a mask; that
        of others what they say that it is held at."""
        body = self.scope.context.builder.body
        assert body is not None
        own = next((other.init for other in body.delays if other.next is value and other is not delay), None)
        if (spec.layer.result_options() or spec.layer.begins_held) and initial_option(spec) is None:
            own = body.holds.get(value)
        elif not spec.layer.state_keys() or getattr(spec.layer, "initial_state", None) in (None, 0, "zeros"):
            own = None
        if own is None:
            return
        if spec.common.output.initial_output is not None:
            raise LayerError("initial_output is that of initial_state here", "Leave it out.", "initial_output")
        have, want = value.type.feature, delay.now.type.feature
        if have is None or want is None:
            delay.init = own
            return
        with self.scope.context.builder.at(self.scope.outer_place):
            delay.init = self.scope.context.builder.relabel(own, have, want, f"'{delay.now.name}' and its state")

    def initial(self, spec: LayerSpec, type_: TensorType) -> Value | None:
        """The option initial_output of a layer as a value of a type, made around the loop if there is one."""
        if initial_option(spec) is None:
            return None
        if initial_option(spec) in KEPT:
            raise LayerError(
                f"{initial_option(spec)} is for what 'prev:' reads, not for where '{spec.name}' starts itself",
                "Give a number or a layer.",
                "initial_output",
            )
        scope = self.scope
        with scope.context.builder.at(scope.place if scope.place.level == 0 else scope.outer_place):
            return self._initial(spec, type_)[0]

    def initial_of_part(self, spec: LayerSpec, type_: TensorType) -> Value | None:
        """The same of a layer inside of a masked one, which nobody may read."""
        given = initial_option(spec)
        if given == APPLIED:
            return applied_to_zeros(self.scope, spec)
        return None if given in KEPT else self.initial(spec, type_)

    def _declare(self, reference: Reference) -> OpenState:
        scope = self.scope
        spec = scope.spec.layers[reference.name]
        type_ = scope.expected.of(part_of_choice(spec, reference.parts), reference.parts)
        is_known = type_ is not None
        if type_ is None:
            feature = Unknown(f"prev:{reference.name}:feature", DimKind.FEATURE)
            type_ = TensorType((feature,), feature=feature)
            scope.context.assumed_features[feature] = spec
        name = "/".join((reference.name, *reference.parts))
        with scope.context.builder.at(scope.outer_place):
            if self._is_layer_inside(reference) or (initial_option(spec) == APPLIED and not reference.parts):
                zero = False if type_.dtype == "bool" else 0  # until the layer is built
                init = scope.context.builder.constant(zero, type_.dtype, (), type_.sparse)
            else:
                try:
                    init, type_ = self._initial(spec, type_, is_known)
                except LayerError as error:  # of the layer that is read, not of the one that reads it
                    scope.context.report(spec, error)
                    raise NotChecked(reference.name) from error
        scope.expected.is_declared(spec.name, type_)
        return scope.context.builder.delay(f"{scope.path}/prev:{name}", type_, init, f"{scope.path}/{name}")

    def _initial(self, spec: LayerSpec, type_: TensorType, is_known: bool = True) -> tuple[Value, TensorType]:
        """The value in the first step, and the type with what that tells: all of it if the type is not known."""
        builder = self.scope.context.builder
        given = initial_option(spec)
        if isinstance(given, str):
            numbers = {"zeros": 0, "ones": 1, "zeros()": 0, "ones()": 1}
            if given == "var":
                return self._trainable(spec, type_), type_
            if given in KEPT:
                return self._kept(spec, type_, given), type_
            if given.startswith("apply("):
                raise LayerError(
                    f"initial_output: {given} is not supported here", "Give a number or a layer.", "initial_output"
                )
            if given not in numbers:
                return self._from_layer(given, type_, is_known)
            given = numbers[given]
        if given is None:
            if type_.sparse is not None:
                raise LayerError(
                    "the step before the first has no value: the output is sparse",
                    "Give initial_output.",
                    "initial_output",
                )
            given = 0
        return builder.constant(_number(given, type_), type_.dtype, (), type_.sparse), type_

    def _kept(self, spec: LayerSpec, type_: TensorType, given: str) -> Value:
        """The output that the batch before ended with, in search its best hypothesis; `complete` has it assigned."""
        scope = self.scope
        if scope.place.level > 1:
            what = "in a loop inside of another, there is no last step of a batch"
            raise LayerError(f"{given}: {what}", "Give a number or a layer.", "initial_output")
        name = f"keep_output_{spec.name}"
        parameter = kept_parameter(name, scope.context.extern_data.batch, type_, given)
        value = parameter_beside(scope, spec, parameter)
        return scope.context.builder.annotate(value, sparse=type_.sparse, feature=type_.feature, time=type_.time)

    def _trainable(self, spec: LayerSpec, type_: TensorType) -> Value:
        dims = tuple(dim for dim in type_.dims if dim.size is not None or isinstance(dim, Unknown))
        parameter = Parameter(f"init_{spec.name}_var", dims, Initializer("constant", (("value", 0.0),)), type_.dtype)
        return parameter_beside(self.scope, spec, parameter)

    def _from_layer(self, reference: str, type_: TensorType, is_known: bool) -> tuple[Value, TensorType]:
        builder = self.scope.context.builder
        around = self.scope if self.scope.place.level == 0 else self.scope.parent
        if around is None:
            raise LayerError(f"initial_output: there is no network around for '{reference}'", "", "initial_output")
        try:
            value = around.outputs(reference if around is self.scope else reference.removeprefix("base:")).value
        except LayerError as error:
            raise error.at("initial_output") from error
        feature = value.type.feature
        if not is_known:
            type_ = replace(type_, dtype=value.type.dtype, sparse=value.type.sparse)
        if isinstance(type_.feature, Unknown):
            type_ = type_.substitute({type_.feature: feature}) if feature is not None else type_.without(type_.feature)
        elif feature is not None and type_.feature is not None and feature != type_.feature:
            value = builder.relabel(value, feature, type_.feature, f"initial_output '{reference}'")
        return builder.cast(value, type_.dtype), type_


def _number(given: float | int | bool, type_: TensorType) -> float | int | bool:
    """A number as a value of a type. Raises LayerError if it is none."""
    if type_.is_float:
        return float(given)
    if type_.dtype == "bool":
        return bool(given)
    if given != int(given):
        raise LayerError(f"{given} is no {type_.dtype}, which the output is", "Give a whole number.", "initial_output")
    return int(given)


def initial_option(spec: LayerSpec) -> Any:
    """The option initial_output of a layer, or of the one inside of it whose output is its own."""
    given = spec.common.output.initial_output
    inside = spec.layer.result_options().get("initial_output")
    if given is not None and inside is not None:
        raise LayerError("initial_output is that of the layer inside", "Leave it out.", "initial_output")
    return inside if given is None else given
