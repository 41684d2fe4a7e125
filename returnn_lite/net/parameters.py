"""Parameters of layers: their names, sharing (`reuse_params`, `name_scope`), freezing; and the sizes that options
ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from returnn_lite.config.options import Unspecified
from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir import Value
from returnn_lite.ir.builder import OUTERMOST
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.layers.base import LayerError
from returnn_lite.net.common import ParameterOptions
from returnn_lite.net.parameter_noise import ParameterNoise
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.stored import StoredParameters

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


@dataclass(frozen=True)
class ParameterScope:
    """The prefix of parameter names for the layers of a scope, whether they may be trained, and their noise."""

    prefix: str = ""
    trainable: bool = True
    noise: ParameterNoise = ParameterNoise()
    stored: StoredParameters | None = None

    def of_layer(self, name: str, options: ParameterOptions) -> ParameterScope:
        """The scope of one layer's own parameters."""
        given = options.name_scope
        if given is None:
            prefix = _join(self.prefix, name.replace("-", "__"))
        elif given.startswith("/"):
            prefix = given.strip("/")
        else:
            prefix = _join(self.prefix, given)
        trainable = self.trainable and options.trainable is not False
        return replace(self, prefix=prefix, trainable=trainable, noise=self.noise.with_options(options))

    def inside(self, name: str) -> ParameterScope:
        """The scope one level below."""
        return replace(self, prefix=_join(self.prefix, name))

    def read_from(self, stored: StoredParameters | None) -> ParameterScope:
        """The same, with initial values from a checkpoint."""
        return self if stored is None else replace(self, stored=stored)

    def named(self, parameter: Parameter) -> Parameter:
        """A parameter of the scope's layer under its full name, with the initial value that a checkpoint has."""
        name = _join(self.prefix, parameter.name)
        source = None if self.stored is None else self.stored.source(name)
        storage = parameter.storage if source is None else replace(parameter.storage, source=source)
        return replace(parameter, name=name, storage=storage)


def _join(prefix: str, name: str) -> str:
    return "/".join(part for part in (prefix, name) if part)


def parameter_of_layer(scope: Scope, spec: LayerSpec, parameter: Parameter) -> Value:
    """A parameter that a layer asks for: its own, or what `reuse_params` says."""
    reuse = spec.common.parameters.reuse_params
    if isinstance(reuse, str):
        return _shared(scope, reuse, parameter)
    if isinstance(reuse, Mapping):
        return _mapped(scope, spec, reuse, parameter)
    return own_parameter(scope, spec, parameter)


def own_parameter(scope: Scope, spec: LayerSpec, parameter: Parameter) -> Value:
    """The parameter under the layer's own name; made if there is none of that name."""
    owner = scope.parameters.of_layer(spec.name, spec.common.parameters)
    full = replace(owner.named(parameter), trainable=parameter.trainable and owner.trainable)
    names = scope.context.layer_parameters.setdefault(scope.path_of(spec), [])
    if full.name not in names:
        names.append(full.name)
    value = _parameter(scope, full)
    if not scope.mode.train or not full.trainable:
        return value
    with scope.context.builder.at(OUTERMOST):
        return owner.noise.applied(scope.context.builder, full.name, value)


def parameters_below(scope: Scope, spec: LayerSpec) -> list[str]:
    """The names of the parameters that a layer owns, and those of the layers inside of it."""
    path = scope.path_of(spec)
    found = [
        name
        for owner, names in scope.context.layer_parameters.items()
        if owner == path or owner.startswith(f"{path}/")
        for name in names
    ]
    return list(dict.fromkeys(found))


def parameter_beside(scope: Scope, spec: LayerSpec, parameter: Parameter) -> Value:
    """A parameter under the layer's name that is not one of the layer itself: no noise and no L2 is on it."""
    owner = scope.parameters.of_layer(spec.name, spec.common.parameters)
    return _parameter(scope, replace(owner.named(parameter), trainable=owner.trainable))


def _parameter(scope: Scope, parameter: Parameter) -> Value:
    context = scope.context
    if parameter.name not in context.parameters:
        with context.builder.at(OUTERMOST):
            context.parameters[parameter.name] = (parameter, context.builder.apply(parameter))
    existing, value = context.parameters[parameter.name]
    return _renamed_dims(scope, value, existing.dims, parameter.dims, parameter.name)


