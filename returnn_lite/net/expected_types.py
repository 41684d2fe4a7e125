"""What is known of a layer's output before it is built: the types of `prev:x`, found by trials (`trial`).

Each layer is tried once all that it reads has been, as far as there is no cycle, and again when more is known of that;
so a cycle costs a trial or two of each of its layers, and what is found is kept until it turns out to be otherwise.
What a trial can't say (a loop) is said by the options, or not at all. Where a cycle says nothing about itself, types
are assumed in turn for `prev:x`, until one comes out as it was put in.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace

from returnn_lite.dims import Dim, DimError, DimKind, MarkedType, Unknown
from returnn_lite.ir.reachability import postorder, reachable
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError, Outputs
from returnn_lite.net.context import NotChecked, Unavailable
from returnn_lite.net.cycle_types import expected_in_cycle
from returnn_lite.net.expectation import Expectation, same_outputs, same_type
from returnn_lite.net.overlays import owner
from returnn_lite.net.parameters import class_dim
from returnn_lite.net.references import Reference, ReferenceKind, is_read_around, parse_reference
from returnn_lite.net.resolution import outputs_of, target_type
from returnn_lite.net.said_types import said_type
from returnn_lite.net.scope import KnownTypes, Scope
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.trial import Trial, expected_value

OWN = (ReferenceKind.LAYER, ReferenceKind.PREVIOUS)
"""References to layers of the same scope."""


class ExpectedTypes(KnownTypes):
    """The types of the layers of one scope, as far as they can be known at the moment."""

    def __init__(self, scope: Scope, around: ExpectedTypes | None = None) -> None:
        self.scope = scope
        self.around = around
        """What is known of the scope around, for one that is itself on trial."""
        self._found: dict[str, Expectation] = {}
        self._readers: dict[str, dict[str, None]] = {}
        """By layer, those whose trial has asked for it."""
        self._on_trial: list[str] = []
        self._waiting: set[str] = set()
        self._unknown_reads = 0
        self._unknown_features: dict[str, Dim] = {}
        self._differing: set[str] = set()
        """The layers that differ from step to step."""
        self._of_step: dict[str, Dim] = {}
        """By layer, a dim of it that each step makes anew."""
        self._classes: dict[str, Dim | None] = {}
        """Of choices without target; None while they are looked for."""
        self._assumed: dict[str, MarkedType] = {}
        """What `prev:` of a layer is taken to be, while its cycle is looked at."""

    def of(self, spec: LayerSpec, parts: tuple[str, ...] = ()) -> MarkedType | None:
        """The type of a layer's output, or of a part of it. None if nothing is known.

        The beam is left to be solved with the loop (`ir.rewrite`), unless the layer is there; so is a batch that
        can't be known yet.
        """
        if spec.name in self.scope.built and not parts:
            return self.scope.built[spec.name].value.type
        outputs = self.outputs(spec)
        if outputs is None and not parts:
            outputs = self._of_cycle(spec)
        value = None if outputs is None else outputs.parts.get("/".join(parts)) if parts else outputs.value
        if value is None:
            return None
        return value.type.of_dims(tuple([dim for dim in value.type.dims if dim.kind is not DimKind.BEAM]))

    def dim_of_step(self, spec: LayerSpec) -> Dim | None:
        """A dim of a layer that each step makes anew, as far as that is known: as long as a step says."""
        built = self.scope.built.get(spec.name)
        if built is None:
            return self._of_step.get(spec.name)
        return self.scope.context.builder.dim_made_anew(built.value)

    def outputs(self, spec: LayerSpec) -> Outputs | None:
        """What a layer makes. None if nothing is known, or not yet."""
        built = self.scope.built.get(spec.name)
        if built is not None and spec is self.scope.spec.layers[spec.name]:
            return built
        if self._on_trial:
            self._readers.setdefault(spec.name, {})[self._on_trial[-1]] = None
        if spec.layer.gives_labels():
            return self._labels(spec)
        if spec.name not in self._found and spec.name not in self._waiting:
            self._look_at(self._in_order(spec.name, lambda name: name not in self._found))
        found = self._found.get(spec.name)
        return None if found is None else found.outputs

    def _labels(self, spec: LayerSpec) -> Outputs | None:
        batch = self.scope.context.extern_data.batch
        try:
            classes = self._classes_of_source(spec) if spec.target is None else class_dim(self.scope, spec)
        except (LayerError, NotChecked, Unavailable):
            return None
        return Outputs(expected_value(MarkedType((batch,), "int32", classes)))

    def _classes_of_source(self, spec: LayerSpec) -> Dim | None:
        """The classes of a choice without target: those of its source, which may be any frames. None if they are not
        known, or while they are looked for, as the source may read the choice of the step before."""
        if spec.name in self._classes or len(spec.sources) != 1:
            return self._classes.get(spec.name)
        self._classes[spec.name] = None
        try:
            found = self.reference(spec.sources[0])
        finally:
            del self._classes[spec.name]
        classes = None if found is None else found.value.type.feature
        if classes is None or isinstance(classes, Unknown):
            return None
        self._classes[spec.name] = classes
        self._forget_readers(spec.name)
        return classes

    def unknown_feature(self, name: str) -> Dim:
        """The feature of a layer, of which no size is known: one dim in all trials, so that no cycle makes ever more
        of them."""
        unknown = Unknown(f"{self.scope.path_of(self.scope.spec.layers[name])}:feature", DimKind.FEATURE)
        return self._unknown_features.setdefault(name, unknown)

    def is_built(self, name: str) -> None:
        """Forgets what was concluded from another type than a layer of the scope has, now that it is built."""
        found = self._found.pop(name, None)
        if found is not None and not same_outputs(found.outputs, self.scope.built[name]):
            self._forget_readers(name)

    def is_declared(self, name: str, type_: MarkedType) -> None:
        """The same for `prev:` of a layer, now that its type has been settled."""
        found = self._found.get(name)
        if found is not None and (found.outputs is None or not same_type(found.outputs.value.type, type_)):
            self._forget_readers(name)

    def _forget_readers(self, name: str) -> None:
        stack = [name]
        while stack:
            for reader in self._readers.pop(stack.pop(), {}):
                if self._found.pop(reader, None) is not None:
                    stack.append(reader)

    # Looking at layers

    def _in_order(self, name: str, wanted: Callable[[str], bool]) -> list[str]:
        """A layer and those that its type depends on, as far as they are wanted, each after those that it reads in the
        same step: a cycle is cut where it goes to the step before."""
        names = reachable([name], lambda reader: filter(wanted, self._reads(reader)))
        return postorder([*names], lambda reader: filter(wanted, self._reads(reader, (ReferenceKind.LAYER,))))

    def _reads(self, name: str, kinds: Container[ReferenceKind] = OWN) -> Iterator[str]:
        """The layers of the scope, not built yet, whose types tell that of another; by references of some kinds."""
        spec = self.scope.spec.layers[name]
        for link in spec.links:
            reference, read = link.reference, link.reference.name
            if reference in self.scope.previous:
                continue
            found = self.scope.spec.layers.get(read) if reference.kind in kinds else None
            if found is not None and not found.layer.gives_labels() and read not in self.scope.built:
                yield read

    def _look_at(self, order: list[str]) -> None:
        """Tries layers, each after what it reads; and again those that have read what more is known of now."""
        waiting = dict.fromkeys(order)
        self._waiting |= set(order)
        try:
            while waiting:
                again: dict[str, None] = {}
                for name in waiting:
                    if self._try(name):
                        readers = (r for r in self._readers.get(name, ()) if r in self._found)
                        again.update(dict.fromkeys(r for r in readers if r != name or not self._found[r].knows_itself))
                    self._waiting.discard(name)
                waiting = again
        finally:
            self._waiting -= set(order)

    def _try(self, name: str) -> bool:
        """True if more is known of the layer than before."""
        spec = self.scope.spec.layers[name]
        outer, self._unknown_reads = self._unknown_reads, 0
        self._on_trial.append(name)
        try:
            trial = Trial(self, spec)
            made = trial.outputs()
            if trial.differs:
                self._differing.add(name)
            if trial.of_step is not None:
                self._of_step[name] = trial.of_step
            new = Expectation(made, tried=True, unknown=self._unknown_reads, knows_itself=trial.is_typed)
        except (LayerError, DimError, NotChecked, Unavailable):
            type_ = said_type(self.scope, spec, self.reference)
            new = Expectation(None if type_ is None else Outputs(expected_value(type_)))
        finally:
            self._on_trial.pop()
            self._unknown_reads = outer
        old = self._found.get(name)
        if old is None:
            self._found[name] = new
            return new.outputs is not None
        if not new.says_more_than(old):
            return False
        self._found[name] = new
        return not same_outputs(old.outputs, new.outputs)

    def inside(self, scope: Scope) -> Mapping[str, Outputs]:
        """What is known of the layers of a scope inside of this one, which is itself on trial."""
        inner = ExpectedTypes(scope, self)
        known = {name: inner.outputs(spec) for name, spec in scope.spec.layers.items()}
        return {name: outputs for name, outputs in known.items() if outputs is not None}

    # References

    def reference(self, text: str) -> Outputs | None:
        """What a reference stands for, if that is known. Raises LayerError for a name that does not exist."""
        reference = parse_reference(text)
        found = self._reference(reference, text)
        if found is None or self._is_only_said(reference):
            self._unknown_reads += 1
        return found

    def differs_by_step(self, text: str, value: View) -> bool:
        """Whether what a reference stands for differs from step to step of the loop, as far as that is known."""
        reference = parse_reference(text)
        known = reference.kind is ReferenceKind.LAYER and reference.name in self._differing
        expected = known or reference.kind in (ReferenceKind.PREVIOUS, ReferenceKind.STEP)
        return expected or self.scope.context.builder.differs_by_step(value)

    def _is_only_said(self, reference: Reference) -> bool:
        """Whether no trial of a layer says what it is, but its options, which may be read for something else."""
        found = self._found.get(reference.name) if reference.kind in OWN else None
        return found is not None and not found.tried

    def _reference(self, reference: Reference, text: str) -> Outputs | None:
        if self.around is not None and self.scope.seen is not None and is_read_around(reference):
            return self.around.reference(text)
        if reference.kind in OWN:
            return self._layer(reference)
        if reference.kind is ReferenceKind.BASE:
            if self.around is not None:
                return self.around.reference(reference.name)
            return outputs_of(self.scope, text) if self._is_built_around(reference) else None
        if reference.kind is ReferenceKind.DATA:
            return self._data(text, reference.name)
        return Outputs(expected_value(MarkedType((), "int32"))) if reference.kind is ReferenceKind.STEP else None

    def _data(self, text: str, key: str) -> Outputs:
        """Data; outside of loops also that of which only the type is there."""
        try:
            return outputs_of(self.scope, text)
        except Unavailable:
            if self.scope.point.level > 0:
                raise
            return Outputs(expected_value(target_type(self.scope, key)))

    def _is_built_around(self, reference: Reference) -> bool:
        parent = self.scope.parent
        if parent is None:
            return False
        if reference.name not in parent.spec.layers:
            return reference.name.startswith("data")
        return reference.name in owner(parent, Reference(ReferenceKind.LAYER, reference.name)).built

    def _layer(self, reference: Reference) -> Outputs | None:
        if reference.kind is ReferenceKind.PREVIOUS:
            if reference in self.scope.previous:
                return Outputs(self.scope.previous[reference].now)
            if reference.name in self._assumed and not reference.parts:
                return Outputs(expected_value(self._assumed[reference.name]))
        spec = self.scope.spec.layers.get(reference.name)
        if spec is None:
            return None
        outputs = self.outputs(part_of_choice(spec, reference.parts))
        if outputs is None or not reference.parts or spec.layer.gives_labels():
            return outputs
        part = outputs.parts.get("/".join(reference.parts))
        return None if part is None else Outputs(part)

    # Cycles

    def _of_cycle(self, spec: LayerSpec) -> Outputs | None:
        """What a layer makes whose cycle says nothing."""
        cycle = self._in_order(spec.name, lambda name: name in self._found and not self._found[name].tried)
        before = {name: self._found[name] for name in cycle}
        best = expected_in_cycle(spec.name, before, lambda type_: self._assuming(spec.name, type_, cycle))
        self._found |= best
        return best[spec.name].outputs

    def _assuming(self, name: str, type_: MarkedType, cycle: list[str]) -> dict[str, Expectation]:
        """What is known of the layers of a cycle if `prev:` of one has this type."""
        self._assumed = {name: type_}
        for other in cycle:
            del self._found[other]
        self._look_at(cycle)
        self._assumed = {}
        return {other: self._found[other] for other in cycle}


def part_of_choice(spec: LayerSpec, parts: tuple[str, ...]) -> LayerSpec:
    """A choice as the one of its k-th source, for the part `out_k`; any other layer as it is."""
    given = spec.common.loss.target
    names = [f"out_{k}" for k in range(len(given))] if isinstance(given, list) else []
    if not spec.layer.gives_labels() or len(parts) != 1 or parts[0] not in names:
        return spec
    assert isinstance(given, list)
    return replace(spec, target=given[names.index(parts[0])])
