"""What a layer is: the base of their classes, with all that these need.

A layer is a macro: a class with typed options whose `build` expands it into primitives, once, in the per-step view. It
says nothing about loops, beams or padding: its behaviour there is its primitives'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, dataclass_transform

from returnn_lite.config.options import AxisSpec, option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.layer_reads import CellRecord
from returnn_lite.ir.views import View
from returnn_lite.layers.builder import LayerBuilder as LayerBuilder
from returnn_lite.layers.errors import LayerError as LayerError
from returnn_lite.layers.recompute import Recomputed as Recomputed
from returnn_lite.layers.requests import LoopRequest as LoopRequest
from returnn_lite.layers.requests import NetworkRequest as NetworkRequest
from returnn_lite.layers.requests import UnitRequest as UnitRequest
from returnn_lite.layers.surroundings import Hypotheses as Hypotheses
from returnn_lite.layers.surroundings import Mode as Mode
from returnn_lite.layers.surroundings import Outputs as Outputs

Building = Generator[NetworkRequest | UnitRequest | LoopRequest, Any, Outputs]
"""A `build` that waits for layers inside of its own: it yields requests and gets the answers."""


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

    def build(self, b: LayerBuilder, *sources: Any, **_: Any) -> View | Outputs | Building:
        """Adds the layer's primitives and returns what it makes. `Any` lets a layer name its sources, each a View.

        One with layers inside is a generator, so that these can be built while it waits.
        """
        raise TypeError(f"{type(self).__name__} does not build")

    def joins(self) -> bool:
        """Whether several sources are joined, as `joins_sources` says unless the options do."""
        return self.joins_sources

    def own_size(self) -> int | None:
        """The size of the output that options of this class say in place of n_out; None for most layers."""
        return None

    def state_keys(self) -> tuple[str, ...]:
        """The keys of the states that a step of the layer leaves, known before it is built; none for most layers."""
        return ()

    def type_of_joined(self, x: MarkedType, out: Dim) -> MarkedType | None:
        """The type of what `build` makes of a joined source, where the options ask for the features `out`; None if only
        building says it. `prev:` of such a layer costs no trial (decision 12)."""
        return None

    @classmethod
    def instead_of(cls, option: str) -> str | None:
        """What to write in place of an option of other systems that this layer does not have."""
        return None

    def mistakes(self) -> Iterator[LayerError]:
        """What is wrong with options beyond their types, and known without building; none is found twice."""
        return iter(())

    def cell_records(self) -> tuple[CellRecord, ...]:
        """The cells of its unit, each before those inside of it. Raises LayerError for a unit that is none."""
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

    @classmethod
    def references_inside(cls, options: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
        """References in options that are not declared as such but lie deeper (in a cell), from the layer's dict: the
        path of each below that, and its text."""
        return iter(())

    def layers_inside(self) -> Mapping[str, Any]:
        """The options of the layers inside of this one that are its parts, by name."""
        return {}

    def recomputes(self) -> Recomputed | None:
        """What the layer's options say of recomputing layers inside of it; None if that is up to the layer around.
        Raises LayerError."""
        return None
