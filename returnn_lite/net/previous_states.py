"""The state of `prev:x`: of a recurrent layer x one step before, by key ("c", "h").

Each key that is read becomes a State of the loop body, beside the one that the unit of x has itself: x may be built
after the layer that reads its state. When x is there, both get the same initial and the same next value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from returnn_lite.dims import TensorType
from returnn_lite.ir import Value
from returnn_lite.ir.open_body import OpenState
from returnn_lite.layers.base import LayerError
from returnn_lite.net.parameters import out_feature
from returnn_lite.net.references import Reference, ReferenceKind
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec


class PreviousStates(Mapping[str, Value]):
    """The states of one layer before the step; a State is made for each key that is asked for."""

    def __init__(self, scope: Scope, spec: LayerSpec) -> None:
        self.scope = scope
        self.spec = spec

    def __iter__(self) -> Iterator[str]:
        return iter(self.spec.layer.state_keys())

    def __len__(self) -> int:
        return len(self.spec.layer.state_keys())

    def __getitem__(self, key: str) -> Value:
        if key not in self.spec.layer.state_keys():
            raise KeyError(key)
        known = self.scope.previous_states.setdefault(self.spec.name, {})
        if key not in known:
            with self.scope.context.builder.at(self.scope.place):
                known[key] = _declared(self.scope, self.spec, key)
            self.scope.unconnected.append((self.scope, Reference(ReferenceKind.PREVIOUS, self.spec.name)))
        return known[key].now


def _declared(scope: Scope, spec: LayerSpec, key: str) -> OpenState:
    builder = scope.context.builder
    hidden = out_feature(scope, spec)
    if hidden is None:
        raise LayerError("the size of the output is not known", "Give n_out, or a target that says it.")
    type_ = TensorType((hidden,), feature=hidden)
    with builder.at(scope.loop_around.around):
        zero = builder.constant(0.0, type_.dtype, type_.dims)
    name = f"{spec.name}:{key}"
    return builder.delay(f"{scope.path}/prev:{name}", type_, zero, f"{scope.path}/{name}")


def complete_states(scope: Scope, name: str) -> None:
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
