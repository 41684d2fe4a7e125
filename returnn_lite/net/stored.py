"""`load_on_init` of a subnetwork: which of its parameters begin with what a checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from returnn_lite.config.options import option
from returnn_lite.ir.ops.sources import Source
from returnn_lite.layers.base import LayerError
from returnn_lite.layers.structure import Subnetwork
from returnn_lite.net.context import NetworkContext
from returnn_lite.net.decoding import decode_options
from returnn_lite.net.failures import NotChecked
from returnn_lite.net.specs import LayerSpec


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


def stored_parameters(context: NetworkContext, spec: LayerSpec, prefix: str) -> StoredParameters | None:
    """What `load_on_init` of a layer says; None if it has none. Raises LayerError."""
    given: object = spec.layer.load_on_init if isinstance(spec.layer, Subnetwork) else None
    if callable(given):
        given = given()
    if given is None:
        return None
    values: object = {"filename": given} if isinstance(given, str) else given
    if not isinstance(values, Mapping):
        raise LayerError(f"expected the name of a checkpoint or a dict, got {given!r}", "", "load_on_init")
    options = decode_options(context, LoadOnInit, values, (*spec.path, "load_on_init"))
    if options is None:
        raise NotChecked(spec.name)
    return StoredParameters(prefix, options)
