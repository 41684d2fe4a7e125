"""What a primitive is: its attributes, its type rule, and how it behaves in a loop."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Hashable, Mapping, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir.attributes import NO_DIMS, dims_of, fields_with_dims, substitute_attribute
from returnn_lite.ir.kept import NOTHING, Kept


class InLoop(enum.Enum):
    """All that the optimiser knows of a primitive: how one step relates to the whole sequence."""

    PER_STEP = "f on a stack is the stack of f"
    RECURRENCE = "carries state and has a whole-sequence form"
    STEP_INDEX = "depends on the step number alone"
    WHOLE_AXIS = "needs all steps at once: statistics over steps, or a look ahead"
    RANDOM = "draws random numbers"
    BEAM = "orders hypotheses"


class Effect(enum.Enum):
    """What applying a primitive does besides giving its results."""

    NONE = "nothing: its results are all there is"
    ASSIGN = "assigns a parameter when the step ends"
    PRINT = "prints"
    CHECK = "stops the run if something is wrong"
    CALL = "calls a Python function that may do anything"


@dataclass(frozen=True)
class Crossing:
    """How a primitive leads from one clock of a loop to another: its second operand is the mask, `faster` has the steps
    at which that is known, `slower` those at which it is true. With `holds` from the slower one, else from the faster
    one."""

    faster: Dim
    slower: Dim
    holds: bool


@dataclass(frozen=True)
class Op:
    """A primitive. A subclass is a frozen dataclass whose fields are its attributes; attributes name dims, never
    positions.

    Any dim that the attributes do not name is a batch dim: adding a dim to the inputs adds it to the outputs and
    changes nothing else. `type_of` is the only place that says so.
    """

    in_loop: ClassVar[InLoop] = InLoop.PER_STEP
    gives_each_step_its_own: ClassVar[bool] = True
    """Of one that needs all steps at once: False if its result is the same for all of them."""
    state_inputs: ClassVar[tuple[int, ...]] = ()
    """Of a RECURRENCE: the positions of the operands that are the state before the step..."""
    state_outputs: ClassVar[tuple[int, ...]] = ()
    """...and of the results that are the state after it, in the same order."""
    mask_at: ClassVar[int | None] = None
    """Of a RECURRENCE that keeps its state itself where it is masked in a loop of more steps: the position of the
    operand, left out elsewhere, that says at which."""
    pointers_at: ClassVar[int | None] = None
    """Of a choice: the position of the result that says of each hypothesis which one it continues."""
    ended_at: ClassVar[int | None] = None
    """Of a choice: the position of the operand that says which hypotheses had ended before the step."""
    length_at: ClassVar[int | None] = None
    """Of one that creates a dim: which of its operands and results, counted through, is the dim's length, if one is."""
    effect: ClassVar[Effect] = Effect.NONE
    multiplies: ClassVar[bool] = False
    """True if it is, or contains, a product with a matrix of weights."""
    reads_variable: ClassVar[bool] = False
    """True if it gives what a variable is at the start of a run."""
    numbers_frames: ClassVar[bool] = False
    """True if an operand numbers the frames of its dims, so that none can be left out."""
    shares_lengths: ClassVar[bool] = False
    """True if along its dims it is enough that one operand knows where each sequence ends."""
    works_along: ClassVar[tuple[str, ...]] = ()
    """The attributes that `along` names the dims of. Every primitive whose attributes have dims says which of them."""

    is_view: ClassVar[bool] = False
    """True if its result is always its first operand's memory under another type."""
    picks_from: ClassVar[tuple[int, ...]] = ()
    """The operands whose entries are all that there is in the result, besides 0; none if it computes any."""
    numbers: ClassVar[tuple[tuple[int, str], ...]] = ()
    """The results that number entries of a dim, whatever the operands are: position and attribute."""
    _measured: ClassVar[frozenset[Dim] | None] = None

    def indices(self) -> tuple[tuple[int, Dim, int | None], ...]:
        """The operands that must number entries of a dim: position, dim, and the entry that it must not be."""
        return ()

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        """The dims that it compares, sums, orders, normalises or moves along: what is at one frame of the result
        depends on others of the operands.

        Beyond the end of a sequence there is nothing, so along these dims lengths matter; along all others each frame
        is computed from itself, and no one asks whether it is real.
        """
        if not self.works_along:
            return ()
        return tuple(dims_of(self, self.works_along))

    @property
    def shares_memory(self) -> bool:
        """True if its result is its first operand's memory."""
        return self.is_view

    def passes_gradient(self, operand: int) -> bool:
        """False for an operand of real numbers that gets no gradient from the results."""
        return True

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """What the gradients of the operands in `wanted` need of the forward pass; one that only moves or adds numbers
        needs none of them."""
        return NOTHING

    def products(self, inputs: tuple[TensorType, ...]) -> tuple[tuple[Dim, ...], ...]:
        """For each product of matrices in it the dims that it ranges over: as many multiply-adds."""
        return ()

    @property
    def causal(self) -> bool:
        """True if along its dims no frame depends on a later one: where a sequence ends changes nothing before."""
        return False

    @property
    def fresh(self) -> bool:
        """True if each step of a loop gets something else although all operands are the same."""
        return self.in_loop in (InLoop.STEP_INDEX, InLoop.BEAM)

    @property
    def crossing(self) -> Crossing | None:
        """From which clock to which, if an operand is of another clock than the result."""
        return None

    @property
    def delays_along(self) -> Dim | None:
        """The dim along which it gives its first operand one frame later, and the second one first, if it does that."""
        return None

    @property
    def chosen(self) -> Dim | None:
        """Of a choice, which extends and reorders hypotheses: the dim of those that it leaves."""
        return None

    @property
    def lacks_beam(self) -> bool:
        """True if it is about hypotheses in the per-step view: `with_beam` is about all of them."""
        return False

    def with_beam(self, incoming: Dim | None) -> Op:
        """The primitive that does for all hypotheses what this one does for each; those before it are along `incoming`,
        if there are any. Raises DimError if it can't."""
        return self

    def with_lengths(self, over: Callable[[Dim], tuple[Dim, ...]]) -> Op:
        """The primitive where the lengths of dims vary over these beams, too."""
        return self

    @property
    def is_function(self) -> bool:
        """True if it gives the same in one place whenever its operands are the same, and does nothing else."""
        return self.effect is Effect.NONE and self.in_loop is not InLoop.BEAM

    def type_of(self, *inputs: Any, **_: Any) -> TensorType | tuple[TensorType, ...]:
        """The types of the outputs from those of the inputs. Raises DimError if the inputs do not fit.

        `Any` lets a primitive name its operands; `output_types` is the typed way to call it.
        """
        raise TypeError(f"{type(self).__name__} has no type rule")

    def output_types(self, inputs: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
        """`type_of` as a tuple."""
        types = self.type_of(*inputs)
        return types if isinstance(types, tuple) else (types,)

    def vectorize(self, over: Dim) -> Op:
        """The primitive that does on whole sequences over `over` what this one does step by step.

        Its operands are the same, each with `over` if it varies from step to step; a RECURRENCE gets its initial state
        where one step gets the state before it.
        """
        return self

    def unrolled(self, unroll: int) -> Op:
        """The primitive with its steps written out as those of a loop (`Loop.unroll`), if it has any."""
        return self

    def created_dims(self) -> tuple[Dim, ...]:
        """Dims whose run-time length this primitive determines, so that none exists before it has run."""
        return ()

    def renamed_dims(self) -> tuple[tuple[Dim, Dim], ...]:
        """Each dim that is another one under a new name here, with that one: they are equally long."""
        return ()

    def named_dims(self) -> frozenset[Dim]:
        """The dims in the attributes, and those that these are computed from: their lengths must be known."""
        cls: type = type(self)
        own = dims_of(self, fields_with_dims(cls))
        return frozenset(own).union(*[dim.leaves for dim in own if dim.operands()]) if own else NO_DIMS

    def measured_dims(self) -> frozenset[Dim]:
        """Those of the named dims whose lengths must be known before it runs, and are known at run time only."""
        if self._measured is None:
            cls: type = type(self)
            own = [dim for dim in dims_of(self, fields_with_dims(cls)) if dim.size is None]
            known_before = frozenset(own).union(*[dim.leaves for dim in own]).difference(self.created_dims())
            # Found once, as every pass asks; a cached_property would make each primitive a third larger.
            object.__setattr__(self, "_measured", known_before if own else NO_DIMS)
        return self._measured or NO_DIMS

    @property
    def label(self) -> str:
        """The name in IR text."""
        cls: type = type(self)
        return _in_lower_case(cls.__name__)

    @property
    def roles(self) -> tuple[str, ...]:
        """What its results are, for IR text; left out where there is one."""
        return ()

    @property
    def result_name(self) -> str:
        """What its result is called in IR text, where that is not after its layer."""
        return ""

    @property
    def literal(self) -> str:
        """Its result where one literal says all of it, for IR text."""
        return ""

    def attributes(self) -> dict[str, object]:
        """Field name to value, for text and comparison."""
        cls: type = type(self)
        return {name: getattr(self, name) for name in _names_of_fields(cls)}

    def shown_attributes(self) -> dict[str, object]:
        """The attributes that text shows: those with `repr` that differ from their defaults."""
        shown = {f.name: f.default for f in dataclasses.fields(self) if f.repr}
        return {name: value for name, value in self.attributes().items() if name in shown and value != shown[name]}

    def substitute(self, mapping: Mapping[Dim, Dim]) -> Self:
        """This primitive with dims in its attributes replaced."""
        if not mapping:
            return self
        given = self.attributes()
        changed = {name: substitute_attribute(value, mapping) for name, value in given.items()}
        return self if changed == given else dataclasses.replace(self, **changed)


@functools.cache
def _in_lower_case(name: str) -> str:
    """`CumConcat` as cum_concat."""
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


@functools.cache
def _names_of_fields(cls: Hashable) -> tuple[str, ...]:
    assert isinstance(cls, type)
    return tuple(field.name for field in dataclasses.fields(cls))
