"""Parameters of layers: their names, sharing (`reuse_params`, `name_scope`), freezing; and the sizes that options
ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from returnn_lite.config.options import Unspecified
from returnn_lite.dims import Dim, DimError, DimKind, Symbol
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.open_body import OUTERMOST
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.reachability import reachable
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.net.context import NotChecked
from returnn_lite.net.decoding import LOSS_CLASSES
from returnn_lite.net.parameter_scope import ParameterScope
from returnn_lite.net.resolution import find_spec, outputs_of, target_type
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec


def scope_of_parameters(scope: Scope, spec: LayerSpec) -> ParameterScope:
    """Where a layer of a scope has its own parameters."""
    return scope.parameters.of_layer(spec.name, spec.common.parameters, spec.layer.inner_scope)


def parameter_of_layer(scope: Scope, spec: LayerSpec, parameter: Parameter, via: tuple[LayerSpec, ...] = ()) -> View:
    """A parameter that a layer asks for: its own, or what `reuse_params` says. `via` are the layers that share it."""
    if spec in via:
        names = " -> ".join(f"'{one.name}'" for one in (*via, spec))
        raise LayerError(f"the layers {names} share each other's parameters", "Leave it out of one.", "reuse_params")
    reuse = spec.common.parameters.reuse_params
    if isinstance(reuse, str):
        return _shared(scope, reuse, parameter, (*via, spec))
    if isinstance(reuse, Mapping):
        return _mapped(scope, spec, reuse, parameter, (*via, spec))
    return own_parameter(scope, spec, parameter, user=via[0] if via else None)


def own_parameter(scope: Scope, spec: LayerSpec, parameter: Parameter, *, user: LayerSpec | None = None) -> View:
    """The parameter under the layer's own name; made if there is none of that name.

    If another one, `user`, asks for it before the layer is built, the layer says later how the parameter begins.
    """
    owner = scope_of_parameters(scope, spec)
    full = owner.named(parameter if owner.trainable else replace(parameter, trainable=False))
    names = scope.context.parameters.names_of(scope.path_of(spec))
    if user is not None and spec.name in scope.built and full.name not in names:
        raise has_no_parameter(spec, parameter.name)
    if full.name not in names:
        names.append(full.name)
    if user is not None and full.name not in scope.context.parameters.by_name:
        scope.context.parameters.borrowed[full.name] = (user, has_no_parameter(spec, parameter.name))
    elif user is None and full.name in scope.context.parameters.borrowed:
        _begin_as(scope, full)
    value = _parameter(scope, full)
    if not scope.mode.train or not full.trainable:
        return value
    with scope.context.builder.at(OUTERMOST):
        return owner.noise.applied(scope.context.builder, full.name, value)


def _begin_as(scope: Scope, parameter: Parameter) -> None:
    """Has a parameter that another layer has asked for begin as its owner says, which is built only now."""
    context = scope.context
    user, _ = context.parameters.borrowed.pop(parameter.name)
    existing, value = context.parameters.by_name[parameter.name]
    try:
        _of_dims(context.builder, value, existing.dims, parameter.dims, parameter.name)
    except (LayerError, DimError) as error:
        context.report(user, LayerError(str(error), "", "reuse_params"))
        raise NotChecked(user.name) from error
    begun = replace(existing, initializer=parameter.initializer, storage=parameter.storage)
    context.builder.redefine(value, begun)
    context.parameters.by_name[parameter.name] = (begun, value)


def has_no_parameter(owner: LayerSpec, name: str) -> LayerError:
    """A layer of which another one wants what it has not."""
    return LayerError(
        f"layer '{owner.name}' has no parameter '{name}' to share",
        "Name a layer that has, or set auto_create_missing.",
        "reuse_params",
    )


def parameters_below(scope: Scope, spec: LayerSpec) -> list[str]:
    """The names of the parameters that a layer owns, and those of the layers inside of it."""
    return scope.context.parameters.names_below(scope.path_of(spec))


def parameter_beside(scope: Scope, spec: LayerSpec, parameter: Parameter) -> View:
    """A parameter under the layer's name that is not one of the layer itself: no noise and no L2 is on it."""
    owner = scope_of_parameters(scope, spec)
    return _parameter(scope, replace(owner.named(parameter), trainable=owner.trainable))


