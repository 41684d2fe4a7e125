"""What went into the function that made a value: losses and choices compute from logits, not from probabilities.

It goes with the value, from layer to layer and into networks inside of layers, as long as nothing but the names
of its dims or its precision changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from returnn_lite.dims import Dim
from returnn_lite.ir import Op
from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.ops.axes import Relabel
from returnn_lite.ir.ops.elementwise import AsIndex, Cast, Elementwise
from returnn_lite.ir.ops.reduction import Softmax
from returnn_lite.ir.views import View

SIGMOID = Elementwise("sigmoid")


@dataclass(frozen=True)
class Preactivation:
    """What a function was given. `op` is the function if it is a softmax or a sigmoid; `renamed` are the dims that have
    had other names since, `feature` the feature dim of what it made. `of_activation` is true of an option such as
    `activation`, and of a softmax."""

    before: View
    feature: Dim | None
    op: Op | None = None
    of_activation: bool = False
    renamed: tuple[Relabel, ...] = ()

    def as_now(self, b: Expressions) -> View:
        """It with the dims as they are called now."""
        value = b.with_feature(self.before, self.feature)
        for op in self.renamed:
            value = b.apply(op, value)
        return value


class Preactivations:
    """Those of a network that is being built, by what the functions made."""

    def __init__(self) -> None:
        self._known: dict[View, Preactivation] = {}

    def follow(self, op: Op, operands: Sequence[View], results: Sequence[View]) -> None:
        """Notes what a primitive says about its result."""
        if isinstance(op, Softmax) and not op.log:
            self._known[results[0]] = Preactivation(operands[0], op.over, op, of_activation=True)
        elif op == SIGMOID:
            self._known[results[0]] = Preactivation(operands[0], operands[0].type.feature, op)
        elif isinstance(op, Relabel | Cast | AsIndex) and results[0].type.is_float:
            known = self._known.get(operands[0])
            if known is not None and isinstance(op, Relabel):
                known = replace(known, renamed=(*known.renamed, op))
            if known is not None:
                self._known[results[0]] = known

    def activated(self, before: View, after: View) -> None:
        """Notes that the option `activation` of a layer made one value from another."""
        known = self._known.get(after, Preactivation(before, after.type.feature))
        self._known[after] = replace(known, of_activation=True)

    def logits(self, b: Expressions, value: View) -> View | None:
        """What went into the softmax over the features that made a value; None if none did."""
        found = self._known.get(value)
        if found is None or not isinstance(found.op, Softmax):
            return None
        over = found.op.over
        for op in found.renamed:
            over = over.substitute({op.old: op.new})
        return found.as_now(b) if over == value.type.feature else None

    def before_sigmoid(self, b: Expressions, value: View) -> View | None:
        """What went into the sigmoid that made a value; None if none did."""
        found = self._known.get(value)
        return None if found is None or found.op != SIGMOID else found.as_now(b)

    def before_activation(self, b: Expressions, value: View) -> View | None:
        """What went into the activation function that made a value; None if none did."""
        found = self._known.get(value)
        return None if found is None or not found.of_activation else found.as_now(b)
