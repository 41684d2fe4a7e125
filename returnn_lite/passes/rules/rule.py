"""A rule: what it says, and what it puts in place of a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from returnn_lite.ir import Node, Op, Value

ProducerOf = Callable[[Value], Node | None]
"""The node that makes a value, if a rule may look through it: one on the clock of the node that is rewritten, or one
outside of the loop."""


@dataclass(frozen=True)
class Application:
    """A primitive on operands that may have to be made, too."""

    op: Op
    operands: tuple[Expression, ...] = ()


Expression = Value | Application


@dataclass(frozen=True)
class Rule:
    """`rewrite` gives what stands for a node of one result, or None where the rule does not apply; it is asked about
    the nodes of one class of primitives, or of one primitive.

    What it gives may lack dims of the result that are only broadcast: they are added. `text` says the rule to people.
    """

    text: str
    on: type[Op] | Op
    rewrite: Callable[[Node, ProducerOf], Expression | None]