def _parameter(scope: Scope, parameter: Parameter) -> View:
    context = scope.context
    if parameter.name not in context.parameters.by_name:
        _require_own_value(context.parameters.by_name, parameter)
        with context.builder.at(OUTERMOST):
            context.parameters.by_name[parameter.name] = (parameter, context.builder.apply(parameter))
    existing, value = context.parameters.by_name[parameter.name]
    return _of_dims(context.builder, value, existing.dims, parameter.dims, parameter.name)


def _require_own_value(known: Mapping[str, tuple[Parameter, View]], parameter: Parameter) -> None:
    """Raises LayerError for a weight of another system's object that is a parameter already: there, who shares the
    object shares its weights."""
    given = parameter.initializer.given
    if given is None:
        return
    for name, (other, _) in known.items():
        if other.initializer.given is not None and other.initializer.given.owner == given.owner:
            raise LayerError(
                f"the object of this cell has the parameter {name} already, so {parameter.name} would be the same one",
                "Make an object for each cell; to share its parameters, say so with reuse_params.",
                "unit",
            )


def _of_dims(b: Builder, value: View, have: Sequence[Dim], want: Sequence[Dim], name: str) -> View:
    """A shared parameter under the dims that this user of it has. Raises LayerError and DimError."""
    if len(have) != len(want):
        listed = [", ".join(map(str, dims)) for dims in (have, want)]
        raise LayerError(
            f"parameter {name} has dims [{listed[0]}], but [{listed[1]}] are needed here", "", "reuse_params"
        )
    if have == want:
        return value
    with b.at(OUTERMOST):
        return _renamed(b, value, have, want, f"dims of the shared parameter {name}")


def _renamed(b: Builder, value: View, have: Sequence[Dim], want: Sequence[Dim], reason: str) -> View:
    """A value with other dims in place of those that it has: all at once, since one side may have the other's, as a
    layer over its own output that shares its parameters."""
    renamed = [(old, new) for old, new in zip(have, want, strict=True) if old != new]
    later = []
    for old, new in renamed:
        if new in value.type:
            between = b.copy_of_dim(new)
            value = b.relabel(value, old, between, reason)
            later.append((between, new))
        else:
            value = b.relabel(value, old, new, reason)
    for between, new in later:
        value = b.relabel(value, between, new, reason)
    return value


def _shared(scope: Scope, reference: str, parameter: Parameter, via: tuple[LayerSpec, ...]) -> View:
    """A parameter of another layer, which is built before, unless it reads this one: parameters are no values."""
    owner_scope, owner = find_spec(scope, reference)
    if not _waits_for_what_is_built(owner_scope, owner.name):
        owner_scope.layer(owner.name)
    return parameter_of_layer(owner_scope, owner, parameter, via)


def _waits_for_what_is_built(scope: Scope, name: str) -> bool:
    """True if a layer of this scope can't be built before one that is being built now, which it reads."""

    def needed(layer: str) -> list[str]:
        spec = None if layer in scope.built else scope.spec.layers.get(layer)
        links = () if spec is None else spec.links
        needed = () if spec is None else spec.needed_layers
        return [link.layer for link in links if link.layer in needed and link.option != "reuse_params"]

    return name not in scope.built and any(other in scope.in_progress for other in reachable([name], needed))


