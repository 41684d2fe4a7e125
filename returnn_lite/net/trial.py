"""A layer's own `build`, tried on values of its sources' types before the layer is built: only the types stay.

A dim that a trial makes is another one than the layer will have: a feature dim becomes an `Unknown`, a spatial one is
left out.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from returnn_lite.dims import Dim, DimKind, MarkedType, Unknown
from returnn_lite.dims.dim import Product
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.open_body import OUTERMOST
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.views import View, new_view
from returnn_lite.layers.base import (
    Building,
    Hypotheses,
    LayerBuilder,
    LayerError,
    LoopRequest,
    NetworkRequest,
    Outputs,
    UnitRequest,
)
from returnn_lite.layers.preactivations import Preactivations
from returnn_lite.layers.surroundings import OpenHypotheses
from returnn_lite.net.common_effects import joined_sources
from returnn_lite.net.inner_scopes import scope_inside
from returnn_lite.net.output_claims import as_claimed
from returnn_lite.net.parameters import out_feature
from returnn_lite.net.references import UNIT
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.surroundings import LayerTarget, compilation, given_options

NOT_HERE = "this is not known before the layer is built"


class Expectations(Protocol):
    """What is known of the layers of a scope."""

    scope: Scope

    def reference(self, text: str) -> Outputs | None:
        """What a reference stands for, if that is known. Raises LayerError for a name that does not exist."""

    def differs_by_step(self, text: str, value: View) -> bool:
        """Whether what a reference stands for differs from step to step of the loop, as far as that is known."""

    def unknown_feature(self, name: str) -> Dim:
        """The feature of a layer, of which no size is known."""

    def inside(self, scope: Scope) -> Mapping[str, Outputs]:
        """What is known of the layers of a scope inside of this one, which is itself on trial."""


class Trial:
    """One layer, built on values of the types that are known. `Surroundings` of its `build`."""

    def __init__(self, expected: Expectations, spec: LayerSpec) -> None:
        scope = expected.scope
        self.expected = expected
        self.spec = spec
        self.path = scope.path_of(spec)
        self.preactivations = Preactivations()
        self.builder = Builder(self.preactivations.follow)
        with scope.context.builder.at(scope.point):
            loops = scope.context.builder.loops
        for over in loops:
            self.builder.open_loop(over)
        given = (spec.common.output.out_dim, getattr(spec.layer, "out_dim", None))
        self.known: set[Dim] = {*loops, *(dim for dim in given if isinstance(dim, Dim))}
        self.of_step: Dim | None = None
        """A dim of the result that each step makes anew."""
        self.differs = False
        """Whether the result differs from step to step."""
        self.is_typed = False
        """Whether the result is typed without being built: it has the dims of the sources and the features asked for,
        whatever is known of those features."""
        self.nothing = Unknown(f"{self.path}:from", DimKind.FEATURE)
        """The feature dim of a source of which nothing is known."""

    def outputs(self) -> Outputs:
        """What the layer makes, with no dims but those that it will have in the end. Raises LayerError, DimError."""
        spec = self.spec
        if spec.common.loss.size_target is not None:
            raise LayerError("the lengths are those of a target")
        sources = self._sources()
        typed = self._typed(sources)
        if typed is not None:
            self.is_typed = True
            self.differs = any(map(self.builder.differs_by_step, sources))
            return Outputs(self._settled(expected_value(typed)))
        b = LayerBuilder(self.builder, TrialSurroundings(self), self.path, spec.name)
        made = spec.layer.build(b, *joined_sources(b, spec, sources))
        if isinstance(made, Generator):
            made = self._answered(made)
        outputs = made if isinstance(made, Outputs) else Outputs(made)
        value = as_claimed(self.expected.scope, b, spec, outputs.value)
        self.differs = self.builder.differs_by_step(value)
        return Outputs(self._settled(value), {name: self._settled(part) for name, part in outputs.parts.items()})

    def _typed(self, sources: Sequence[View]) -> MarkedType | None:
        """What the layer makes, if it says that without being built, and no option makes it another type."""
        options, types = self.spec.common, [source.type for source in sources]
        output = options.output
        out = out_feature(self.expected.scope, self.spec)
        others = (output.out_type, output.out_dim, output.out_shape, options.inputs.in_dim)
        is_plain = all(option is None for option in others) and not isinstance(options.loss.target, list)
        if out is None or not is_plain or not types or not self.spec.layer.joins():
            return None
        return self.spec.layer.type_of_joined(types[0] if len(types) == 1 else self._joined(types), out)

    def _joined(self, types: Sequence[MarkedType]) -> MarkedType:
        """The type of sources joined along their features."""
        order = (max(types, key=lambda type_: len(type_.dims)), *types)
        dims = tuple(dict.fromkeys(dim for type_ in order for dim in type_.dims if dim is not type_.feature))
        time = next((type_.time for type_ in types if type_.time is not None and type_.time in dims), None)
        dtypes = {type_.dtype if type_.feature is not None else "" for type_ in types}
        return MarkedType((*dims, self.nothing), dtypes.pop() if len(dtypes) == 1 else "", None, self.nothing, time)

    def _answered(self, building: Building) -> Outputs:
        """What a layer makes of what is known of the layers inside."""
        try:
            request = next(building)
            while True:
                request = building.send(self._answer(request))
        except StopIteration as end:
            assert isinstance(end.value, Outputs)
            return end.value
        finally:
            building.close()

    def _answer(self, request: NetworkRequest | UnitRequest | LoopRequest) -> Any:
        if isinstance(request, LoopRequest):
            raise LayerError(NOT_HERE)
        scope = self.expected.scope
        with scope.context.builder.at(scope.point):
            known = self.expected.inside(scope_inside(scope, self.spec, self.path, request))
        needed = UNIT if isinstance(request, UnitRequest) else "output"
        if needed not in known:
            raise LayerError("nothing is known of the layers inside")
        return known[UNIT] if isinstance(request, UnitRequest) else known

    def _sources(self) -> list[View]:
        """The sources; one of which nothing is known yet is taken to have the features of one that is known."""
        names = [name for name in self.spec.sources if name != "none"]
        found = [self.expected.reference(name) for name in names]
        known = [outputs.value for outputs in found if outputs is not None]
        if len(known) < len(found):
            joins = self.spec.layer.joins()
            example = expected_value(self._nothing_known() if joins or not known else feature_only(known[0].type))
            known = [example if outputs is None else outputs.value for outputs in found]
        return [self.seen(name, value) for name, value in zip(names, known, strict=True)]

    def _nothing_known(self) -> MarkedType:
        if out_feature(self.expected.scope, self.spec) is None:
            raise LayerError("nothing is known of the source")
        return MarkedType((self.nothing,), feature=self.nothing)

    def known_outputs(self, reference: str) -> Outputs:
        """What is known of a reference that is no source. Raises LayerError if nothing is."""
        outputs = self.expected.reference(reference)
        if outputs is None:
            raise LayerError(f"nothing is known of '{reference}'")
        self.seen(reference, outputs.value)
        return outputs

    def seen(self, reference: str, value: View) -> View:
        """A value whose dims the layer may have."""
        if self.builder.body is not None and self.expected.differs_by_step(reference, value):
            self.builder.body.begin(value)
        self.known.update(dim for dim in value.type.dims if dim is not self.nothing)
        return value

    def _settled(self, value: View) -> View:
        """The value without dims of this trial."""
        type_, feature = value.type, value.type.feature
        known = (self.known, self.expected.scope.feature_dims)
        dims = tuple(dim for dim in type_.dims if dim is feature or _consists_of(dim, *known))
        self.of_step = next((d for d in type_.dims if d not in dims and self.builder.is_made_anew(d)), self.of_step)
        if feature is None or _consists_of(feature, *known):
            return expected_value(type_.of_dims(dims))
        scope, spec = self.expected.scope, self.spec
        unknown = out_feature(scope, spec) or self.expected.unknown_feature(spec.name)
        dims = tuple(unknown if dim is feature else dim for dim in dims)
        return expected_value(replace(type_, dims=dims, feature=unknown))


class TrialSurroundings:
    """The network around a layer on trial: options and types are there, whatever would change the network is not."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.compilation = replace(compilation(trial.expected.scope), preactivations=trial.preactivations)
        self.given = given_options(trial.spec)
        self.target = TrialTarget(trial)
        self.search = TrialSearch(trial.expected.scope)

    def layer(self, reference: str) -> Outputs:
        """What is known of a hidden reference."""
        return self.trial.known_outputs(reference)

    def out_feature(self) -> Dim | None:
        """The feature dim that the options ask for: the one that the layer will have."""
        return out_feature(self.trial.expected.scope, self.trial.spec)

    def parameter(self, parameter: Parameter) -> View:
        """A parameter of the trial."""
        with self.trial.builder.at(OUTERMOST):
            return self.trial.builder.apply(parameter)

    def initial_output(self, type_: MarkedType, part: str = "") -> View | None:
        """It makes no difference to the type."""
        return None


