"""What the lowering of a primitive may ask for besides its operands, and the table that lowerings are entered in."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir import Node, Op, Value
from returnn_lite.ir.host_calls import FunctionError, called
from returnn_lite.tf.checks import Check, Checks
from returnn_lite.tf.consumers import Consumers
from returnn_lite.tf.layout import Tensor
from returnn_lite.tf.sizes import Size, Sizes


def lengths_of(parameter: str) -> str:
    """The name of what keeps how many frames each sequence has of a parameter that is kept."""
    return f"{parameter}:lengths"


@dataclass(frozen=True)
class Assignment:
    """The new value of a parameter, to be assigned when the step ends."""

    name: str
    value: tf.Tensor


class ProductTaps(Protocol):
    """What a product in a loop's body asks first; `gradients.Taps`."""

    def product(self, sizes: Sizes, node: Node, a: Tensor, b: Tensor, over: tuple[Dim, ...]) -> Tensor | None:
        """The product, or None if nothing is special about it."""

    @property
    def flows(self) -> list[tf.Tensor]:
        """The lists that the body carries for these products."""

    def of(self, nodes: Collection[Node]) -> ProductTaps:
        """Those of some nodes."""

    def carry(self, flows: Sequence[tf.Tensor]) -> None:
        """Says what the lists are from here on."""

    def pushing(self, flows: Sequence[tf.Tensor]) -> ProductTaps:
        """The same where the products are computed again, with other lists."""


@dataclass(frozen=True)
class Fed:
    """An input as it is fed, and what makes of that the input: copies that need not be kept, as they can be made
    again."""

    raw: tf.Tensor
    made: Callable[[tf.Tensor], Tensor]


@dataclass(frozen=True)
class Context:
    """The surroundings of a node.

    `floats` is the dtype that float32 in the IR stands for, `parameters` the values of the variables at the start of
    the run, `seed` an int32 scalar that differs from run to run. `steps` are the loops around, the innermost last, with
    the numbers of their steps.
    """

    sizes: Sizes
    floats: str
    parameters: Mapping[str, tf.Tensor]
    seed: tf.Tensor
    node: Node | None = None
    steps: tuple[tuple[Dim, tf.Tensor], ...] = ()
    assignments: list[Assignment] = field(default_factory=list)
    checks: Checks = field(default_factory=Checks)
    differentiable: bool = False
    """Whether gradients will be asked for."""
    taps: ProductTaps | None = None
    """In a loop's body: takes over products whose factor from outside gets its gradient after the loop."""
    consumers: Consumers = Consumers()
    forgets: bool = False
    """Whether this is computed again for gradients, so that nothing needs to be kept for them now."""
    again: Mapping[Value, Tensor] | None = None
    """Where it is computed again: the states of recurrences, which are kept."""
    fed: Mapping[Value, Fed] = field(default_factory=dict)
    """The graph's inputs, as they are fed."""
    draws_by_step: bool = False
    """Whether numbers drawn for all steps of a loop at once are those that the steps would draw one by one."""

    @property
    def step(self) -> tf.Tensor | None:
        """The number of the step of the innermost loop; None outside of loops."""
        return self.steps[-1][1] if self.steps else None

    def seed_of_step(self, seed: tf.Tensor, steps: Sequence[tuple[Dim, tf.Tensor]] = ()) -> tf.Tensor:
        """The seed of a step of all loops around, and of those in `steps` that have gone: whichever these are, a draw
        has the same numbers."""
        for _, number in sorted((*self.steps, *steps), key=lambda step: str(step[0])):
            seed = tf.random.experimental.stateless_fold_in(seed, number)
        return seed

    def dtype(self, name: str) -> tf.DType:
        """The TensorFlow dtype of an IR dtype."""
        return tf.as_dtype(self.floats if name == "float32" else name)

    def size(self, dim: Dim) -> Size:
        return self.sizes.size(dim)

    def shape(self, dims: tuple[Dim, ...]) -> list[Size]:
        """The shape of a layout, for reshaping and broadcasting."""
        return self.sizes.shape(dims)

    @property
    def where(self) -> str:
        """The layer that the node comes from: how a run-time message starts."""
        return (self.node.origin.layer or self.node.op.label) if self.node is not None else ""

    def host(self, function: Callable[..., object], name: str, *args: object, **kwargs: object) -> tf.Tensor:
        """What a function of the config returns. Raises FunctionError if it fails, or returns no tensor."""
        assert self.node is not None
        result = called(function, name, self.node.origin, *args, **kwargs)
        try:
            return tf.convert_to_tensor(result)
        except (TypeError, ValueError) as error:
            raise FunctionError(f"{self.node.origin}: {name} returned {result!r}, which is no tensor") from error

    def require(
        self, holds: Tensor, what: str, fact: str, values: Sequence[tf.Tensor] = (), advice: str = ""
    ) -> tf.Operation:
        """An operation that stops the run unless all of `holds` is true; `what` is wrong then.

        `fact` is a format of the integer `values` at one place, which have the axes of `holds`: it is told of each
        sequence where `holds` is false.
        """
        assert self.node is not None
        if self.again is not None:
            return tf.no_op()  # it held the first time
        return self.checks.require(Check(self.node.origin, what, fact, advice, holds.dims), holds.raw, values)

    def wanted(self, count: int) -> tuple[bool, ...]:
        """Which of the node's `count` results anything reads."""
        assert self.node is not None
        return tuple(output in self.consumers.used for output in self.node.outputs[:count])

    def kept_results(self) -> list[Tensor] | None:
        """The node's results, if they are kept and it is computed again."""
        assert self.node is not None
        if self.again is None or self.node.outputs[0] not in self.again:
            return None
        return [self.again[output] for output in self.node.outputs]

    def last_dim(self) -> Dim | None:
        """The dim that the node's result should have as its last axis, if that makes a difference."""
        return self.consumers.last.get(self.node.outputs[0]) if self.node is not None else None

    def random_seed(self, name: str, static: bool = False) -> tf.Tensor:
        """A stateless seed of the draw of that name in this run; with `static`, in all runs."""
        run = tf.zeros_like(self.seed) if static else self.seed
        return tf.stack([run, tf.constant(zlib.crc32(name.encode()) & 0x7FFFFFFF, tf.int32)])


Lowering = Callable[..., Tensor | tuple[Tensor, ...]]
"""(context, op, operands...) -> results."""


class Family:
    """The lowerings of one family of primitives. `@family(Softmax)` enters the function below it in `table`."""

    def __init__(self) -> None:
        self.table: dict[type[Op], Lowering] = {}

    def __call__(self, primitive: type[Op]) -> Callable[[Lowering], Lowering]:
        def enter(function: Lowering) -> Lowering:
            assert primitive not in self.table, f"{primitive.__name__} is lowered twice"
            self.table[primitive] = function
            return function

        return enter
