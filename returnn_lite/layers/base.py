"""What a layer is, and what its `build` may use.

A layer is a macro: a class with typed options whose `build` expands it into primitives, once, in the per-step view.
It says
nothing about loops, beams or padding: its behaviour there is its primitives'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, Protocol, dataclass_transform

from returnn_lite.config.options import AxisSpec, Init, LayerRef, option
from returnn_lite.dims import Dim, DimError, DimKind, Symbol, TensorType, Unknown
from returnn_lite.dims.axes import resolve_axes, resolve_axis
from returnn_lite.ir import Op, Value
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.open_body import OpenState
from returnn_lite.ir.ops.recurrence import CumsumStep, Recurrence, Step
from returnn_lite.ir.ops.sources import IN_CHECKPOINTS, Initializer, Parameter, Storage
from returnn_lite.layers.activations import apply_activation
from returnn_lite.layers.errors import UNKNOWN_SIZE
from returnn_lite.layers.errors import LayerError as LayerError
from returnn_lite.layers.initializers import initializer
from returnn_lite.layers.preactivations import Preactivations
from returnn_lite.layers.requests import LoopRequest as LoopRequest
from returnn_lite.layers.requests import NetworkRequest as NetworkRequest
from returnn_lite.layers.requests import UnitRequest as UnitRequest


@dataclass(frozen=True)
class Outputs:
    """What a layer makes: its value; sub-layers by name (`x/0`); the state after the step, or at the end, by key
    ("c", "h"); of a loop the initial outputs of its sub-layers, where they have one; and of a masked computation in a
    loop its mask, and the dim of the frames at which that is true."""

    value: Value
    parts: Mapping[str, Value] = field(default_factory=dict)
    state: Mapping[str, Value] = field(default_factory=dict)
    initial: Mapping[str, Value] = field(default_factory=dict)
    masked: tuple[Value, Dim] | None = None


@dataclass(frozen=True)
class Mode:
    """Which of the four compilations this is.

    Losses are built if `losses`, choices search if `search`, and data that is not available for inference (targets)
    may be
    used if `targets`. With `steps_of_target` a search takes as many steps as the target has, and no `end` is needed.
    """

    train: bool
    losses: bool
    search: bool
    targets: bool = True
    steps_of_target: bool = False


Building = Generator[NetworkRequest | UnitRequest | LoopRequest, Any, Outputs]
"""A `build` that waits for layers inside of its own: it yields requests and gets the answers."""


@dataclass(frozen=True)
class Hypotheses:
    """What search leaves of a loop: the dim of its hypotheses, their scores, and the dim of its steps.

    With `own_lengths` each hypothesis has its own number of them. `varying` are the dims of the value asked about whose
    lengths differ from hypothesis to hypothesis. `pointers` say which one each continued in the last step.
    """

    beam: Dim
    scores: Value
    time: Dim
    own_lengths: bool = True
    pointers: Value | None = None
    varying: tuple[Dim, ...] = ()

    def others(self, b: LayerBuilder, *more: Dim) -> tuple[tuple[Dim, Dim], ...]:
        """Each dim of `varying` with a new one, whose lengths vary over `more` in place of the beam."""
        pairs = []
        for number, dim in enumerate(self.varying, 1):
            over = (*(other for other in dim.over if other is not self.beam), *more)
            pairs.append((dim, b.new_dim(f"time{number}" if number > 1 else "time", over=over)))
        return tuple(pairs)

    def labels(self, time: Dim | None) -> Dim | None:
        """What has a frame for each label of a hypothesis: the value's own time, or the steps of the loop; None if all
        hypotheses have as many."""
        if self.varying:
            return time if time in self.varying else self.varying[0]
        return self.time if self.own_lengths and self.time.is_ragged else None


class AxisError(DimError):
    """A description of an axis that means none of a value's."""

    def __init__(self, message: str, description: AxisSpec) -> None:
        super().__init__(message)
        self.description = description


@contextmanager
def _of_axis(description: AxisSpec) -> Iterator[None]:
    try:
        yield
    except DimError as error:
        raise AxisError(str(error), description) from error


class OpenHypotheses(Protocol):
    """The hypotheses (without search: the sequences) of a loop whose body is being built."""

    def ended_before(self) -> Value:
        """Whether each had ended before this step."""

    def before(self, needed: Sequence[Value]) -> Value:
        """Their scores before this choice, which is computed from `needed`.

        Raises LayerError if the order of the step's choices is not clear.
        """

    def scored(self, score: Value) -> None:
        """Says what their scores are now."""

    def chosen(self, beam: Dim, label: Value, score: Value, reported: Value) -> None:
        """Says that a choice of the step has been made, with the scores after it, and as the end of search reports
        them."""


