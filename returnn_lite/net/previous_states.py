"""The state of `prev:x`: of a recurrent layer x one step before, by key ("c", "h").

Each key that is read becomes a State of the loop body, beside the one that the unit of x has itself: x may be built
after the layer that reads its state. When x is there, both get the same initial and the same next value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from returnn_lite.dims import TensorType
from returnn_lite.ir import Value
from returnn_lite.ir.builder import OpenState
from returnn_lite.layers.base import LayerError
from returnn_lite.net.parameters import out_feature
from returnn_lite.net.specs import LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


class PreviousStates(Mapping[str, Value]):
    """The states of one layer before the step; a State is made for each key that is asked for."""

    def __init__(self, scope: Scope, spec: LayerSpec) -> None:
        self.scope = scope
        self.spec = spec
        self._delays: dict[str, OpenState] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.spec.layer.state_keys())

    def __len__(self) -> int:
        return len(self.spec.layer.state_keys())

    def __getitem__(self, key: str) -> Value:
        if key not in self.spec.layer.state_keys():
            raise KeyError(key)
        if key not in self._delays:
            with self.scope.context.builder.at(self.scope.place):
                self._delays[key] = self._declare(key)
        return self._delays[key].now

    @property
    def incomplete(self) -> bool:
        """True if a State has no next value yet."""
        return any(delay.next is None for delay in self._delays.values())

    def complete(self) -> None:
        """Connects the States with the layer, which is built now if it is not yet. Raises LayerError."""
        for delay in self._delays.values():
            delay.next = delay.now  # so that a layer with a mistake is not tried again
        state = self.scope.layer(self.spec.name).state
        body = self.scope.context.builder.body
        assert body is not None
        for key, delay in self._delays.items():
            if key not in state:
                raise LayerError(f"'{self.spec.name}' has no state '{key}'")
            delay.next = state[key]
            own = next((other for other in body.delays if other.next is state[key] and other is not delay), None)
            if own is not None:
                delay.init = own.init

    def _declare(self, key: str) -> OpenState:
        builder = self.scope.context.builder
        hidden = out_feature(self.scope, self.spec, self.scope.path_of(self.spec))
        type_ = TensorType((hidden,), feature=hidden)
        with builder.at(self.scope.outer_place):
            zero = builder.constant(0.0, type_.dtype, type_.dims)
        name = f"{self.spec.name}:{key}"
        return builder.delay(f"{self.scope.path}/prev:{name}", type_, zero, f"{self.scope.path}/{name}")
