"""One namespace of layers being built: the root network, a subnetwork, or the body of a rec layer.

Layers are built on demand, in an order found beforehand from what their options refer to. `prev:x` becomes a State of
the open loop body whose type is completed when x is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Value
from returnn_lite.ir.builder import InsertionPoint
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.reachability import reachable
from returnn_lite.layers.base import LayerError, Mode, Outputs
from returnn_lite.net.context import LossValue, NetworkContext, OutputConstraint
from returnn_lite.net.expected_types import ExpectedTypes
from returnn_lite.net.failures import NotChecked, Unavailable
from returnn_lite.net.layers_inside import layer_of_part
from returnn_lite.net.masked_frames import MaskedFrames
from returnn_lite.net.missing import (
    no_network_around,
    no_such_key,
    no_such_layer,
    no_such_part,
    report_cycle,
)
from returnn_lite.net.parameters import ParameterScope
from returnn_lite.net.previous import PreviousValues
from returnn_lite.net.references import NESTED_OVERLAY, Reference, ReferenceKind, overlay_of, parse_reference
from returnn_lite.net.specs import LayerSpec, NetworkSpec
from returnn_lite.net.tasks import Driver, OneLayer

if TYPE_CHECKING:
    from returnn_lite.net.loops import LoopScope
    from returnn_lite.net.overlays import OverlayScope


class Scope:
    """Builds the layers of one namespace, at its `place`: inside of the loop bodies that were open when it was
    made."""

    def __init__(
        self,
        context: NetworkContext,
        spec: NetworkSpec,
        path: str,
        parameters: ParameterScope,
        parent: Scope | None,
        inputs: Mapping[str, Value],
        driver: Driver | None = None,
    ) -> None:
        self.context = context
        self.spec = spec
        self.path = path
        self.parameters = parameters
        self.parent = parent
        self.inputs = dict(inputs)
        if driver is None:
            assert parent is not None, "the outermost network is given its driver"
            driver = parent.driver
        self.driver: Driver = driver
        self.mode: Mode = context.mode if parent is None else parent.mode
        """Which of the four compilations this is; in an overlay network and inside of its layers, that of it."""
        self.loop: LoopScope | None = None if parent is None else parent.loop
        """The body of the loop that the layers belong to."""
        self.place = context.builder.place
        self.built: dict[str, Outputs] = {}
        self.failed: set[str] = set()
        self.unavailable: set[str] = set()
        """Layers that need targets where there are none."""
        self.children: dict[str, Scope] = {}
        self.features: dict[str, Dim] = {}
        self.in_progress: dict[str, None] = {}
        self.expected = ExpectedTypes(self)
        self.previous = PreviousValues(self)
        self.masked_frames: dict[Dim, MaskedFrames] = {}
        self.published: dict[str, Value] = {}
        """What layers of this loop's body have published, by data key."""

    # References

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
            owner, spec = layer_of_part(self, self.spec.layers[reference.name], reference.parts)
            state = {} if owner is self else owner.built[spec.name].state
            return Outputs(outputs.parts[rest], state=state)
        child = self.children.get(reference.name)
        if child is not None and child.place.level == self.place.level:
            return child.part(Reference(ReferenceKind.LAYER, reference.parts[0], reference.parts[1:]))
        raise no_such_part(self, reference, list(outputs.parts))

    def base(self, text: str) -> Outputs:
        """A reference resolved in the parent, as seen from here."""
        if self.parent is None:
            raise no_network_around(text)
        with self.context.builder.at(self.parent.place):
            return self.parent.outputs(text)

    def data(self, key: str) -> Value:
        """A data key: an input of this scope, published data, or what the scopes around have."""
        inner: list[Scope] = []
        scope = self
        scope._build_publisher(key)
        while not scope.has_own_data(key) and scope.parent is not None:
            inner.append(scope)
            scope = scope.parent
            scope._build_publisher(key)
        with self.context.builder.at(self.context.builder.place if scope is self else scope.place):
            value = scope._own_data(key)
        for one in reversed(inner):
            with self.context.builder.at(self.context.builder.place if one is self else one.place):
                value = one.data_from_around(value)
        return value

    def _own_data(self, key: str) -> Value:
        if self.has_own_data(key):
            return self.published[key] if key in self.published else self.inputs[key]
        if key in self.context.published:
            return self.context.published[key]
        extern_data = self.context.extern_data
        if key in extern_data.broken:
            raise NotChecked(key)
        if key not in extern_data:
            raise no_such_key(self.context, key)
        if not extern_data.entries[key].available_for_inference and not self.mode.targets:
            raise Unavailable(f"data:{key}")
        return self.context.data(key)

    def data_from_around(self, value: Value) -> Value:
        """What data of the scope around are here."""
        return value

    def target_from_around(self, key: str, value: Value) -> Value:
        """What a target of the scope around is here."""
        return value

    def _build_publisher(self, key: str) -> None:
        """Builds the layer of this scope that publishes a key, if there is one and it does not read the key itself."""
        name = self.spec.publishers.get(key)
        if name is not None and name not in self.in_progress:
            self.part(Reference(ReferenceKind.LAYER, name))

    def has_own_data(self, key: str) -> bool:
        """Whether a data key means something else here than around: an input, or what a step of this loop publishes."""
        return key in self.published or key in self.inputs

    def has_own_target(self, key: str) -> bool:
        """The same of a target."""
        return self.has_own_data(key)

    def publish(self, key: str, value: Value) -> None:
        """Makes a value data of this name: everywhere, or in the loop around, whose frame it is."""
        if self.place.level == 0:
            self.context.published[key] = value
        elif self.parent is not None and self.parent.place.level == self.place.level:
            self.parent.publish(key, value)
        else:
            self.published[key] = value

    def target(self, key: str, option: str = "target") -> Value:
        """The target of a key that an option names: published or extern data, or a layer (`layer:NAME`)."""
        try:
            if key.startswith("layer:"):
                return self.outputs(key.removeprefix("layer:")).value
            inner: list[Scope] = []
            scope = self
            while not scope.has_own_target(key) and scope.parent is not None:
                inner.append(scope)
                scope = scope.parent
            with self.context.builder.at(self.context.builder.place if scope is self else scope.place):
                value = scope.data(key)
            for one in reversed(inner):
                with self.context.builder.at(self.context.builder.place if one is self else one.place):
                    value = one.target_from_around(key, value)
            return value
        except LayerError as error:
            raise error.at(option) from error

    def target_type(self, key: str, option: str = "target") -> TensorType:
        """The type of a target, which an option names, and which may not be available as a value in this mode."""
        if self.is_extern_data(key):
            return self.context.extern_data.entries[key].type
        try:
            return self.target(key, option).type
        except Unavailable:
            expected = self._type_of_published(key)
            if expected is None:
                raise
            return expected

    def _type_of_published(self, key: str) -> TensorType | None:
        """The type that a layer of this scope or of one around publishes, as far as it is known without its value."""
        name = self.spec.publishers.get(key)
        if name is not None:
            return self.expected.of(self.spec.layers[name])
        return None if self.parent is None else self.parent._type_of_published(key)

    def is_extern_data(self, key: str) -> bool:
        """Whether a target means here what comes from outside, and nothing that the network makes."""
        if self.has_own_target(key) or key in self.context.published:
            return False
        return key in self.context.extern_data if self.parent is None else self.parent.is_extern_data(key)

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
            raise self.no_such_layer(head).at("reuse_params")
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
        """A loss of a layer of this scope; that of a step is stacked where the loop is."""
        if self.loop is not None:
            self.loop.losses.append(loss)
        elif isinstance(loss, OutputConstraint):
            self.context.output_constraints.append(loss)
        else:
            self.context.losses.append(loss)

    @property
    def loop_around(self) -> LoopScope:
        """The body of the loop that the layers belong to. Raises LayerError outside of loops."""
        if self.loop is None:
            raise LayerError("there is no loop here")
        return self.loop

    def searches(self) -> bool:
        """Whether hypotheses are extended in the steps of a loop around."""
        return self.loop is not None and self.loop.searches()

    def gold_label(self, key: str) -> Value:
        """The label of a target that a choice takes without search."""
        if self.loop is None or key.startswith("layer:"):
            return self.target(key)
        return self.loop.label_at_step(key)

    @property
    def outer_place(self) -> InsertionPoint:
        """Where the loop is whose body this scope belongs to."""
        parent = self.loop_around.parent
        assert parent is not None
        return parent.place

    # Building

    def built_here(self, name: str) -> Outputs | None:
        """A layer of this scope if it is built already."""
        return self.built.get(name)

    def layer(self, name: str) -> Outputs:
        """A layer of this scope, built if it is not yet."""
        if name not in self.built:
            self.driver.build(OneLayer(self, name))
        return self.built[name]

    def is_to_build(self, name: str) -> bool:
        """True for a layer that is there, and neither built nor being built nor known to have mistakes."""
        done = name in self.built or name in self.unavailable or name in self.failed or name in self.in_progress
        return not done and name in self.spec.layers

    def begin(self, name: str) -> LayerSpec | None:
        """The layer to be built, which is in progress from now on; None if it is there.

        Raises LayerError for a name that is not here, NotChecked and Unavailable for a layer that can't be built.
        """
        if name in self.built:
            return None
        if name in self.unavailable:
            raise Unavailable(name)
        if name in self.failed or name in self.spec.broken:
            raise NotChecked(name)
        if name not in self.spec.layers:
            raise self.no_such_layer(name)
        if name in self.in_progress:
            names = list(self.in_progress)
            report_cycle(self, [*names[names.index(name) :], name])
            raise NotChecked(name)
        self.in_progress[name] = None
        return self.spec.layers[name]

    def waits_for_what_is_built(self, name: str) -> bool:
        """True if a layer of this scope can't be built before one that is being built now, which it reads."""
        if name in self.built:
            return False
        return any(other in self.in_progress for other in reachable([name], self._needed_values))

    def _needed_values(self, name: str) -> list[str]:
        spec = None if name in self.built else self.spec.layers.get(name)
        if spec is None:
            return []
        return [other for other in spec.needed_layers if other not in spec.owners or other in spec.sources]

    def no_such_layer(self, name: str) -> LayerError:
        """What is said of a reference to a layer that is not here."""
        return no_such_layer(self, name)
