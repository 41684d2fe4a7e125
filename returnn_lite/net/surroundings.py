"""The network around one layer, as the layer's `build` sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Value
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.layers.base import Hypotheses, LayerError, Outputs
from returnn_lite.net import parameters as parameter_rules
from returnn_lite.net.failures import Unavailable
from returnn_lite.net.hypotheses import hypotheses_of, with_varying_dims
from returnn_lite.net.initial_outputs import initial_of_part, initial_output
from returnn_lite.net.loop_body import LoopBody
from returnn_lite.net.resolution import gold_label, layer_of_part, outputs_of, record_read, target
from returnn_lite.net.scope import MaskedFrames, Scope
from returnn_lite.net.specs import LayerSpec


class LayerSurroundings:
    """The network around one layer, as its `build` sees it."""

    def __init__(self, scope: Scope, spec: LayerSpec, path: str) -> None:
        self.scope = scope
        self.spec = spec
        self.path = path
        self.mode = scope.mode
        self.behavior_version = scope.context.behavior_version
        self.source_names = tuple(name for name in spec.sources if name != "none")
        self.source_axes = spec.source_axes
        self.batch = scope.context.extern_data.batch
        self.has_out_shape = spec.common.output.out_shape is not None
        self.has_target = spec.target is not None
        output = spec.common.output
        self.size_option = (
            "out_dim" if output.out_dim is not None else "n_out" if isinstance(output.n_out, int) else "target"
        )
        out_type = output.out_type
        self.out_type: Mapping[str, Any] = out_type if isinstance(out_type, dict) else {}
        self.functions = scope.context.functions
        self.preactivations = scope.context.preactivations

    def layer(self, reference: str) -> Outputs:
        """What a hidden reference stands for."""
        try:
            outputs = outputs_of(self.scope, reference)
        except LayerError as error:
            raise error.at(self.spec.option_that_says(reference)) from error
        record_read(self.scope, self.path, reference)
        return outputs

    def target(self, key: str | None) -> Value:
        """Target data; by default the layer's own."""
        wanted = key or self.spec.target or self.scope.context.default_target
        if wanted is None:
            raise LayerError("there is no target", "Give target.", "target")
        return target(self.scope, wanted)

    def class_dim(self, k: int = 0) -> Dim:
        """The classes of the layer's target, or of another of its targets."""
        return parameter_rules.class_dim(self.scope, self.spec if k == 0 else self._with_target(k))

    def gold_label(self, k: int) -> Value:
        """What a choice takes without search: the label of one of the layer's targets."""
        wanted = self._with_target(k).target or self.scope.context.default_target
        if wanted is None:
            raise LayerError("there is no target", "Give target.", "target")
        try:
            return gold_label(self.scope, wanted)
        except Unavailable as error:
            if not self.mode.search:
                raise
            raise LayerError(f"the target '{wanted}' is not there in search", "", "target") from error

    def _with_target(self, k: int) -> LayerSpec:
        given = self.spec.common.loss.target
        if not isinstance(given, list) and k == 0:
            return self.spec
        if not isinstance(given, list) or k >= len(given):
            raise LayerError(f"there are sources without a target: {k + 1} are needed", "Give a list.", "target")
        return replace(self.spec, target=given[k])

    def open_hypotheses(self) -> LoopBody:
        """The hypotheses of the loop around."""
        return self.scope.loop_around

    def initial_output(self, type_: TensorType, part: str = "") -> Value | None:
        """The option initial_output of the layer, or of one inside of it; None if not given."""
        if not part:
            return initial_output(self.scope, self.spec, type_)
        scope, spec = layer_of_part(self.scope, self.spec, part.split("/"))
        return None if spec is self.spec else initial_of_part(scope, spec, type_)

    def hypotheses(self, value: Value) -> Hypotheses | None:
        """What search left of the loop that a value comes from."""
        found = hypotheses_of(self.scope.context, value)
        return None if found is None else with_varying_dims(self.scope.context, found, value)

    def of_hypotheses(self, value: Value) -> bool:
        """Whether a value may differ from hypothesis to hypothesis."""
        return self.scope.searches or hypotheses_of(self.scope.context, value) is not None

    def out_feature(self, layer: str) -> Dim:
        """The feature dim that n_out, out_dim or the target asks for."""
        return parameter_rules.out_feature(self.scope, self.spec, self.path)

    def wants_out_feature(self, layer: str) -> bool:
        """True if something says the size of the feature dim."""
        return parameter_rules.wants_out_feature(self.scope, self.spec)

    def masked_frames(self, declared: Dim, mask: Value, frames: Dim) -> None:
        """Names the frames of the loop at which a mask is true for other layers of its body."""
        self.scope.masked_frames[declared] = MaskedFrames(declared, mask, frames)

    def parameter(self, layer: str, parameter: Parameter) -> Value:
        """A parameter of the layer."""
        return parameter_rules.parameter_of_layer(self.scope, self.spec, parameter)
