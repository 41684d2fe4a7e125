"""What is known of a layer's output before it is built: its own `build`, tried on values of its sources' types.

The trial's nodes and parameters are dropped, only the types stay. What a trial can't say (a layer of a cycle, a loop, a
subnetwork) is said by the options, or not at all. A dim that a trial makes is another one than the layer will have: a
feature dim becomes an `Unknown`, a spatial one is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from returnn_lite.dims import Dim, DimError, DimKind, Symbol, TensorType, Unknown
from returnn_lite.dims.dim import Product
from returnn_lite.ir import Value
from returnn_lite.ir.builder import OUTERMOST, Builder
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.layers.base import Hypotheses, LayerBuilder, LayerError, LoopRequest, Outputs
from returnn_lite.layers.losses import Loss
from returnn_lite.net.failures import NotChecked, Unavailable
from returnn_lite.net.finish import joined_sources
from returnn_lite.net.output_claims import as_claimed
from returnn_lite.net.parameters import class_dim, out_feature, wants_out_feature
from returnn_lite.net.references import Reference, ReferenceKind, parse_reference
from returnn_lite.net.specs import UNIT, LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope

FURTHEST = 50
"""How many layers deep one type is looked for; what is further away is found when it is built."""


class ExpectedTypes:
    """The types of layers of one scope that are not built yet, as far as they can be known at this moment."""

    def __init__(self, scope: Scope, around: ExpectedTypes | None = None) -> None:
        self.scope = scope
        self.around = around
        """What is known of the scope around, for one that is itself on trial."""
        self._found: dict[str, Outputs | None] = {}
        self._depth: int = 0 if around is None else around._depth

    def of(self, spec: LayerSpec, parts: tuple[str, ...] = ()) -> TensorType | None:
        """The type of a layer's output, or of a part of it. None if nothing is known.

        The beam is left to be solved with the loop (`ir.rewrite`), unless the layer is there; so is a batch that
        can't be known yet.
        """
        if spec.name in self.scope.built and not parts:
            return self.scope.built[spec.name].value.type
        outputs = self.outputs(spec)
        value = None if outputs is None else outputs.parts.get("/".join(parts)) if parts else outputs.value
        if value is None:
            return None
        kept = (dim for dim in value.type.dims if dim.kind is not DimKind.BEAM)
        return replace(value.type, dims=tuple(kept))

    def outputs(self, spec: LayerSpec) -> Outputs | None:
        """What a layer makes. None for a layer that is being looked at already: it is part of a cycle."""
        if spec.name in self.scope.built and spec is self.scope.spec.layers[spec.name]:
            return self.scope.built[spec.name]
        key = f"{spec.name}:{spec.target}"
        if key not in self._found:
            if self._depth >= FURTHEST:
                return None
            self._depth += 1
            self._found[key] = None
            self._found[key] = self._find(spec)
            self._depth -= 1
        return self._found[key]

    def reference(self, text: str) -> Outputs | None:
        """What a reference stands for, if that is known. Raises LayerError for a name that does not exist."""
        reference = parse_reference(text)
        if self.around is not None and self.scope.is_read_around(reference):
            return self.around.reference(text)
        if reference.kind in (ReferenceKind.LAYER, ReferenceKind.PREVIOUS):
            return self._layer(reference)
        if reference.kind is ReferenceKind.BASE:
            if self.around is not None:
                return self.around.reference(reference.name)
            return self.scope.outputs(text) if self._is_built_around(reference) else None
        if reference.kind is ReferenceKind.DATA:
            return self._data(text, reference.name)
        return Outputs(_value(TensorType((), "int32"))) if reference.kind is ReferenceKind.STEP else None

    def _data(self, text: str, key: str) -> Outputs:
        """Data; outside of loops also that of which only the type is there."""
        try:
            return self.scope.outputs(text)
        except Unavailable:
            if self.scope.place.level > 0:
                raise
            return Outputs(_value(self.scope.target_type(key)))

    def _is_built_around(self, reference: Reference) -> bool:
        parent = self.scope.parent
        if parent is None:
            return False
        is_layer = reference.name in parent.spec.layers
        return parent.built_here(reference.name) is not None if is_layer else reference.name.startswith("data")

    def _layer(self, reference: Reference) -> Outputs | None:
        if reference.kind is ReferenceKind.PREVIOUS:
            declared = self.scope.previous.declared(reference)
            if declared is not None:
                return Outputs(declared)
        spec = self.scope.spec.layers.get(reference.name)
        if spec is None:
            return None
        outputs = self.outputs(part_of_choice(spec, reference.parts))
        if outputs is None or not reference.parts or spec.layer.outputs_labels:
            return outputs
        part = outputs.parts.get("/".join(reference.parts))
        return None if part is None else Outputs(part)

    def _find(self, spec: LayerSpec) -> Outputs | None:
        if spec.layer.outputs_labels:
            batch = self.scope.context.extern_data.batch
            return Outputs(_value(TensorType((batch,), "int32", class_dim(self.scope, spec))))
        try:
            return _Trial(self, spec).outputs()
        except (LayerError, DimError, NotChecked, Unavailable):
            type_ = self._said_by_options(spec)
            return None if type_ is None else Outputs(_value(type_))

    def _said_by_options(self, spec: LayerSpec) -> TensorType | None:
        layer, scope = spec.layer, self.scope
        if isinstance(spec.common.output.out_type, Mapping):
            said = _said_by_out_type(spec.common.output.out_type, scope.path_of(spec))
            if said is not None:
                return said
        if layer.output_dtype is not None:
            return TensorType((), layer.output_dtype)
        if layer.keeps_type_of is None:
            if not wants_out_feature(scope, spec):
                return None
            feature = out_feature(scope, spec, scope.path_of(spec))
            return TensorType((feature,), feature=feature)
        given = getattr(layer, layer.keeps_type_of) if layer.keeps_type_of != "from" else None
        names = spec.sources if layer.keeps_type_of == "from" else [given] if isinstance(given, str) else []
        if layer.joins_sources and len(names) > 1:
            return None
        known = [outputs.value.type for name in names if (outputs := self.reference(name)) is not None]
        if known and layer.keeps_dims:
            return known[0]
        return _feature_only(known[0]) if known else None


class _Trial:
    """One layer, built on values of the types that are known. `Surroundings` of its `build`."""

    def __init__(self, expected: ExpectedTypes, spec: LayerSpec) -> None:
        scope = expected.scope
        self.expected = expected
        self.spec = spec
        self.path = scope.path_of(spec)
        self.around = scope.context.surroundings(scope, spec, self.path)
        self.builder = Builder()
        with scope.context.builder.at(scope.place):
            loops = scope.context.builder.loops
        for over in loops:
            self.builder.open_loop(over)
        given = (spec.common.output.out_dim, getattr(spec.layer, "out_dim", None))
        self.known: set[Dim] = {*loops, *(dim for dim in given if isinstance(dim, Dim))}
        self.nothing = Unknown(f"{self.path}:from", DimKind.FEATURE)
        """The feature dim of a source of which nothing is known."""

    def outputs(self) -> Outputs:
        """What the layer makes, with no dims but those that it will have in the end. Raises LayerError, DimError."""
        spec = self.spec
        if spec.common.loss.size_target is not None:
            raise LayerError("the lengths are those of a target")
        b = LayerBuilder(self.builder, TrialSurroundings(self), self.path, spec.name)
        made = spec.layer.build(b, *joined_sources(b, spec, self._sources()))
        outputs = made if isinstance(made, Outputs) else Outputs(made)
        value = as_claimed(self.expected.scope, b, spec, outputs.value)
        return Outputs(self._settled(value), {name: self._settled(part) for name, part in outputs.parts.items()})

    def _sources(self) -> list[Value]:
        """The sources; one of which nothing is known yet is taken to have the features of one that is known."""
        found = [self.expected.reference(name) for name in self.spec.sources if name != "none"]
        known = [outputs.value for outputs in found if outputs is not None]
        if len(known) < len(found):
            joins = self.spec.layer.joins_sources
            example = _value(self._nothing_known() if joins or not known else _feature_only(known[0].type))
            return [self.seen(example if outputs is None else outputs.value) for outputs in found]
        return [self.seen(value) for value in known]

    def _nothing_known(self) -> TensorType:
        if not wants_out_feature(self.expected.scope, self.spec):
            raise LayerError("nothing is known of the source")
        return TensorType((self.nothing,), feature=self.nothing)

    def seen(self, value: Value) -> Value:
        """A value whose dims the layer may have."""
        self.known.update(dim for dim in value.type.dims if dim is not self.nothing)
        return value

    def _settled(self, value: Value) -> Value:
        """The value without dims of this trial."""
        type_, feature = value.type, value.type.feature
        known = {*self.known, *self.expected.scope.features.values()}
        dims = tuple(dim for dim in type_.dims if dim is feature or _consists_of(dim, known))
        if feature is None or _consists_of(feature, known):
            return _value(replace(type_, dims=dims))
        scope, spec = self.expected.scope, self.spec
        claimed = out_feature(scope, spec, self.path) if wants_out_feature(scope, spec) else None
        unknown = claimed or Unknown(f"{self.path}:feature", DimKind.FEATURE)
        dims = tuple(unknown if dim is feature else dim for dim in dims)
        return _value(replace(type_, dims=dims, feature=unknown))


class TrialSurroundings:
    """The network around a layer on trial: options and types are there, whatever would change the network is not."""

    def __init__(self, trial: _Trial) -> None:
        self.trial = trial
        around = trial.around
        self.mode, self.behavior_version = around.mode, around.behavior_version
        self.has_out_shape, self.out_type, self.functions = around.has_out_shape, around.out_type, around.functions
        self.batch, self.source_names, self.source_axes = around.batch, around.source_names, around.source_axes

    def layer(self, reference: str) -> Outputs:
        """What is known of a hidden reference."""
        outputs = self.trial.expected.reference(reference)
        if outputs is None:
            raise LayerError(f"nothing is known of '{reference}'")
        self.trial.seen(outputs.value)
        return outputs

    def class_dim(self, k: int = 0) -> Dim:
        """The classes of the layer's target."""
        return self.trial.around.class_dim(k)

    def out_feature(self, layer: str) -> Dim:
        """The feature dim that the options ask for: the one that the layer will have."""
        return self.trial.around.out_feature(layer)

    def wants_out_feature(self, layer: str) -> bool:
        """True if something says the size of the feature dim."""
        return self.trial.around.wants_out_feature(layer)

    def parameter(self, layer: str, parameter: Parameter) -> Value:
        """A parameter of the trial."""
        with self.trial.builder.at(OUTERMOST):
            return self.trial.builder.apply(parameter)

    def masked_frames(self, declared: Dim, mask: Value, frames: Dim) -> None:
        """A trial names nothing."""

    def initial_output(self, type_: TensorType, part: str = "") -> Value | None:
        """It makes no difference to the type."""
        return None

    def hypotheses(self, value: Value) -> Hypotheses | None:
        """There is no search that has ended."""
        return None

    def subnetwork(
        self, name: str, layers: Mapping[str, Any], inputs: Mapping[str, Value], *, option: str
    ) -> Mapping[str, Outputs]:
        """What is known of nested layers."""
        return self._nested(lambda: self.trial.around.network_scope(layers, inputs, option), "output")

    def unit(
        self, options: Mapping[str, Any], inputs: Mapping[str, Value], seen: Callable[[Value], Value], *, option: str
    ) -> Outputs:
        """What is known of one nested layer."""
        return self._nested(lambda: self.trial.around.unit_scope(options, inputs, seen, option), UNIT)[UNIT]

    def _nested(self, make: Callable[[], Scope], needed: str) -> Mapping[str, Outputs]:
        expected = self.trial.expected
        with expected.scope.context.builder.at(expected.scope.place):
            inside = ExpectedTypes(make(), expected)
        known = {name: inside.outputs(spec) for name, spec in inside.scope.spec.layers.items()}
        if known.get(needed) is None:
            raise LayerError("nothing is known of the layers inside")
        return {name: outputs for name, outputs in known.items() if outputs is not None}

    def _not_here(self) -> NoReturn:
        raise LayerError("this is not known before the layer is built")

    def loop(self, request: LoopRequest) -> Outputs:
        """Not here."""
        self._not_here()

    def target(self, key: str | None) -> Value:
        """A target that is a layer: one from around is built now, of others what is known; no other target is here."""
        name = key or self.trial.spec.target or ""
        if not name.startswith("layer:"):
            self._not_here()
        if name.startswith("layer:base:"):
            return self.trial.seen(self.trial.around.target(name))
        return self.layer(name.removeprefix("layer:")).value

    def right_label(self, k: int) -> Value:
        """Not here."""
        self._not_here()

    def ended_before(self) -> Value:
        """Not here."""
        self._not_here()

    def scores_before(self, needed: Any) -> Value:
        """Not here."""
        self._not_here()

    def scored(self, score: Value) -> None:
        """Not here."""
        self._not_here()

    def chosen(self, beam: Dim, label: Value, score: Value, reported: Value) -> None:
        """Not here."""
        self._not_here()

    def loss(self, options: Mapping[str, Any]) -> Loss:
        """Not here."""
        self._not_here()


