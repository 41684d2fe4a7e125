"""Primitives that make values from nothing: parameters, constants, indices, lengths, random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

from returnn_lite.dims import Dim, DimError, TensorType
from returnn_lite.ir.foreign_cells import FirstValue
from returnn_lite.ir.op import Effect, InLoop, Op

if TYPE_CHECKING:
    from returnn_lite.ir.graph import Graph


@dataclass(frozen=True)
class Initializer:
    """How a parameter starts: the name of a rule and its numbers, `in_dims`/`out_dims` for fan in and fan out.

    Rules: constant(value), normal(mean, stddev), truncated_normal(mean, stddev), uniform(minval, maxval),
    variance_scaling(scale, mode, distribution), orthogonal(gain), identity(gain), blocks(one number for each of as many
    equal parts of the last dim), computed, given.
    """

    rule: str
    arguments: tuple[tuple[str, float | str], ...] = ()
    in_dims: tuple[Dim, ...] = ()
    out_dims: tuple[Dim, ...] = ()
    value: Computed | None = None
    """Of the rule "computed": what the parameter is at first."""
    given: FirstValue | None = None
    """Of the rule "given": who says what the parameter is at first."""


class Computed:
    """Nodes that compute an initial value from parameters and constants alone.

    No dataclass: what is done to the dims of the graph around does not reach into it.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        """Without inputs; its output is "value"."""


@dataclass(frozen=True)
class Source:
    """The variable of a checkpoint whose value a parameter has at first."""

    filename: str
    name: str
    may_lack: bool = False


@dataclass(frozen=True)
class Storage:
    """What checkpoints have to do with a parameter: whether those of the network have it, and may lack it; which other
    one it begins with; and, of the bias of an LSTM, what is added to its forget gate at run time."""

    saved: bool = True
    critical: bool = True
    source: Source | None = None
    forget_bias: float = 0.0


IN_CHECKPOINTS = Storage()


@dataclass(frozen=True)
class Parameter(Op):
    """A variable of the network under RETURNN's name; its array has `dims` in this order.

    A variable that is not trainable may still be assigned by `AssignParameter` (running statistics). One that is
    `kept` has an entry for each sequence of a batch, for the batch that follows: 0 in the first batch after "epoch"
    says that an epoch begins, or "never" but at the very beginning. It may have one dynamic dim, which it creates: each
    entry has as many frames as were assigned, none at first.
    """

    works_along: ClassVar[tuple[str, ...]] = ()
    reads_variable: ClassVar[bool] = True
    name: str
    # The type says the dims; how a variable is filled once is left out of IR text.
    dims: tuple[Dim, ...] = field(repr=False)
    initializer: Initializer = field(repr=False)
    dtype: str = "float32"
    trainable: bool = True
    kept: Literal["", "epoch", "never"] = ""
    storage: Storage = field(default=IN_CHECKPOINTS, repr=False)

    @property
    def result_name(self) -> str:
        return self.name

    def type_of(self) -> TensorType:
        return TensorType(self.dims, self.dtype)

    def created_dims(self) -> tuple[Dim, ...]:
        return tuple(dim for dim in self.dims[1:] if dim.size is None) if self.kept else ()


@dataclass(frozen=True)
class AssignParameter(Op):
    """Assigns the input to the parameter `name` when the step ends; the output is the input.

    Reads of the parameter in the same run see the old value. Belongs into `Graph.checks` to be run.
    """

    in_loop: ClassVar[InLoop] = InLoop.WHOLE_AXIS
    effect: ClassVar[Effect] = Effect.ASSIGN
    works_along: ClassVar[tuple[str, ...]] = ()
    name: str
    dims: tuple[Dim, ...]

    def type_of(self, value: TensorType) -> TensorType:
        if not set(value.dims) <= set(self.dims):
            raise DimError(f"{value} does not fit the parameter's dims {', '.join(map(str, self.dims))}")
        return value.require(*self.dims)


