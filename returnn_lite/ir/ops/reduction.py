"""Primitives that reduce or normalise over dims. Frames beyond the length of a ragged dim never take part."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from returnn_lite.dims import Dim, DimError, TensorType, require_one_dtype
from returnn_lite.ir.kept import NOTHING, Kept, has_padding
from returnn_lite.ir.op import InLoop, Op

REDUCTIONS = frozenset(["sum", "mean", "max", "min", "prod", "logsumexp", "any", "all"])


@dataclass(frozen=True)
class Reduce(Op):
    """sum, mean, max, min, prod, logsumexp, any or all over the dims `over` together.

    Over an empty sequence: sum 0, prod 1, mean 0, max -inf and min inf (an int's lowest and highest), logsumexp
    -inf, any false, all true.
    """

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    kind: str
    over: tuple[Dim, ...]

    @property
    def label(self) -> str:
        return f"reduce_{self.kind}"

    def attributes(self) -> dict[str, object]:
        return {"over": self.over}

    def type_of(self, x: TensorType) -> TensorType:
        if self.kind not in REDUCTIONS:
            raise DimError(f"there is no reduction {self.kind!r}")
        kind = {"any": "bool", "all": "bool", "logsumexp": "float"}.get(self.kind, "number")
        x.require_dtype(kind, f"reduce {self.kind}")
        return x.without(*self.over)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        if self.kind in ("sum", "mean"):
            return NOTHING
        if self.kind == "logsumexp":  # what is summed
            return Kept(inner=(inputs[0], self.type_of(*inputs)))
        if any(dim.is_ragged for dim in self.over):  # padding is filled, which is a copy
            return Kept(results=(0,), inner=inputs)
        return Kept(operands=(0,), results=(0,))


@dataclass(frozen=True)
class ArgReduce(Op):
    """The index of the largest ("max") or smallest ("min") along `over`; of equals the first."""

    numbers: ClassVar[tuple[tuple[int, str], ...]] = ((0, "over"),)
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    kind: str
    over: Dim

    @property
    def label(self) -> str:
        return f"arg{self.kind}"

    def type_of(self, x: TensorType) -> TensorType:
        if self.kind not in ("max", "min"):
            raise DimError(f"there is no arg{self.kind}")
        return x.without(self.over).require_dtype("number", self.label).of_dtype("int32", self.over)


@dataclass(frozen=True)
class Softmax(Op):
    """exp(x) / sum(exp(x)) over one dim; its logarithm with `log`. Every other dim is a batch dim.

    Beyond a sequence's length the result is 0 (-inf for the logarithm).
    """

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    log: bool = False

    def type_of(self, x: TensorType) -> TensorType:
        return x.require(self.over).require_dtype("float", "softmax")

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        if has_padding(inputs[0].of_dims((self.over,))):  # the result is one with its padding set to 0
            return Kept(inner=inputs)
        return Kept(results=(0,))


@dataclass(frozen=True)
class Normalize(Op):
    """(x - mean) / sqrt(variance + epsilon), mean and biased variance over the dims `over`."""

    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: tuple[Dim, ...]
    epsilon: float

    def type_of(self, x: TensorType) -> TensorType:
        return x.require(*self.over).require_dtype("float", "normalize")

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """What is centred, and the factor of each."""
        return Kept(inner=(inputs[0], inputs[0].without(*self.over)))


@dataclass(frozen=True)
class Moments(Op):
    """Mean and biased variance over every dim but `kept`: the statistics of a batch. Two results, each with `kept`.

    Only real frames count. In a loop it needs all steps, for they are part of the batch.
    """

    in_loop: ClassVar[InLoop] = InLoop.WHOLE_AXIS
    gives_each_step_its_own: ClassVar[bool] = False
    kept: tuple[Dim, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        return ("mean", "variance")

    def type_of(self, x: TensorType) -> tuple[TensorType, TensorType]:
        x.require(*self.kept).require_dtype("float", "moments")
        statistics = x.of_dims(self.kept)
        return statistics, statistics

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        """What is centred."""
        return Kept(inner=inputs)

    def along(self, *inputs: TensorType) -> tuple[Dim, ...]:
        return tuple(dim for dim in inputs[0].dims if dim not in self.kept)


@dataclass(frozen=True)
class TopK(Op):
    """The `k` largest along `over`, largest first, and their indices; of equals the lower index first.

    Two results, with `k` in place of `over`. Where `over` has fewer than k entries: value -inf (lowest int), index 0.
    """

    numbers: ClassVar[tuple[tuple[int, str], ...]] = ((1, "over"),)
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim
    k: Dim

    @property
    def roles(self) -> tuple[str, ...]:
        return ("values", "indices")

    def type_of(self, x: TensorType) -> tuple[TensorType, TensorType]:
        if self.k.size is None:
            raise DimError(f"the number of entries to keep, {self.k}, must be static")
        kept = x.without(self.over).require_dtype("number", "top_k")
        values = kept.of_dims((*kept.dims, self.k))
        return values, values.of_dtype("int32", self.over)

    def kept_for_gradient(self, inputs: tuple[TensorType, ...], wanted: Set[int]) -> Kept:
        return Kept(results=(1,))


@dataclass(frozen=True)
class Last(Op):
    """x at the last frame of `over` of each sequence; the second operand where a sequence is empty."""

    picks_from: ClassVar[tuple[int, ...]] = (0, 1)
    works_along: ClassVar[tuple[str, ...]] = ("over",)
    over: Dim

    def type_of(self, x: TensorType, init: TensorType) -> TensorType:
        require_one_dtype("last", (x, init))
        return x.without(self.over).with_dims(*init.dims)
