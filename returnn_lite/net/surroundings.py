"""The network around one layer, as the layer's `build` sees it."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Hypotheses, LayerError, Outputs
from returnn_lite.layers.surroundings import Compilation, Given
from returnn_lite.net import parameters as parameter_rules
from returnn_lite.net.context import Unavailable
from returnn_lite.net.hypotheses import hypotheses_of, with_varying_dims
from returnn_lite.net.initial_outputs import initial_of_part, initial_output
from returnn_lite.net.loop_body import LoopBody
from returnn_lite.net.reads import record_read
from returnn_lite.net.resolution import gold_label, layer_of_part, outputs_of, target
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec


class LayerSurroundings:
    """The network around a layer that is being built."""

    def __init__(self, scope: Scope, spec: LayerSpec) -> None:
        self.scope = scope
        self.spec = spec
        self.compilation = compilation(scope)
        self.given = given_options(spec)
        self.target = LayerTarget(scope, spec)
        self.search = SearchAround(scope)

    def layer(self, reference: str) -> Outputs:
        """What a hidden reference stands for."""
        try:
            outputs = outputs_of(self.scope, reference)
        except LayerError as error:
            raise error.at(self.spec.option_that_says(reference)) from error
        record_read(self.scope, self.scope.path_of(self.spec), reference)
        return outputs

    def out_feature(self) -> Dim | None:
        """The feature dim that n_out, out_dim or the target asks for."""
        return parameter_rules.out_feature(self.scope, self.spec)

    def initial_output(self, type_: MarkedType, part: str = "") -> View | None:
        """The option initial_output of the layer, or of one inside of it; None if not given."""
        if not part:
            return initial_output(self.scope, self.spec, type_)
        scope, spec = layer_of_part(self.scope, self.spec, part.split("/"))
        return None if spec is self.spec else initial_of_part(scope, spec, type_)

    def parameter(self, parameter: Parameter) -> View:
        """A parameter of the layer."""
        return parameter_rules.parameter_of_layer(self.scope, self.spec, parameter)


def compilation(scope: Scope) -> Compilation:
    """What the layers of a scope share."""
    context = scope.context
    batch = context.extern_data.batch
    return Compilation(scope.mode, context.behavior_version, batch, context.functions, context.preactivations)


def given_options(spec: LayerSpec) -> Given:
    """What the common options of a layer say."""
    output = spec.common.output
    size_option = "out_dim" if output.out_dim is not None else "n_out" if isinstance(output.n_out, int) else "target"
    sources = tuple(name for name in spec.sources if name != "none")
    out_type = output.out_type if isinstance(output.out_type, dict) else {}
    return Given(sources, spec.source_axes, out_type, output.out_shape is not None, size_option)


class LayerTarget:
    """The target of a layer that is being built."""

    def __init__(self, scope: Scope, spec: LayerSpec) -> None:
        self.scope = scope
        self.spec = spec
        self.is_given = spec.target is not None

    def value(self) -> View:
        """The data; of the default target if the layer has none of its own."""
        return target(self.scope, self._key(self.spec))

    def class_dim(self, k: int = 0) -> Dim:
        """The classes of the layer's target, or of another of its targets."""
        return parameter_rules.class_dim(self.scope, self.spec if k == 0 else self._with_target(k))

    def gold_label(self, k: int) -> View:
        """What a choice takes without search: the label of one of the layer's targets."""
        wanted = self._key(self._with_target(k))
        try:
            return gold_label(self.scope, wanted)
        except Unavailable as error:
            if not self.scope.mode.search:
                raise
            raise LayerError(f"the target '{wanted}' is not there in search", "", "target") from error

    def _key(self, spec: LayerSpec) -> str:
        key = spec.target or self.scope.context.default_target
        if key is None:
            raise LayerError("there is no target", "Give target.", "target")
        return key

    def _with_target(self, k: int) -> LayerSpec:
        given = self.spec.common.loss.target
        if not isinstance(given, list) and k == 0:
            return self.spec
        if not isinstance(given, list) or k >= len(given):
            raise LayerError(f"there are sources without a target: {k + 1} are needed", "Give a list.", "target")
        return replace(self.spec, target=given[k])


class SearchAround:
    """The searches around the layers of a scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def hypotheses(self) -> LoopBody:
        """Those of the loop around, which has them in its body."""
        return self.scope.loop_around

    def reaches(self, value: View) -> bool:
        """Whether a value may differ from hypothesis to hypothesis."""
        return self.scope.searches or hypotheses_of(self.scope.context, value) is not None

    def left_in(self, value: View) -> Hypotheses | None:
        """What search left of the loop that a value comes from."""
        found = hypotheses_of(self.scope.context, value)
        return None if found is None else with_varying_dims(self.scope.context, found, value)