@dataclass(frozen=True)
class Constant(Op):
    """The same value everywhere. `sparse` is the dim of the classes if the value is a class index."""

    works_along: ClassVar[tuple[str, ...]] = ()
    value: float | int | bool
    dtype: str = "float32"
    dims: tuple[Dim, ...] = ()
    sparse: Dim | None = None

    @property
    def literal(self) -> str:
        is_usual = self.dtype == {bool: "bool", int: "int32", float: "float32"}[type(self.value)]
        return str(self.value) if is_usual and self.sparse is None else ""

    def type_of(self) -> TensorType:
        return TensorType(self.dims, self.dtype, self.sparse)


@dataclass(frozen=True)
class ConstantArray(Op):
    """A fixed array with static dims, its values in C order."""

    works_along: ClassVar[tuple[str, ...]] = ()
    values: tuple[float | int | bool, ...]
    dims: tuple[Dim, ...]
    dtype: str = "float32"

    def type_of(self) -> TensorType:
        wanted = prod(dim.size if dim.size is not None else -1 for dim in self.dims)
        if len(self.values) != wanted:
            raise DimError(f"{len(self.values)} numbers do not fill {TensorType(self.dims)}")
        return TensorType(self.dims, self.dtype)


@dataclass(frozen=True)
class Iota(Op):
    """0, 1, 2, ... along `over`."""

    numbers: ClassVar[tuple[tuple[int, str], ...]] = ((0, "over"),)
    works_along: ClassVar[tuple[str, ...]] = ()
    over: Dim
    dtype: str = "int32"
    sparse: Dim | None = None

    def type_of(self) -> TensorType:
        return TensorType((self.over,), self.dtype, self.sparse)


@dataclass(frozen=True)
class StepIndex(Op):
    """The number of the step of the innermost loop, from 0: RETURNN's `:i`. On a slower clock, of the executed step."""

    in_loop: ClassVar[InLoop] = InLoop.STEP_INDEX
    dtype: str = "int32"

    def type_of(self) -> TensorType:
        return TensorType((), self.dtype)

    def vectorize(self, over: Dim) -> Op:
        return Iota(over, self.dtype)


@dataclass(frozen=True)
class Length(Op):
    """The length of `of`: one number for a static dim, else over the dims that it varies over, and over `beams`.

    What a search makes differs from hypothesis to hypothesis; the pass `beams`, which makes these a dim, says so here.
    """

    works_along: ClassVar[tuple[str, ...]] = ()
    of: Dim
    dtype: str = "int32"
    beams: tuple[Dim, ...] = ()

    def type_of(self) -> TensorType:
        return TensorType((*self.of.over, *(dim for dim in self.beams if dim not in self.of.over)), self.dtype)

    def with_lengths(self, over: Callable[[Dim], tuple[Dim, ...]]) -> Length:
        beams = over(self.of)
        return self if beams == self.beams else replace(self, beams=beams)


@dataclass(frozen=True)
class RandomDraw(Op):
    """Random numbers with `dims`; `distribution` and its two numbers: uniform(low, high), normal(mean, stddev),
    truncated_normal(mean, stddev) of which none is further from the mean than two standard deviations.

    int dtypes draw from [low, high). In a loop, `fresh` draws new ones in each step; otherwise all steps share one
    draw. `seed` names the draw: equal seeds give equal numbers within one step of training, and with `static` in all
    runs.
    """

    in_loop: ClassVar[InLoop] = InLoop.RANDOM
    works_along: ClassVar[tuple[str, ...]] = ()
    distribution: str
    first: float
    second: float
    dims: tuple[Dim, ...]
    seed: str
    dtype: str = "float32"
    fresh: bool = False
    steps: tuple[Dim, ...] = ()
    """Those of the dims that are a loop's steps, the innermost loop's last."""
    static: bool = False

    def type_of(self) -> TensorType:
        return TensorType(self.dims, self.dtype)

    def vectorize(self, over: Dim) -> Op:
        return replace(self, dims=(over, *self.dims), steps=(over, *self.steps)) if self.fresh else self
