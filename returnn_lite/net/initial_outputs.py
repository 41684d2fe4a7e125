"""The option `initial_output`: what `prev:x` is before the first step, and what a layer that starts from it starts
from.

It is a number, a layer around the loop, a trained variable, what the batch before left, or with `apply(0)` what the
layer makes of zeros in place of its sources, computed around the loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from returnn_lite.dims import Dim, MarkedType, Unknown
from returnn_lite.ir import Origin
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.sources import Initializer, Parameter
from returnn_lite.ir.reachability import reachable
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.kept import KEPT, kept_parameter
from returnn_lite.net.parameters import parameter_beside
from returnn_lite.net.resolution import outputs_of
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec

APPLIED = "apply(0)"
OPTION = "initial_output"


def initial_option(spec: LayerSpec) -> Any:
    """The option initial_output of a layer, or of the one inside of it whose output is its own."""
    given = spec.common.output.initial_output
    inside = spec.layer.result_options().get("initial_output")
    if given is not None and inside is not None:
        raise LayerError("initial_output is that of the layer inside", "Leave it out.", OPTION)
    return inside if given is None else given


def initial_output(scope: Scope, spec: LayerSpec, type_: MarkedType) -> View | None:
    """The option initial_output of a layer as a value of a type, made around the loop if there is one."""
    if initial_option(spec) is None:
        return None
    if initial_option(spec) in KEPT:
        raise LayerError(
            f"{initial_option(spec)} is for what 'prev:' reads, not for where '{spec.name}' starts itself",
            "Give a number or a layer.",
            OPTION,
        )
    with scope.context.builder.at(scope.point if scope.point.level == 0 else scope.loop_around.around):
        return first_value(scope, spec, type_)[0]


def initial_of_part(scope: Scope, spec: LayerSpec, type_: MarkedType) -> View | None:
    """The same of a layer inside of a masked one, which nobody may read."""
    given = initial_option(spec)
    if given == APPLIED:
        return applied_to_zeros(scope, spec)
    return None if given in KEPT else initial_output(scope, spec, type_)


def first_value(scope: Scope, spec: LayerSpec, type_: MarkedType, is_known: bool = True) -> tuple[View, MarkedType]:
    """The value in the first step, and the type with what that tells: all of it if the type is not known."""
    builder = scope.context.builder
    given = initial_option(spec)
    if isinstance(given, str):
        numbers = {"zeros": 0, "ones": 1, "zeros()": 0, "ones()": 1}
        if given == "var":
            return _trainable(scope, spec, type_), type_
        if given in KEPT:
            return _kept(scope, spec, type_, given), type_
        if given.startswith("apply("):
            raise LayerError(f"initial_output: {given} is not supported here", "Give a number or a layer.", OPTION)
        if given not in numbers:
            return _from_layer(scope, given, type_, is_known)
        given = numbers[given]
    if given is None:
        if type_.sparse is not None:
            raise LayerError(
                "the step before the first has no value: the output is sparse",
                "Give initial_output.",
                OPTION,
            )
        given = 0
    return builder.constant(_number(given, type_), type_.dtype, (), type_.sparse), type_


def _kept(scope: Scope, spec: LayerSpec, type_: MarkedType, given: str) -> View:
    """The output that the batch before ended with, in search its best hypothesis; `previous_values` has it assigned."""
    if scope.point.level > 1:
        what = "in a loop inside of another, there is no last step of a batch"
        raise LayerError(f"{given}: {what}", "Give a number or a layer.", OPTION)
    name = f"keep_output_{spec.name}"
    parameter = kept_parameter(name, scope.context.extern_data.batch, type_, given)
    value = parameter_beside(scope, spec, parameter)
    return scope.context.builder.with_markers_of(value, type_)


def _trainable(scope: Scope, spec: LayerSpec, type_: MarkedType) -> View:
    dims = tuple(dim for dim in type_.dims if dim.size is not None or isinstance(dim, Unknown))
    parameter = Parameter(f"init_{spec.name}_var", dims, Initializer("constant", (("value", 0.0),)), type_.dtype)
    return parameter_beside(scope, spec, parameter)


def _from_layer(scope: Scope, reference: str, type_: MarkedType, is_known: bool) -> tuple[View, MarkedType]:
    builder = scope.context.builder
    around = scope if scope.point.level == 0 else scope.parent
    if around is None:
        raise LayerError(f"initial_output: there is no network around for '{reference}'", "", OPTION)
    try:
        value = outputs_of(around, reference if around is scope else reference.removeprefix("base:")).value
    except LayerError as error:
        raise error.at(OPTION) from error
    feature = value.type.feature
    if not is_known:
        type_ = replace(type_, dtype=value.type.dtype, sparse=value.type.sparse)
    if isinstance(type_.feature, Unknown):
        type_ = type_.substitute({type_.feature: feature}) if feature is not None else type_.without(type_.feature)
    elif feature is not None and type_.feature is not None and feature != type_.feature:
        value = builder.relabel(value, feature, type_.feature, f"initial_output '{reference}'")
    return builder.cast(value, type_.dtype), type_


def _number(given: float | int | bool, type_: MarkedType) -> float | int | bool:
    """A number as a value of a type. Raises LayerError if it is none."""
    if type_.is_float:
        return float(given)
    if type_.dtype == "bool":
        return bool(given)
    if given != int(given):
        raise LayerError(f"{given} is no {type_.dtype}, which the output is", "Give a whole number.", OPTION)
    return int(given)


def applied_to_zeros(scope: Scope, spec: LayerSpec) -> View:
    """The layer built again at the place around the loop, with the same parameters, on zeros of its sources' types.

    Raises LayerError for layers with a state, and for those that use more of the loop than their sources.
    """
    builder = scope.context.builder
    if spec.layer.state_keys():
        raise LayerError(
            "initial_output: apply(0) is not for recurrent layers, which start from a state",
            "Give initial_state.",
            OPTION,
        )
    if spec.common.inputs.batch_norm:
        raise LayerError("initial_output: apply(0) and batch_norm exclude each other", "Give a number.", OPTION)
    with builder.at(scope.point):
        sources = [outputs_of(scope, name).value for name in spec.sources if name != "none"]
        body = builder.body
    assert body is not None
    path = scope.path_of(spec)
    with builder.at(scope.loop_around.around), builder.within(Origin(path, str(scope.context.locate(spec.path) or ""))):
        zeros = [_zeros_like(builder, source, scope.context.extern_data.batch) for source in sources]
        value = scope.driver.made_of(scope, spec, zeros)
    if any(read in body.values for read in reachable([value.of], builder.operands_of)):
        raise LayerError(
            "initial_output: apply(0) needs a layer that reads nothing of the loop but its sources",
            "Give a number or a layer.",
            OPTION,
        )
    return value


def _zeros_like(builder: Builder, source: View, batch: Dim) -> View:
    """Zeros of a type, but for the batch: every sequence starts from the same."""
    type_ = source.type
    dims = tuple(dim for dim in type_.dims if dim is not batch)
    zero = builder.constant(False if type_.dtype == "bool" else 0, type_.dtype, dims)
    return builder.with_markers_of(zero, type_)
