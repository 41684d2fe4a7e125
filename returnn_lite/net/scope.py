"""One namespace of layers being built: the root network, a subnetwork, or the body of a rec layer.

Layers are built on demand, in an order found beforehand from what their options refer to, so that deep networks need no
deep recursion. `prev:x` becomes a State of the open loop body whose type is completed when x is built.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.dims import Dim, DimError, TensorType
from returnn_lite.ir import Origin, Value
from returnn_lite.ir.builder import Place
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.layers.base import LayerBuilder, LayerError, Mode, Outputs
from returnn_lite.net.context import LossValue, NetworkContext, OutputConstraint
from returnn_lite.net.failures import NotChecked, Unavailable
from returnn_lite.net.finish import finish_layer, joined_sources
from returnn_lite.net.masked_frames import MaskedFrames, held, masked_frames_of, over_steps
from returnn_lite.net.options_at_fault import at_option, axis_option_in, option_that_says
from returnn_lite.net.parameters import ParameterScope
from returnn_lite.net.previous import PreviousValues
from returnn_lite.net.reads import record_read
from returnn_lite.net.references import NESTED_OVERLAY, Reference, ReferenceKind, overlay_of, parse_reference
from returnn_lite.net.specs import LayerSpec, NetworkSpec

if TYPE_CHECKING:
    from returnn_lite.net.hypothesis_scores import HypothesisScores
    from returnn_lite.net.overlays import OverlayScope


NOT_DATA = {
    "seq_tag": "a network does not see the tags of its sequences",
    "seq_idx": "a network does not see where in the dataset its sequences are",
    "batch_dim": "a network computes on each sequence alone, whatever the batch",
}
"""Keys that RETURNN has without an entry in extern_data."""


class Scope:
    """Builds the layers of one namespace. `level` is the number of loop bodies that are open where its layers
    belong."""

    def __init__(
        self,
        context: NetworkContext,
        spec: NetworkSpec,
        path: str,
        parameters: ParameterScope,
        parent: Scope | None,
        inputs: Mapping[str, Value],
    ) -> None:
        self.context = context
        self.spec = spec
        self.path = path
        self.parameters = parameters
        self.parent = parent
        self.inputs = dict(inputs)
        self.place = context.builder.place
        self.built: dict[str, Outputs] = {}
        self.failed: set[str] = set()
        self.children: dict[str, Scope] = {}
        self.features: dict[str, Dim] = {}
        self._in_progress: list[str] = []
        self.previous = PreviousValues(self)
        self.masked_frames: dict[Dim, MaskedFrames] = {}
        self.published: dict[str, Value] = {}
        """What layers of this loop's body have published, by data key."""

    # References

    @property
    def mode(self) -> Mode:
        """Which of the four compilations this is; in an overlay network and inside of its layers, that of it."""
        return self.context.mode if self.parent is None else self.parent.mode

    def overlay(self, tag: str) -> OverlayScope:
        """An overlay of the outermost network. Raises LayerError inside of another network."""
        raise LayerError(f"'{tag}:': {NESTED_OVERLAY}", f"Write 'base:{tag}:...', one 'base:' a network around.")

    def owner(self, reference: Reference) -> Scope:
        """The scope that has the layer which a reference names."""
        return self.overlay(reference.tag) if reference.kind is ReferenceKind.OVERLAY else self

    def is_read_around(self, reference: Reference) -> bool:
        """Whether a reference means here what it means in the scope around."""
        return False

    def outputs(self, text: str) -> Outputs:
        """What a reference stands for in this scope. Raises LayerError, NotChecked or Unavailable."""
        reference = parse_reference(text)
        kind = reference.kind
        if kind is ReferenceKind.DATA:
            return Outputs(self.data(reference.name))
        if kind is ReferenceKind.STEP:
            if self.context.builder.body is None:
                raise LayerError("':i' is the step of a loop, and there is none here")
            return Outputs(self.context.builder.apply(StepIndex()))
        if kind is ReferenceKind.BASE:
            return self.base(reference.name)
        if kind is ReferenceKind.PREVIOUS:
            return self.previous.outputs(reference)
        if kind is ReferenceKind.OVERLAY:
            return self.overlay(reference.tag).rebuilt(reference)
        if kind is ReferenceKind.NONE:
            raise LayerError("'none' is no layer here")
        return self.part(reference)

    def part(self, reference: Reference) -> Outputs:
        """A layer of this scope, or what is below it: `x`, `x/part`, `subnet/layer`."""
        outputs = self.layer(reference.name)
        if not reference.parts:
            return outputs
        rest = "/".join(reference.parts)
        if rest in outputs.parts:
            return Outputs(outputs.parts[rest])
        child = self.children.get(reference.name)
        if child is not None and child.place.level == self.place.level:
            return child.part(Reference(ReferenceKind.LAYER, reference.parts[0], reference.parts[1:]))
        hint = nearest_hint(rest, list(outputs.parts))
        if child is not None and reference.parts[0] in child.spec.layers:
            hint = f" Set is_output_layer: true on '{reference.parts[0]}' to see it from outside of the loop."
        raise LayerError(f"layer '{reference.name}' has no part '{rest}'", hint.strip())

    def base(self, text: str) -> Outputs:
        """A reference resolved in the parent, as seen from here."""
        if self.parent is None:
            raise LayerError(f"'base:{text}': the network is not inside another one", "Leave 'base:' out.")
        with self.context.builder.at(self.parent.place):
            return self.parent.outputs(text)

    def data(self, key: str) -> Value:
        """A data key: an input of this scope, published data, or what the scopes around have."""
        if key in self.published:
            return self.published[key]
        if key in self.inputs:
            return self.inputs[key]
        if key in self.context.published:
            return self.context.published[key]
        if self.parent is not None:
            with self.context.builder.at(self.parent.place):
                return self.parent.data(key)
        extern_data = self.context.extern_data
        if key in extern_data.broken:
            raise NotChecked(key)
        if key not in extern_data:
            known = [*extern_data.entries, *self.context.published]
            hint = nearest_hint(key, known).strip() or f"The keys are {', '.join(known)}."
            if key in NOT_DATA:
                raise LayerError(
                    f"'data:{key}' is not supported: {NOT_DATA[key]}", "Give it as an entry of extern_data."
                )
            raise LayerError(f"there is no data key '{key}'", hint)
        if not extern_data.entries[key].available_for_inference and not self.mode.targets:
            raise Unavailable(f"data:{key}")
        return self.context.data(key)

    def publish(self, key: str, value: Value) -> None:
        """Makes a value data of this name: everywhere, or in the loop around, whose frame it is."""
        if self.place.level == 0:
            self.context.published[key] = value
        elif self.parent is not None and self.parent.place.level == self.place.level:
            self.parent.publish(key, value)
        else:
            self.published[key] = value

    def target(self, key: str) -> Value:
        """The target of a key: published or extern data, or a layer (`layer:NAME`, or a name that is no key)."""
        try:
            if key.startswith("layer:"):
                return self.outputs(key.removeprefix("layer:")).value
            return self.data(key)
        except LayerError as error:
            raise LayerError(error.message, error.hint, error.option or "target") from error

    def target_type(self, key: str) -> TensorType:
        """The type of a target, which may not be available as a value in this mode."""
        published = {**self.context.published, **self.published}
        if key in self.context.extern_data and key not in published and key not in self.inputs:
            return self.context.extern_data.entries[key].type
        return self.target(key).type

    def find_spec(self, reference: str) -> tuple[Scope, LayerSpec]:
        """The layer that a reference in `reuse_params` names, and its scope."""
        if reference.startswith("base:"):
            if self.parent is None:
                raise LayerError(f"'{reference}': the network is not inside another one", "", "reuse_params")
            return self.parent.find_spec(reference.removeprefix("base:"))
        in_overlay = overlay_of(reference)
        if in_overlay is not None:
            return self.overlay(in_overlay[0]).rebuilt_spec(in_overlay[1])
        head, _, rest = reference.partition("/")
        if head not in self.spec.layers:
            raise LayerError(f"there is no layer '{head}' to share parameters with", self._hint(head), "reuse_params")
        if not rest:
            return self, self.spec.layers[head]
        self.layer(head)
        if head not in self.children:
            raise LayerError(f"layer '{head}' has no layers inside", "", "reuse_params")
        return self.children[head].find_spec(rest)

    # What the loops around keep

    def path_of(self, spec: LayerSpec) -> str:
        """The full path of a layer of this scope."""
        return f"{self.path}/{spec.name}" if self.path else spec.name

    def add_loss(self, loss: LossValue) -> None:
        """A loss of a layer of this scope."""
        if self.parent is not None:
            self.parent.add_loss(loss)
        elif isinstance(loss, OutputConstraint):
            self.context.output_constraints.append(loss)
        else:
            self.context.losses.append(loss)

    def ended_before(self) -> Value:
        """Whether a hypothesis had ended before this step of the loop around."""
        if self.parent is None:
            raise LayerError("there is no loop here")
        return self.parent.ended_before()

    def hypothesis_scores(self) -> HypothesisScores:
        """The scores of the hypotheses of the loop around."""
        if self.parent is None:
            raise LayerError("there is no loop here")
        return self.parent.hypothesis_scores()

    def right_label(self, key: str) -> Value:
        """The label of a target that a choice takes without search."""
        if self.parent is None or key.startswith("layer:") or self.place.level == 0:
            return self.target(key)
        return self.parent.right_label(key)

    @property
    def outer_place(self) -> Place:
        """Where the loop is whose body this scope belongs to."""
        if self.parent is None:
            raise LayerError("there is no loop here")
        return self.parent.outer_place

    # Building

    def built_here(self, name: str) -> Outputs | None:
        """A layer of this scope if it is built already."""
        return self.built.get(name)

    def layer(self, name: str) -> Outputs:
        """A layer of this scope, built if it is not yet."""
        if name in self.built:
            return self.built[name]
        if name in self.failed or name in self.spec.broken:
            raise NotChecked(name)
        if name not in self.spec.layers:
            raise LayerError(f"there is no layer '{name}' in {self._describe()}", self._hint(name))
        if name in self._in_progress:
            self._report_cycle([*self._in_progress[self._in_progress.index(name) :], name])
            raise NotChecked(name)
        self._in_progress.append(name)
        try:
            with self.context.builder.at(self.place):
                self.built[name] = self._build(self.spec.layers[name])
        except NotChecked:
            self.failed.add(name)
            raise
        finally:
            self._in_progress.remove(name)
        return self.built[name]

    def _report_cycle(self, cycle: Sequence[str]) -> None:
        """Reports layers that need each other, at the one that reads what comes after it in the config: that is where
        the cycle closes for a reader."""
        order = {name: number for number, name in enumerate(self.spec.layers)}
        pairs = list(itertools.pairwise(cycle))
        reader, read = next((pair for pair in pairs if order[pair[0]] <= order[pair[1]]), pairs[-1])
        spec = self.spec.layers[reader]
        error = LayerError(
            f"the layers {' -> '.join(cycle)} need each other in the same step",
            "In a loop, read one of them from the step before with 'prev:'.",
            option_that_says(spec, read),
        )
        self.context.report(spec, error)

    def _describe(self) -> str:
        return f"the network of '{self.path}'" if self.path else "the network"

    def _hint(self, name: str) -> str:
        hint = nearest_hint(name, list(self.spec.layers)).strip()
        if self.parent is not None and name in self.parent.spec.layers:
            return f"Write 'base:{name}' for the layer of the network around."
        if name in self.context.extern_data:
            return f"Write 'data:{name}' for the data key."
        return hint

    def _build(self, spec: LayerSpec) -> Outputs:
        builder = self.context.builder
        path = self.path_of(spec)
        self.context.config_paths.setdefault(path, spec.path)
        b = LayerBuilder(builder, self.context.surroundings(self, spec, path), path, spec.name)
        with builder.within(Origin(path, str(self.context.locate(spec.path) or ""))):
            try:
                sources = self._sources(spec) if spec.layer.reads_sources(self.mode) else []
                for reference in spec.sources if sources else ():
                    record_read(self, path, reference, is_source=True)
                result = self._result(b, spec, sources)
            except LayerError as error:
                self.context.report(spec, at_option(spec, error))
                raise NotChecked(spec.name) from error
            except DimError as error:
                self.context.report(spec, LayerError(str(error), "", axis_option_in(spec, str(error))))
                raise NotChecked(spec.name) from error
        self.context.names.setdefault(result.value, path)
        self.context.layer_values[path] = result.value
        self.context.step_values[path] = result.value
        self.context.layer_kinds[path] = spec.class_name
        return result

    def _result(self, b: LayerBuilder, spec: LayerSpec, sources: Sequence[Value]) -> Outputs:
        """What the layer makes of its sources, under a mask if its options name the frames of one."""
        named = masked_frames_of(self, spec) if b.loop is not None else None
        if named is not None and b.loop is not None:
            with b.ir.masked(named.mask, named.frames):
                return held(self, spec, self._made(b, over_steps(spec, named, b.loop), sources))
        return self._made(b, spec, sources)

    def _made(self, b: LayerBuilder, spec: LayerSpec, sources: Sequence[Value]) -> Outputs:
        outputs = spec.layer.build(b, *joined_sources(b, spec, sources))
        return finish_layer(self, b, spec, outputs if isinstance(outputs, Outputs) else Outputs(outputs))

    def _sources(self, spec: LayerSpec) -> list[Value]:
        """The values of the sources. Raises LayerError if one is wrong; if several are, the others are reported."""
        values = []
        wrong: list[LayerError] = []
        for reference in spec.sources:
            if reference == "none":
                continue
            try:
                values.append(self.outputs(reference).value)
            except LayerError as error:
                wrong.append(LayerError(error.message, error.hint, error.option or "from"))
            except NotChecked:
                if not wrong:
                    raise
                break
        for other in wrong[:-1]:
            self.context.report(spec, other)
        if wrong:
            raise wrong[-1]
        return values

    def build_all(self, roots: Sequence[str]) -> None:
        """Builds the roots and what they need, in an order that needs no deep recursion."""
        for name in self.build_order(roots):
            self._try(name)
        self._build_unread()

    def _try(self, name: str) -> None:
        in_overlay = overlay_of(name)
        scope, own = (self, name) if in_overlay is None else (self.overlay(in_overlay[0]), in_overlay[1])
        try:
            scope.layer(own)
        except (NotChecked, Unavailable):
            scope.failed.add(own)

    def _build_unread(self) -> None:
        """Builds the sources of layers whose output does not depend on them: they may have mistakes."""
        for spec in [self.spec.layers[name] for name in self.built]:
            if spec.layer.reads_sources(self.mode):
                continue
            for name in self.build_order([source for source in spec.sources if source in self.spec.layers]):
                self._try(name)
            try:
                with self.context.builder.at(self.place):
                    self._sources(spec)
            except LayerError as error:
                self.context.report(spec, error)
                self.failed.add(spec.name)
            except (NotChecked, Unavailable):
                continue

    def build_order(self, roots: Sequence[str]) -> list[str]:
        """The layers of this scope that the roots need in the same step, each after what it needs itself."""
        order: dict[str, None] = {}
        for root in roots:
            stack = [(root, iter(self._needed_layers(root)))]
            entered = {root}
            while stack:
                name, needed = stack[-1]
                following = next((n for n in needed if n not in order and n not in entered), None)
                if following is None:
                    order[name] = None
                    stack.pop()
                else:
                    entered.add(following)
                    stack.append((following, iter(self._needed_layers(following))))
        return list(order)

    def _needed_layers(self, name: str) -> list[str]:
        in_overlay = overlay_of(name)
        if in_overlay is not None:
            return self.overlay(in_overlay[0]).needed_by(in_overlay[1])
        spec = self.spec.layers.get(name)
        return [] if spec is None else [other for other in spec.needed_layers if self.is_known(other)]

    def is_known(self, name: str) -> bool:
        """True for a layer of this scope."""
        return name in self.spec.layers