def _renamed_dims(scope: Scope, value: Value, have: tuple[Dim, ...], want: tuple[Dim, ...], name: str) -> Value:
    """A shared array under the dims that this user of it has."""
    if len(have) != len(want):
        listed = [", ".join(map(str, dims)) for dims in (have, want)]
        raise LayerError(
            f"parameter {name} has dims [{listed[0]}], but [{listed[1]}] are needed here", "", "reuse_params"
        )
    with scope.context.builder.at(OUTERMOST):
        for old, new in zip(have, want, strict=True):
            value = scope.context.builder.relabel(value, old, new, f"dims of the shared parameter {name}")
    return value


def _shared(scope: Scope, reference: str, parameter: Parameter) -> Value:
    owner_scope, owner = scope.find_spec(reference)
    owner_scope.layer(owner.name)
    return parameter_of_layer(owner_scope, owner, parameter)


def _mapped(scope: Scope, spec: LayerSpec, reuse: Mapping[str, Any], parameter: Parameter) -> Value:
    entries = reuse.get("map", {})
    for key in reuse:
        if key not in ("map", "reuse_layer", "auto_create_missing"):
            raise LayerError(
                f"reuse_params: unknown key '{key}'", "It has map, reuse_layer, auto_create_missing.", "reuse_params"
            )
    if parameter.name not in entries and reuse.get("reuse_layer"):
        return _shared(scope, reuse["reuse_layer"], parameter)
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
        return _shared(scope, entry, parameter)
    if "reuse_layer" in entry:
        return _shared(scope, entry["reuse_layer"], parameter)
    if "layer_output" in entry:
        return _from_output(scope, entry["layer_output"], parameter)
    raise LayerError(
        f"reuse_params: can't take '{parameter.name}' from {entry!r}",
        "Give reuse_layer or layer_output.",
        "reuse_params",
    )


def _from_output(scope: Scope, reference: str, parameter: Parameter) -> Value:
    value = scope.outputs(reference).value
    have = value.type.dims
    if [dim.size for dim in have] != [dim.size for dim in parameter.dims]:
        reordered = value.type.dims[::-1]
        if [dim.size for dim in reordered] != [dim.size for dim in parameter.dims]:
            wanted = ", ".join(map(str, parameter.dims))
            raise LayerError(
                f"'{reference}' is {value.type}, but '{parameter.name}' needs [{wanted}]", "", "reuse_params"
            )
        have = reordered
    for old, new in zip(have, parameter.dims, strict=True):
        value = scope.context.builder.relabel(value, old, new, f"parameter '{parameter.name}' from '{reference}'")
    return value


# Sizes that options ask for


def wants_out_feature(scope: Scope, spec: LayerSpec) -> bool:
    """True if n_out, out_dim, or a target says the size of the feature dim."""
    output = spec.common.output
    return isinstance(output.n_out, int) or output.out_dim is not None or spec.target is not None


def out_feature(scope: Scope, spec: LayerSpec, path: str) -> Dim:
    """The feature dim that the options ask for: the same object each time."""
    if path not in scope.features:
        scope.features[path] = _out_feature(scope, spec, path)
    return scope.features[path]


def _out_feature(scope: Scope, spec: LayerSpec, path: str) -> Dim:
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
        raise LayerError("the size of the output is not known", "Give n_out, or a target that says it.")
    classes = class_dim(scope, spec)
    loss = spec.common.loss
    has_blank = loss.loss == "ctc" or (loss.loss == "edit_distance" and (loss.loss_opts or {}).get("ctc_decode"))
    return classes + 1 if has_blank else classes


def class_dim(scope: Scope, spec: LayerSpec) -> Dim:
    """The dim of the classes of a layer's target: its class dim if sparse, else its feature dim."""
    key = spec.target
    if key is None:
        raise LayerError("there is no target", "Give target.", "target")
    type_ = scope.target_type(key)
    found = type_.sparse or type_.feature
    if found is None:
        raise LayerError(f"the target '{key}' has no classes: {type_}", "", "target")
    return found
