"""The scopes of layers inside of a layer, which asks for them while it builds: of a subnetwork, and of a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from returnn_lite.config.diagnostics import InnerPath
from returnn_lite.layers.base import LayerError, NetworkRequest, UnitRequest
from returnn_lite.net.context import NotChecked
from returnn_lite.net.parameter_scope import stored_parameters
from returnn_lite.net.parameters import scope_of_parameters
from returnn_lite.net.references import UNIT
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec, NetworkSpec, read_network


def scope_inside(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest | UnitRequest) -> Scope:
    """The scope of layers that a layer asks for; none is built. Raises LayerError and NotChecked."""
    if isinstance(request, NetworkRequest):
        return _network_scope(scope, spec, path, request)
    return _unit_scope(scope, spec, path, request)


def network_inside(
    scope: Scope, spec: LayerSpec, options: Mapping[str, Any], option: str, *, is_unit: bool = False
) -> NetworkSpec:
    """The network that an option of a layer has, or the one layer: decoded once, for trials and for building alike."""
    known = scope.networks.get(spec.name)
    if known is None or known[0] is not options:
        layers = {UNIT: {"from": "data", **options}} if is_unit else options
        known = (options, read_network(scope.context, layers, InnerPath(spec.path, option), scope.mode))
        scope.networks[spec.name] = known
    return known[1]


def _network_scope(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest) -> Scope:
    nested = network_inside(scope, spec, request.layers, request.option)
    if "output" not in nested.layers and "output" not in nested.broken:
        raise LayerError(
            "the network has no layer 'output'", "Name the layer that is the result 'output'.", request.option
        )
    parameters = scope_of_parameters(scope, spec)
    stored = stored_parameters(scope.context, request.load_on_init, spec.path, parameters)
    return scope.inside(nested, path, parameters.read_from(stored), request.inputs, marks=scope.marks_inside(spec))


def _unit_scope(scope: Scope, spec: LayerSpec, path: str, request: UnitRequest) -> Scope:
    network = network_inside(scope, spec, request.options, request.option, is_unit=True)
    nested = network.layers.get(UNIT)
    if nested is None:
        raise NotChecked(spec.name)
    network = replace(network, layers={UNIT: replace(nested, path=network.path)})
    parameters = scope_of_parameters(scope, spec).shared()
    return scope.inside(network, path, parameters, request.inputs, seen=request.seen, marks=scope.marks_inside(spec))
