"""Layers inside of layers: their scopes, and what a layer gets that asks for them while it builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from returnn_lite.layers.base import LayerError, LoopRequest, NetworkRequest, Outputs, UnitRequest
from returnn_lite.net.failures import NotChecked
from returnn_lite.net.loops import built_loop
from returnn_lite.net.parameters import scope_of_parameters
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import UNIT, LayerSpec, read_network, root_layers
from returnn_lite.net.stored import stored_parameters
from returnn_lite.net.tasks import SomeLayers, Task
from returnn_lite.net.unit_scope import UnitScope


def answer(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest | UnitRequest | LoopRequest) -> Task[Any]:
    """What a layer gets for a request. Raises NotChecked if what it asks for can't be built."""
    if isinstance(request, LoopRequest):
        return (yield from built_loop(scope, spec, path, request))
    child = scope_inside(scope, spec, path, request)
    if isinstance(request, UnitRequest):
        return (yield from _all_built(scope, spec, child, [UNIT]))[UNIT]
    return (yield from _all_built(scope, spec, child, root_layers(child.spec, in_loop=False)))


def scope_inside(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest | UnitRequest) -> Scope:
    """The scope of layers that a layer asks for; none is built. Raises LayerError and NotChecked."""
    if isinstance(request, NetworkRequest):
        return _network_scope(scope, spec, path, request)
    return _unit_scope(scope, spec, path, request)


def _network_scope(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest) -> Scope:
    nested = read_network(scope.context, request.layers, (*spec.path, request.option), scope.mode)
    if "output" not in nested.layers and "output" not in nested.broken:
        raise LayerError(
            "the network has no layer 'output'", "Name the layer that is the result 'output'.", request.option
        )
    parameters = scope_of_parameters(scope, spec)
    stored = stored_parameters(scope.context, spec, parameters.prefix)
    return Scope(scope.context, nested, path, parameters.read_from(stored), scope, request.inputs)


def _unit_scope(scope: Scope, spec: LayerSpec, path: str, request: UnitRequest) -> Scope:
    layers = {UNIT: {"from": "data", **request.options}}
    network = read_network(scope.context, layers, (*spec.path, request.option), scope.mode)
    nested = network.layers.get(UNIT)
    if nested is None:
        raise NotChecked(spec.name)
    network = replace(network, layers={UNIT: replace(nested, path=nested.path[:-1])})
    parameters = scope_of_parameters(scope, spec).shared()
    return UnitScope(scope.context, network, path, parameters, scope, request.inputs, request.seen)


def _all_built(scope: Scope, spec: LayerSpec, child: Scope, layers: Sequence[str]) -> Task[Mapping[str, Outputs]]:
    scope.children[spec.name] = child
    yield SomeLayers(child, layers, all_of_them=True)
    if child.failed or child.spec.broken:
        raise NotChecked(spec.name)
    return child.built
