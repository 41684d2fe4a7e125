"""One namespace of layers being built: the root network, an overlay of it, a subnetwork, the body of a rec layer, or
the one layer inside of another (a unit).

It is data. What a reference means in it is in `resolution`; layers are built by the driver (`building`), where their
order follows from what they need: the building of one is suspended until that is there, so that nothing is ever deep.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.open_body import InsertionPoint, OpenState
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError, Mode, Outputs
from returnn_lite.net.context import LossValue, NetworkContext
from returnn_lite.net.loop_body import LoopBody
from returnn_lite.net.parameter_scope import ParameterScope
from returnn_lite.net.recomputation import NONE, Marks, mark_of, marks_inside
from returnn_lite.net.references import Reference
from returnn_lite.net.specs import LayerSpec, NetworkSpec

Result = TypeVar("Result")


@dataclass(eq=False)
class Scope:
    """The layers of one network, at its `point`: inside of the loop bodies that were open when it was made."""

    context: NetworkContext
    spec: NetworkSpec
    path: str
    parameters: ParameterScope
    driver: Driver
    mode: Mode
    """Which of the four compilations this is; in an overlay network and inside of its layers, that of it."""
    losses: list[LossValue]
    """Where the losses of its layers go: those of a step are stacked where the loop is."""
    parent: Scope | None = None
    inputs: Mapping[str, View] = field(default_factory=dict)
    loop: LoopBody | None = None
    """The body of the loop that the layers belong to."""
    seen: Callable[[View], View] | None = None
    """Of a unit, which sees what the layer around it sees: how the values from there come in."""
    below: Scope | None = None
    """Of an overlay, the outermost network."""
    tag: str = ""
    """Of an overlay: `extra.search`."""
    marks: Marks = NONE
    """Which of the layers are computed again when gradients are taken."""
    point: InsertionPoint = field(init=False)
    naming_frames: tuple[Scope, ...] = field(init=False)
    """This scope and those around in the same body that have a masked computation with a dim for its frames."""
    expected: KnownTypes = field(init=False)
    built: dict[str, Outputs] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    unavailable: set[str] = field(default_factory=set)
    """Layers that need targets where there are none."""
    in_progress: dict[str, None] = field(default_factory=dict)
    networks: dict[str, tuple[Mapping[str, Any], NetworkSpec]] = field(default_factory=dict)
    """By layer, the options of those inside of it, and what they have been decoded to."""
    children: dict[str, Scope] = field(default_factory=dict)
    overlays: dict[str, Scope] = field(default_factory=dict)
    features: dict[str, Dim] = field(default_factory=dict)
    """The feature dims that options of layers ask for, by path of the layer; all of them are `feature_dims`."""
    feature_dims: set[Dim] = field(default_factory=set)
    previous: dict[Reference, OpenState] = field(default_factory=dict)
    """The states that `prev:` references read."""
    unconnected: list[tuple[Scope, Reference]] = field(default_factory=list)
    """Of the body of a loop and the scopes in it together: all `prev:` references, in the order of their being read;
    at the end of the loop their states are connected with the layers."""
    previous_states: dict[str, dict[str, OpenState]] = field(default_factory=dict)
    """By layer of which a state is read, what has been read of it before the step, by key."""
    published: dict[str, View] = field(default_factory=dict)
    """What layers of this loop's body have published, by data key."""

    def __post_init__(self) -> None:
        self.point = self.context.builder.point if self.below is None else self.below.point
        around = () if self.parent is None or self.parent.point != self.point else self.parent.naming_frames
        self.naming_frames = (self, *around) if self.spec.named_frames else around
        self.expected = self.driver.expected_types(self)

    def inside(
        self,
        spec: NetworkSpec,
        path: str,
        parameters: ParameterScope,
        inputs: Mapping[str, View],
        *,
        seen: Callable[[View], View] | None = None,
        body: LoopBody | None = None,
        marks: Marks = NONE,
    ) -> Scope:
        """A scope in this one: of a subnetwork, of a unit, or of the layers of a loop's body."""
        losses, loop = (self.losses, self.loop) if body is None else ([], body)
        scope = Scope(
            self.context,
            spec,
            path,
            parameters,
            self.driver,
            self.mode,
            losses,
            self,
            dict(inputs),
            loop,
            seen,
            marks=marks,
        )
        if body is None:
            scope.unconnected = self.unconnected
        return scope

    def mark_of(self, spec: LayerSpec) -> str:
        """What says that a layer is computed again when gradients are taken, if anything does. Raises LayerError."""
        path = self.path_of(spec)
        mark = mark_of(spec.layer, self.marks.of(spec.name, path), path)
        return mark if self.mode.train else ""

    def marks_inside(self, spec: LayerSpec) -> Marks:
        """The same for the layers inside of a layer. Raises LayerError."""
        path = self.path_of(spec)
        return marks_inside(spec.layer, self.marks.of(spec.name, path), path)

    @property
    def is_body(self) -> bool:
        """Whether this is the namespace of a loop's body, not one in it."""
        return self.parent is not None and self.loop is not self.parent.loop

    @property
    def searches(self) -> bool:
        """Whether hypotheses are extended in the steps of a loop around."""
        return self.loop is not None and self.loop.searches

    @property
    def loop_around(self) -> LoopBody:
        """The body of the loop that the layers belong to. Raises LayerError outside of loops."""
        if self.loop is None:
            raise LayerError("there is no loop here")
        return self.loop

    def path_of(self, spec: LayerSpec) -> str:
        """The full path of a layer of this scope."""
        if self.tag:
            return f"{self.tag}:{spec.name}"
        return f"{self.path}/{spec.name}" if self.path else spec.name

    def layer(self, name: str) -> Outputs:
        """A layer of this scope, built now if it is not yet. Raises LayerError, NotChecked and Unavailable."""
        if name not in self.built:
            self.driver.build(OneLayer(self, name))
        return self.built[name]


