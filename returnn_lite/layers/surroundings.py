"""What a layer sees of the network around it, and what it makes for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from returnn_lite.config.options import AxisSpec
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.dims.records import record
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.views import View
from returnn_lite.layers.preactivations import Preactivations


@record(frozen=True)
class Outputs:
    """What a layer makes: its value; sub-layers by name (`x/0`); the state after the step, or at the end, by key
    ("c", "h"); of a loop the initial outputs of its sub-layers, where they have one; of a masked computation in a loop
    its mask, and the dim of the frames at which that is true; and of a whole sequence the state at the end that the
    output is at each step, if it is one."""

    value: View
    parts: Mapping[str, View] = field(default_factory=dict)
    state: Mapping[str, View] = field(default_factory=dict)
    initial: Mapping[str, View] = field(default_factory=dict)
    masked: tuple[View, Dim] | None = None
    held: View | None = None


@dataclass(frozen=True)
class Mode:
    """Which of the four compilations this is.

    Losses are built if `losses`, choices search if `search`, and data that is not available for inference (targets)
    may be used if `targets`. With `steps_of_target` a search takes as many steps as the target has, and no `end` is
    needed.
    """

    train: bool
    losses: bool
    search: bool
    targets: bool = True
    steps_of_target: bool = False


@dataclass(frozen=True)
class Hypotheses:
    """What search leaves of a loop: the dim of its hypotheses, their scores, and the dim of its steps.

    With `own_lengths` each hypothesis has its own number of them. `varying` are the dims of the value asked about whose
    lengths differ from hypothesis to hypothesis. `pointers` say which one each continued in the last step.
    """

    beam: Dim
    scores: View
    time: Dim
    own_lengths: bool = True
    pointers: View | None = None
    varying: tuple[Dim, ...] = ()

    def labels(self, time: Dim | None) -> Dim | None:
        """What has a frame for each label of a hypothesis: the value's own time, or the steps of the loop; None if all
        hypotheses have as many."""
        if self.varying:
            return time if time in self.varying else self.varying[0]
        return self.time if self.own_lengths and self.time.is_ragged else None


class OpenHypotheses(Protocol):
    """The hypotheses (without search: the sequences) of a loop whose body is being built."""

    def ended_before(self) -> View:
        """Whether each had ended before this step."""

    def before(self, needed: Sequence[View]) -> View:
        """Their scores before this choice, which is computed from `needed`.

        Raises LayerError if the order of the step's choices is not clear.
        """

    def scored(self, score: View) -> None:
        """Says what their scores are now."""

    def chosen(self, beam: Dim, label: View, score: View, reported: View) -> None:
        """Says that a choice of the step has been made, with the scores after it, and as the end of search reports
        them."""


class Search(Protocol):
    """Searches around a layer: of the loop whose body is being built, and those whose loops have ended."""

    def hypotheses(self) -> OpenHypotheses:
        """Those of the loop whose body is being built. Raises LayerError outside of loops."""

    def reaches(self, value: View) -> bool:
        """Whether a value may differ from hypothesis to hypothesis: in a loop that searches, and behind it."""

    def left_in(self, value: View) -> Hypotheses | None:
        """What search left of the loop that a value comes from; None without search."""


class Target(Protocol):
    """The layer's target, its own or the default one; of a list of them the k-th."""

    is_given: bool

    def value(self) -> View:
        """The data, as the per-step view has it here. Raises LayerError if there is none."""

    def class_dim(self, k: int = 0) -> Dim:
        """The dim of its classes."""

    def gold_label(self, k: int) -> View:
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

    def initial_output(self, type_: MarkedType, part: str = "") -> View | None:
        """The option initial_output of the layer, or of one inside of it that has been built (`part`), as a value of a
        type, made around the loop; None if not given."""

    def parameter(self, parameter: Parameter) -> View:
        """A parameter of the layer; another's if `reuse_params` says so."""
