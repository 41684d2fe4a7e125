"""What a layer's parameters have from where it is: their names (`name_scope`), whether they are trained, their noise in
training, and initial values from a checkpoint (`load_on_init`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from returnn_lite.config.diagnostics import AnyPath
from returnn_lite.config.options import option
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.sources import Parameter, RandomDraw, Source
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.net.common_options import ParameterOptions
from returnn_lite.net.context import NetworkContext, NotChecked
from returnn_lite.net.decoding import decode_options


@dataclass(frozen=True)
class ParameterNoise:
    """What `param_dropout`, `param_dropout_min_ndim` and `param_variational_noise` say of a layer's parameters.

    Each element is 0 with probability `dropout`, else divided by 1 - dropout; then noise of a normal distribution with
    mean 0 and standard deviation `noise` (Graves 2011) is added. All steps of a loop, and all layers that share a
    parameter, see one draw of it.
    """

    dropout: float = 0.0
    min_ndim: int = 0
    noise: float = 0.0

    def with_options(self, options: ParameterOptions) -> ParameterNoise:
        """As a layer says, or else the layer around. Raises LayerError."""
        rate, noise = options.param_dropout, options.param_variational_noise
        if rate is not None and not 0.0 <= rate < 1.0:
            raise LayerError(f"a dropout rate is at least 0 and below 1, not {rate}", "", "param_dropout")
        if noise is not None and noise < 0.0:
            raise LayerError(f"a standard deviation is not negative: {noise}", "", "param_variational_noise")
        least = options.param_dropout_min_ndim
        return ParameterNoise(
            self.dropout if rate is None else rate,
            self.min_ndim if least is None else least,
            self.noise if noise is None else noise,
        )

    def applied(self, builder: Builder, name: str, value: View) -> View:
        """The value of the parameter of that name, with noise. The draws are named by the parameter."""
        if not value.type.is_float:
            return value
        dims, dtype = value.type.dims, value.type.dtype
        if self.dropout and len(dims) >= self.min_ndim:
            draw = RandomDraw("uniform", 0.0, 1.0, dims, f"param_dropout:{name}:{self.dropout}", dtype)
            keeps = builder.binary("greater_equal", builder.apply(draw), self.dropout)
            scale = builder.constant(1.0 / (1.0 - self.dropout), dtype)
            value = builder.mul(value, builder.select(keeps, scale, 0.0))
        if self.noise:
            draw = RandomDraw("normal", 0.0, float(self.noise), dims, f"param_noise:{name}:{self.noise}", dtype)
            value = builder.add(value, builder.apply(draw))
        return value


@dataclass(frozen=True)
class LoadOnInit:
    """What the option may be besides the name of the file. Names of parameters are those inside of the subnetwork."""

    filename: str = option("the checkpoint, without the endings of its files")
    load_if_prefix: str = option("part of the names of those to read, which the names there lack", default="")
    ignore_missing: bool = option("leave parameters that the checkpoint does not have", default=False)
    ignore_params: list[str] = option("parameters that are not read", default=[])
    ignore_params_prefixes: list[str] = option("beginnings of names of parameters that are not read", default=[])
    var_name_mapping: dict[str, str] = option("names in the checkpoint by names in the subnetwork", default={})


@dataclass(frozen=True)
class StoredParameters:
    """What a checkpoint has of the parameters whose names begin with `prefix`."""

    prefix: str
    options: LoadOnInit

    def source(self, parameter: str) -> Source | None:
        """Where a parameter is read from; None if it is not read."""
        name, options = parameter.removeprefix(f"{self.prefix}/"), self.options
        if name == parameter or options.load_if_prefix not in name:
            return None
        if options.load_if_prefix:
            name = name.replace(options.load_if_prefix, "")
        if name in options.ignore_params or name.startswith(tuple(options.ignore_params_prefixes)):
            return None
        return Source(options.filename, options.var_name_mapping.get(name, name), options.ignore_missing)


def stored_parameters(
    context: NetworkContext, given: object, path: AnyPath, parameters: ParameterScope
) -> StoredParameters | None:
    """What `load_on_init` of the layer at a path, which has these parameters, says; None if nothing.

    Raises LayerError and NotChecked.
    """
    if callable(given):
        given = given()
    if given is None:
        return None
    values: object = {"filename": given} if isinstance(given, str) else given
    if not isinstance(values, Mapping):
        raise LayerError(f"expected the name of a checkpoint or a dict, got {given!r}", "", "load_on_init")
    options = decode_options(context, LoadOnInit, values, (*path, "load_on_init"))
    if options is None:
        raise NotChecked(parameters.prefix)
    return StoredParameters(parameters.prefix, options)


@dataclass(frozen=True)
class ParameterScope:
    """The prefix of parameter names for the layers of a scope, whether they may be trained, and their noise.

    The prefix is what the scope `around` has, and `name`.
    """

    around: ParameterScope | None = None
    name: str = ""
    trainable: bool = True
    noise: ParameterNoise = ParameterNoise()
    stored: StoredParameters | None = None
    of_unit: bool = False
    """True if the one layer of the scope has no name of its own."""
    left_out: str = ""
    """A beginning that the names of the layer's parameters lose (`Layer.inner_scope`)."""

    def of_layer(self, name: str, options: ParameterOptions, inner: str) -> ParameterScope:
        """The scope of one layer's own parameters. `inner` is its class's own scope in it, which a name_scope
        replaces."""
        given = options.name_scope
        around: ParameterScope | None = self
        own = given or ""
        if given is None:
            own = "" if self.of_unit else name.replace("-", "__")
        elif given.startswith("/"):
            around, own = None, given.strip("/")
        trainable = self.trainable and options.trainable is not False
        left_out = f"{inner}/" if given is not None and inner else ""
        noise = self.noise.with_options(options)
        return ParameterScope(around, own, trainable, noise, self.stored, left_out=left_out)

    @property
    def prefix(self) -> str:
        """What the names of parameters begin with."""
        names: list[str] = []
        scope: ParameterScope | None = self
        while scope is not None:
            names.append(scope.name)
            scope = scope.around
        return _join(*reversed(names))

    def inside(self, name: str) -> ParameterScope:
        """The scope one level below, unless a name_scope stands for that."""
        return self if self.left_out else replace(self, around=self, name=name)

    def shared(self) -> ParameterScope:
        """The scope of a layer inside that has the names of the one around."""
        return replace(self, of_unit=True, left_out="")

    def read_from(self, stored: StoredParameters | None) -> ParameterScope:
        """The same, with initial values from a checkpoint."""
        return self if stored is None else replace(self, stored=stored)

    def named(self, parameter: Parameter) -> Parameter:
        """A parameter of the scope's layer under its full name, with the initial value that a checkpoint has."""
        name = _join(self.prefix, parameter.name.removeprefix(self.left_out))
        source = None if self.stored is None else self.stored.source(name)
        storage = parameter.storage if source is None else replace(parameter.storage, source=source)
        return replace(parameter, name=name, storage=storage)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