def _mapped(
    scope: Scope, spec: LayerSpec, reuse: Mapping[str, Any], parameter: Parameter, via: tuple[LayerSpec, ...]
) -> View:
    entries = reuse.get("map", {})
    for key in reuse:
        if key not in ("map", "reuse_layer", "auto_create_missing"):
            raise LayerError(
                f"reuse_params: unknown key '{key}'", "It has map, reuse_layer, auto_create_missing.", "reuse_params"
            )
    if parameter.name not in entries and reuse.get("reuse_layer"):
        try:
            return _shared(scope, reuse["reuse_layer"], parameter, via)
        except LayerError:
            if not reuse.get("auto_create_missing"):
                raise
            return own_parameter(scope, spec, parameter)
    if parameter.name not in entries and not reuse.get("auto_create_missing"):
        raise LayerError(
            f"reuse_params says nothing of the parameter '{parameter.name}'",
            "Add it to the map, or set auto_create_missing.",
            "reuse_params",
        )
    entry = entries.get(parameter.name)
    if entry is None or (isinstance(entry, Mapping) and entry.get("auto_create_missing")):
        return own_parameter(scope, spec, parameter)
    if isinstance(entry, str):
        return _shared(scope, entry, parameter, via)
    if "reuse_layer" in entry:
        return _shared(scope, entry["reuse_layer"], parameter, via)
    if "layer_output" in entry:
        return _from_output(scope, entry["layer_output"], parameter)
    raise LayerError(
        f"reuse_params: can't take '{parameter.name}' from {entry!r}",
        "Give reuse_layer or layer_output.",
        "reuse_params",
    )


def _from_output(scope: Scope, reference: str, parameter: Parameter) -> View:
    value = outputs_of(scope, reference).value
    have = value.type.dims
    if [dim.size for dim in have] != [dim.size for dim in parameter.dims]:
        reordered = value.type.dims[::-1]
        if [dim.size for dim in reordered] != [dim.size for dim in parameter.dims]:
            wanted = ", ".join(map(str, parameter.dims))
            raise LayerError(
                f"'{reference}' is {value.type}, but '{parameter.name}' needs [{wanted}]", "", "reuse_params"
            )
        have = reordered
    reason = f"parameter '{parameter.name}' from '{reference}'"
    return _renamed(scope.context.builder, value, have, parameter.dims, reason)


# Sizes that options ask for


def out_feature(scope: Scope, spec: LayerSpec) -> Dim | None:
    """The feature dim that n_out, out_dim or a target asks for: the same object each time. None if nothing does."""
    path = scope.path_of(spec)
    if path not in scope.features:
        found = _out_feature(scope, spec, path)
        if found is None:
            return None
        scope.features[path] = found
        scope.feature_dims.add(found)
    return scope.features[path]


def _out_feature(scope: Scope, spec: LayerSpec, path: str) -> Dim | None:
    output = spec.common.output
    if isinstance(output.out_dim, Dim):
        return output.out_dim
    size = output.out_dim if output.out_dim is not None else output.n_out
    if isinstance(size, int):
        if size <= 0:
            raise LayerError(f"the size of the output must be positive, not {size}", "", "n_out")
        return Symbol(f"{path}:feature", DimKind.FEATURE, size)
    if size is not None and size is not Unspecified:
        raise LayerError(f"expected a size, got {size!r}", "", "out_dim")
    if spec.target is None:
        own = spec.layer.own_size()
        return None if own is None else Symbol(f"{path}:feature", DimKind.FEATURE, own)
    classes = class_dim(scope, spec)
    loss = LOSS_CLASSES.get(spec.common.loss.loss or "")
    more = loss.more_classes(spec.common.loss.loss_opts or {}) if loss is not None else 0
    return classes + more if more else classes


def class_dim(scope: Scope, spec: LayerSpec) -> Dim:
    """The dim of the classes of a layer's target: its class dim if sparse, else its feature dim."""
    key = spec.target
    if key is None:
        raise LayerError("there is no target", "Give target.", "target")
    type_ = target_type(scope, key)
    found = type_.sparse or type_.feature
    if found is None:
        raise LayerError(f"the target '{key}' has no classes: {type_}", "", "target")
    return found