class TrialTarget(LayerTarget):
    """The target of a layer on trial: of which only the type is there, but for a layer."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial.expected.scope, trial.spec)
        self.trial = trial

    def value(self) -> View:
        """A target that is a layer: one from around is built now, of others what is known; no other target is here."""
        name = self.spec.target or ""
        if not name.startswith("layer:"):
            raise LayerError(NOT_HERE)
        if name.startswith("layer:base:"):
            return self.trial.seen(name.removeprefix("layer:"), super().value())
        return self.trial.known_outputs(name.removeprefix("layer:")).value

    def gold_label(self, k: int) -> View:
        """Not here."""
        raise LayerError(NOT_HERE)


class TrialSearch:
    """No search has ended, and the one around is not looked at."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def hypotheses(self) -> OpenHypotheses:
        """Not here."""
        raise LayerError(NOT_HERE)

    def reaches(self, value: View) -> bool:
        """Whether the loop around searches."""
        return self.scope.searches

    def left_in(self, value: View) -> Hypotheses | None:
        """Nothing is left."""
        return None


def expected_value(type_: MarkedType) -> View:
    return new_view("expected", type_)


def feature_only(type_: MarkedType) -> MarkedType:
    dims: tuple[Dim, ...] = () if type_.feature is None else (type_.feature,)
    return MarkedType(dims, type_.dtype, type_.sparse, type_.feature)


def _consists_of(dim: Dim, *known: set[Dim]) -> bool:
    """True for a dim that is known, or computed from known ones.

    Merged dims may lack some that are not known yet, and what is computed from an Unknown is not solved with it.
    """
    if any(dim in dims for dims in known):
        return True
    operands = dim.operands()
    is_whole = bool(operands) and not isinstance(dim, Product)
    return is_whole and all(not isinstance(one, Unknown) and _consists_of(one, *known) for one in operands)