@dataclass(frozen=True)
class OneLayer:
    """A layer of a scope, with what it needs. Raises LayerError, NotChecked and Unavailable where it waits."""

    scope: Scope
    name: str


@dataclass(frozen=True)
class SomeLayers:
    """Layers of a scope, with what they need; those that can't be built are in `failed` and `unavailable` then.

    With `all_of_them` they are all roots of the scope: what nothing reads is looked at as well.
    """

    scope: Scope
    names: Sequence[str]
    all_of_them: bool = False


Task = Generator[OneLayer | SomeLayers, Any, Result]
"""Something that is being built: it yields what it waits for."""


class Driver(Protocol):
    """What builds, for those that need something at once."""

    def build(self, wanted: OneLayer | SomeLayers) -> None:
        """Builds layers with what they need. Raises LayerError, NotChecked and Unavailable for one that can't be."""

    def made_of(self, scope: Scope, spec: LayerSpec, sources: Sequence[View]) -> View:
        """What a layer makes of other values than its sources, at the builder's point."""

    def previous(self, scope: Scope, reference: Reference) -> Outputs:
        """What a `prev:` reference reads: a State, which is made when it is first read. Raises LayerError."""

    def expected_types(self, scope: Scope) -> KnownTypes:
        """What is known of the layers of a new scope before they are built."""


class KnownTypes(Protocol):
    """The types of the layers of one scope, as far as they can be known at the moment."""

    def of(self, spec: LayerSpec, parts: tuple[str, ...] = ()) -> MarkedType | None:
        """The type of a layer's output, or of a part of it. None if nothing is known."""

    def dim_of_step(self, spec: LayerSpec) -> Dim | None:
        """A dim of a layer that each step makes anew, as far as that is known."""

    def is_built(self, name: str) -> None:
        """Says that a layer of the scope is there."""

    def is_declared(self, name: str, type_: MarkedType) -> None:
        """Says that the type of `prev:` of a layer has been settled."""