class Search(Protocol):
    """Searches around a layer: of the loop whose body is being built, and those whose loops have ended."""

    def hypotheses(self) -> OpenHypotheses:
        """Those of the loop whose body is being built. Raises LayerError outside of loops."""

    def reaches(self, value: Value) -> bool:
        """Whether a value may differ from hypothesis to hypothesis: in a loop that searches, and behind it."""

    def left_in(self, value: Value) -> Hypotheses | None:
        """What search left of the loop that a value comes from; None without search."""


class Target(Protocol):
    """The layer's target, its own or the default one; of a list of them the k-th."""

    is_given: bool

    def value(self) -> Value:
        """The data, as the per-step view has it here. Raises LayerError if there is none."""

    def class_dim(self, k: int = 0) -> Dim:
        """The dim of its classes."""

    def gold_label(self, k: int) -> Value:
        """Its label, as a choice takes it; in search 0 beyond the target's end."""


@dataclass(frozen=True)
class Compilation:
    """What all layers of one compilation share: its mode, the batch dim, the functions that expressions may call by
    name, and what went into the functions that made the values of the network."""

    mode: Mode
    behavior_version: int
    batch: Dim
    functions: Mapping[str, Callable[..., object]]
    preactivations: Preactivations


@dataclass(frozen=True)
class Given:
    """What a layer's common options say: the references in `from` without 'none', and their axes where it has pairs;
    out_type, whether there is an out_shape, and which option says the size of the output."""

    source_names: Sequence[str] = ()
    source_axes: Sequence[AxisSpec] = ()
    out_type: Mapping[str, Any] = field(default_factory=dict)
    has_out_shape: bool = False
    size_option: str = "target"


class Surroundings(Protocol):
    """What a layer sees of the network around it; `net` implements it."""

    compilation: Compilation
    given: Given

    @property
    def target(self) -> Target:
        """The layer's target."""

    @property
    def search(self) -> Search:
        """Searches around the layer."""

    def layer(self, reference: str) -> Outputs:
        """What a reference (`x`, `prev:x`, `base:x`, `data:key`, `x/part`) stands for here. Raises LayerError."""

    def out_feature(self) -> Dim | None:
        """The feature dim that n_out, out_dim or the target of the layer asks for; None if nothing does."""

    def initial_output(self, type_: TensorType, part: str = "") -> Value | None:
        """The option initial_output of the layer, or of one inside of it that has been built (`part`), as a value of a
        type, made around the loop; None if not given."""

    def parameter(self, parameter: Parameter) -> Value:
        """A parameter of the layer; another's if `reuse_params` says so."""


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
class Layer:
    """Base of the layer classes. A subclass annotates its options and implements `build`."""

    class_names: ClassVar[tuple[str, ...]] = ()
    """The names in configs, the usual one first."""
    sources_have_axes: ClassVar[bool] = False
    """True if `from` has pairs of a layer and an axis (concat); the axes are `Given.source_axes`."""
    joins_sources: ClassVar[bool] = False
    """True if several sources are joined along their feature dims before `build`, which then gets one."""
    output_dtype: ClassVar[str | None] = None
    """The dtype of the output if it is always the same and has no feature dim (compare: bool)."""
    keeps_type_of: ClassVar[str | None] = None
    """The option whose layer has the same feature dim and dtype as the output; "from" for the first source."""
    picks_frames: ClassVar[bool] = False
    """True if the layer is under a mask of its own."""
    takes_lengths: ClassVar[bool] = False
    """True if the layer itself gives its output the lengths of the size_target (a loop)."""
    keeps_dims: ClassVar[bool] = False
    """True if the output has all dims of that layer, whatever else is read."""
    begins_held: ClassVar[bool] = False
    """True if before the first step of a loop the output is not 0, but what `build` gives to `hold`."""
    inner_scope: ClassVar[str] = ""
    """What names of its parameters, or of the layers inside, begin with; a name_scope stands for it as well."""
    source_count: ClassVar[tuple[int, int | None]] = (1, None)
    """The least and the most sources (None: any number); for a layer that joins sources, before they are joined."""
    to_need_one_step: ClassVar[str] = ""
    """What to set so that a layer that needs all steps of a loop at once can work step by step, a sentence."""

    def __init_subclass__(cls, names: Sequence[str] = ()) -> None:
        super().__init_subclass__()
        if names:
            cls.class_names = tuple(names)
        # Layers are neither compared nor shown; the methods for that would take a tenth of the time of `check`.
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)

    def build(self, b: LayerBuilder, *sources: Any, **_: Any) -> Value | Outputs | Building:
        """Adds the layer's primitives and returns what it makes. `Any` lets a layer name its sources, each a Value.

        One with layers inside is a generator, so that these can be built while it waits.
        """
        raise TypeError(f"{type(self).__name__} does not build")

    def state_keys(self) -> tuple[str, ...]:
        """The keys of the states that a step of the layer leaves, known before it is built; none for most layers."""
        return ()

    def begins_with_state(self) -> bool:
        """True if before the first step of a loop the output is not 0, but that of a state which options give."""
        return False

    def reads_sources(self, mode: Mode) -> bool:
        """False where the output does not depend on the sources (choice in training): they may need this layer."""
        return True

    def keeps_target(self) -> bool:
        """True if a search keeps the target among its hypotheses, so that the loop has its steps."""
        return False

    def axis_of_frames(self) -> AxisSpec | None:
        """The axis of the first source, a sequence from around, of which each step of the loop takes a frame."""
        return None

    def axis_of_loop(self) -> AxisSpec | None:
        """The same if the layer says that the loop runs over it."""
        return None

    def named_frames(self) -> Dim | None:
        """The dim under which other layers of a loop's body know the frames that this one picks."""
        return None

    def gives_labels(self) -> bool:
        """True if the output is a class index of the target (choice)."""
        return False

    def searches(self, mode: Mode) -> bool:
        """True if the layer extends hypotheses in a compilation (choice in search)."""
        return False

    def result_options(self) -> Mapping[str, Any]:
        """The options of the layer inside of this one whose output is its own: its `initial_output` is this one's,
        too."""
        return {}

    def layers_inside(self) -> Mapping[str, Any]:
        """The options of the layers inside of this one that are its parts, by name."""
        return {}


