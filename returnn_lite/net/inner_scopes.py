"""The scopes of layers inside of a layer, which asks for them while it builds: of a subnetwork, and of a unit."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.config.diagnostics import InnerPath
from returnn_lite.layers.base import LayerError, NetworkRequest, UnitRequest
from returnn_lite.net.context import NotChecked
from returnn_lite.net.parameter_scope import stored_parameters
from returnn_lite.net.parameters import scope_of_parameters
from returnn_lite.net.references import UNIT
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec, read_network


def scope_inside(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest | UnitRequest) -> Scope:
    """The scope of layers that a layer asks for; none is built. Raises LayerError and NotChecked."""
    if isinstance(request, NetworkRequest):
        return _network_scope(scope, spec, path, request)
    return _unit_scope(scope, spec, path, request)


def _network_scope(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest) -> Scope:
    nested = read_network(scope.context, request.layers, InnerPath(spec.path, request.option), scope.mode)
    if "output" not in nested.layers and "output" not in nested.broken:
        raise LayerError(
            "the network has no layer 'output'", "Name the layer that is the result 'output'.", request.option
        )
    parameters = scope_of_parameters(scope, spec)
    stored = stored_parameters(scope.context, request.load_on_init, spec.path, parameters)
    return scope.inside(nested, path, parameters.read_from(stored), request.inputs)


def _unit_scope(scope: Scope, spec: LayerSpec, path: str, request: UnitRequest) -> Scope:
    layers = {UNIT: {"from": "data", **request.options}}
    network = read_network(scope.context, layers, InnerPath(spec.path, request.option), scope.mode)
    nested = network.layers.get(UNIT)
    if nested is None:
        raise NotChecked(spec.name)
    network = replace(network, layers={UNIT: replace(nested, path=network.path)})
    parameters = scope_of_parameters(scope, spec).shared()
    return scope.inside(network, path, parameters, request.inputs, seen=request.seen)
