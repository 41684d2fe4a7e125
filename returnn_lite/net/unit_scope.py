"""The scope of one layer inside of another (the unit of a masked computation): it sees what the layer around sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from returnn_lite.ir import Value
from returnn_lite.layers.base import Outputs
from returnn_lite.net.context import NetworkContext
from returnn_lite.net.parameters import ParameterScope
from returnn_lite.net.references import Reference, ReferenceKind, parse_reference
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import UNIT, LayerSpec, NetworkSpec


class UnitScope(Scope):
    """`data` is what the layer around gives; any other reference means what it would mean there, as `seen` shows
    it."""

    def __init__(
        self,
        context: NetworkContext,
        spec: NetworkSpec,
        path: str,
        parameters: ParameterScope,
        parent: Scope,
        inputs: Mapping[str, Value],
        seen: Callable[[Value], Value],
    ) -> None:
        super().__init__(context, spec, path, parameters, parent, inputs)
        self.around = parent
        self.seen = seen

    def outputs(self, text: str) -> Outputs:
        """What a reference stands for: the unit itself, its data, the step, or a layer of the network around."""
        if not self.is_read_around(parse_reference(text)):
            return super().outputs(text)
        with self.context.builder.at(self.around.place):
            outputs = self.around.outputs(text)
        return replace(outputs, value=self.seen(outputs.value))

    def is_read_around(self, reference: Reference) -> bool:
        """True for whatever is not the unit's own."""
        own = reference.kind is ReferenceKind.LAYER and reference.name == UNIT
        return not own and reference.kind not in (ReferenceKind.DATA, ReferenceKind.STEP, ReferenceKind.NONE)

    def data_from_around(self, value: Value) -> Value:
        """Data of the network around, as the layer around shows it."""
        return self.seen(value)

    def target_from_around(self, key: str, value: Value) -> Value:
        """A target of the network around, as the layer around shows it."""
        return self.seen(value)

    def find_spec(self, reference: str) -> tuple[Scope, LayerSpec]:
        """The layer that a reference in `reuse_params` names is one of the network around."""
        return self.around.find_spec(reference)