def part_of_choice(spec: LayerSpec, parts: tuple[str, ...]) -> LayerSpec:
    """A choice as the one of its k-th source, for the part `out_k`; any other layer as it is."""
    given = spec.common.loss.target
    names = [f"out_{k}" for k in range(len(given))] if isinstance(given, list) else []
    if not spec.layer.outputs_labels or len(parts) != 1 or parts[0] not in names:
        return spec
    assert isinstance(given, list)
    return replace(spec, target=given[names.index(parts[0])])


def _value(type_: TensorType) -> Value:
    return Value("expected", type_)


def _feature_only(type_: TensorType) -> TensorType:
    dims: tuple[Dim, ...] = () if type_.feature is None else (type_.feature,)
    return TensorType(dims, type_.dtype, type_.sparse, type_.feature)


def _said_by_out_type(given: Mapping[str, Any], path: str) -> TensorType | None:
    """The type that out_type says, if it says dtype or shape; `as_claimed` checks it when the layer is there."""
    dim, shape = given.get("dim"), given.get("shape")
    dtype = str(given.get("dtype", "int32" if given.get("sparse") else "float32")).removeprefix("tf.")
    classes = given.get("sparse_dim", dim if given.get("sparse") else None)
    if classes is not None:
        known = classes if isinstance(classes, Dim) else Symbol(f"{path}:classes", DimKind.FEATURE, classes)
        return TensorType((), dtype, known)
    if dim is not None:
        feature = dim if isinstance(dim, Dim) else Symbol(f"{path}:feature", DimKind.FEATURE, dim)
        return TensorType((feature,), dtype, feature=feature)
    return TensorType((), dtype) if shape is not None and not tuple(shape) else None


def _consists_of(dim: Dim, known: set[Dim]) -> bool:
    """True for a dim that is known, or computed from known ones.

    Merged dims may lack some that are not known yet, and what is computed from an Unknown is not solved with it.
    """
    if dim in known:
        return True
    operands = dim.operands()
    is_whole = bool(operands) and not isinstance(dim, Product)
    return is_whole and all(not isinstance(one, Unknown) and _consists_of(one, known) for one in operands)