class LayerBuilder(Expressions):
    """What `build` works with: the primitives (see `Expressions`), the layer's surroundings, parameters, axes."""

    def __init__(self, builder: Builder, surroundings: Surroundings, name: str, local_name: str) -> None:
        self.ir = builder
        self.surroundings = surroundings
        self.name = name
        self.local_name = local_name

    def emit(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        return self.ir.emit(op, *inputs)

    def length(self, of: Dim, dtype: str = "int32") -> Value:
        return self.ir.length(of, dtype)

    def fail(self, message: str, hint: str = "", option: str = "") -> NoReturn:
        """Reports a mistake in this layer."""
        raise LayerError(message, hint, option)

    # Mode

    @property
    def mode(self) -> Mode:
        """Train, eval, search or forward."""
        return self.surroundings.compilation.mode

    def behavior(self, version: int) -> bool:
        """True if the config's behavior_version is at least this one."""
        return self.surroundings.compilation.behavior_version >= version

    @property
    def batch(self) -> Dim:
        """The batch dim."""
        return self.surroundings.compilation.batch

    # Values around

    @property
    def source_names(self) -> Sequence[str]:
        """The references in `from`."""
        return self.surroundings.given.source_names

    def layer(self, reference: LayerRef) -> Value:
        """The value of a hidden reference."""
        return self.surroundings.layer(reference).value

    def layer_outputs(self, reference: LayerRef) -> Outputs:
        """All that the layer of a hidden reference makes."""
        return self.surroundings.layer(reference)

    def operand(self, reference: LayerRef | float | int | bool, example: Value) -> Value:
        """The value of a reference, or a number as a value of the example's dtype."""
        return self.layer(reference) if isinstance(reference, str) else self.like(reference, example)

    # Dims

    def feature_of(self, value: Value) -> Dim:
        """The feature dim of a value; an error if it has none."""
        if value.type.feature is None:
            self.fail(f"'{value.name}' has no feature dim: {value.type}")
        return value.type.feature

    def out_feature(self) -> Dim:
        """The feature dim of the output: of the size that n_out, out_dim or the target says."""
        found = self.surroundings.out_feature()
        if found is None:
            self.fail(*UNKNOWN_SIZE)
        return found

    def new_feature(self, size: int, suffix: str = "feature") -> Dim:
        """A new static feature dim of this layer."""
        return Symbol(f"{self.name}:{suffix}", DimKind.FEATURE, size)

    def new_dim(self, suffix: str, size: int | None = None, over: Sequence[Dim] = ()) -> Dim:
        """A new spatial dim of this layer: static, or dynamic with lengths that vary over dims."""
        return Symbol(f"{self.name}:{suffix}", DimKind.SPATIAL, size, tuple(over))

    def new_dim_of_step(self, suffix: str, over: Sequence[Dim], declared: Dim | None = None) -> Dim:
        """A new dynamic spatial dim whose length may differ from step to step of the loop that is being built: the one
        that the config declares, if nothing has made it before."""
        varies = (*(() if self.loop is None else (self.loop,)), *over)
        if declared is None or declared.is_settled:
            return self.new_dim(suffix, over=varies)
        declared.settle(varies)
        return declared

    def axis(self, description: AxisSpec, value: Value) -> Dim:
        """The one dim that an axis description means for a value. Raises DimError that names the candidates."""
        with _of_axis(description):
            return resolve_axis(description, value.type, self.ir.layers_with)

    def axes(self, description: AxisSpec, value: Value) -> tuple[Dim, ...]:
        """The dims that an axis description means for a value."""
        with _of_axis(description):
            return resolve_axes(description, value.type, self.ir.layers_with)

    # Parameters

    def param(
        self,
        name: str,
        dims: Sequence[Dim],
        init: Init | Initializer,
        *,
        in_dims: Sequence[Dim] = (),
        out_dims: Sequence[Dim] = (),
        trainable: bool = True,
        dtype: str = "float32",
        storage: Storage = IN_CHECKPOINTS,
    ) -> Value:
        """A parameter `<layer>/<name>` whose array has the dims in this order; `in_dims` and `out_dims` give fan in
        and out.

        Without them a matrix goes from its first to its last dim. Fails if a size is known only at run time.
        """
        for dim in dims:
            if dim.is_dynamic and not any(isinstance(part, Unknown) for part in dim.leaves):
                self.fail(
                    f"the parameter '{name}' would have the dim {dim}, whose size differs from batch to batch",
                    "Parameters need a static feature dim: reduce the frames, or give the layers below n_out.",
                )
        if not in_dims and not out_dims and len(dims) >= 2:
            in_dims, out_dims = dims[:-1], dims[-1:]
        rule = init if isinstance(init, Initializer) else initializer(init, tuple(in_dims), tuple(out_dims))
        parameter = Parameter(name, tuple(dims), rule, dtype, trainable, storage=storage)
        return self.surroundings.parameter(parameter)

    def activation(self, name: str | None, value: Value, options: Mapping[str, float | int] | None = None) -> Value:
        """The value with an activation function applied; softmax goes over the feature dim."""
        activated = apply_activation(self, name, value, options)
        if activated is not value:
            self.surroundings.compilation.preactivations.activated(value, activated)
        return activated

    def logits_of(self, value: Value) -> Value | None:
        """What went into the softmax over the features that made a value; None if none did."""
        return self.surroundings.compilation.preactivations.logits(self, value)

    # Loops

    @property
    def loop(self) -> Dim | None:
        """The dim of the innermost loop whose body is being built; None outside."""
        return self.ir.body.over if self.ir.body is not None else None

    def constant_outside(self, value: float, dtype: str, dims: Sequence[Dim]) -> Value:
        """A constant around the innermost loop, for the initial value of a state."""
        if self.loop is None:
            return self.constant(value, dtype, dims)
        with self.ir.at_outer():
            return self.constant(value, dtype, dims)

    def recurrence(
        self, step: Step, *operands: Value, over: Dim, reverse: bool = False, names: Sequence[str] = ("state",)
    ) -> tuple[Value, ...]:
        """The results of a recurrence along `over`: of this step of the loop if that is its dim, with states of this
        layer by `names`; else of all frames, from the last to the first with `reverse`.

        Operands are the step's, the states those before the first, which must be from around the loop.
        """
        if over is not self.loop or any(over in operand.type for operand in operands):
            return self.emit(Recurrence(step, over, reverse), *operands)
        types, now = step.output_types(tuple(operand.type for operand in operands)), list(operands)
        states = []
        for name, at, result in zip(names, step.state_inputs, step.state_outputs, strict=True):
            states.append(self.delay(name, types[result], operands[at]))
            now[at] = states[-1].now
        results = self.emit(step, *now)
        for state, result in zip(states, step.state_outputs, strict=True):
            state.next = results[result]
        return results

    def cumsum(self, x: Value, over: Dim, init: Value | None = None, reverse: bool = False) -> Value:
        """The sums of the frames so far, with `init`."""
        first = self.constant_outside(0, x.type.dtype, ()) if init is None else init
        return self.recurrence(CumsumStep(), x, first, over=over, reverse=reverse)[0]

    def delay(self, key: str, type_: TensorType, init: Value) -> OpenState:
        """A state of this layer in the loop: `.now` is its value before the step; set `.next`."""
        return self.ir.delay(f"{self.name}:{key}", type_, init)
