"""What is expected of a layer before it is built, and whether two expectations agree."""

from __future__ import annotations

from dataclasses import dataclass

from returnn_lite.dims import DimKind, MarkedType
from returnn_lite.layers.base import Outputs


@dataclass(frozen=True)
class Expectation:
    """What a layer is expected to make; None if nothing is known.

    `tried` if its own `build` says so, not its options; `unknown` is how many of its references had no type then.
    `knows_itself` if what it made the step before has no dims but these: to try it again with that would say nothing.
    """

    outputs: Outputs | None
    tried: bool = False
    unknown: int = 0
    knows_itself: bool = False

    def says_more_than(self, other: Expectation) -> bool:
        """Whether this is a step forward: a layer takes finitely many, so that looking at a cycle ends."""
        if self.outputs is None or other.outputs is None:
            return self.outputs is not None
        if self.tried is not other.tried:
            return self.tried
        if self.unknown != other.unknown:
            return self.unknown < other.unknown
        return set(self.outputs.value.type.dims) > set(other.outputs.value.type.dims)


def same_outputs(one: Outputs | None, other: Outputs | None) -> bool:
    """Whether the types of what two layers make are the same, but for hypotheses."""
    if one is None or other is None:
        return one is other
    if one.parts.keys() != other.parts.keys() or not same_type(one.value.type, other.value.type):
        return False
    return all(same_type(part.type, other.parts[name].type) for name, part in one.parts.items())


def same_type(one: MarkedType, other: MarkedType) -> bool:
    """Whether two types are the same, but for hypotheses and the order of dims."""
    dims = [{dim for dim in type_.dims if dim.kind is not DimKind.BEAM} for type_ in (one, other)]
    kinds = [(type_.dtype, type_.sparse, type_.feature, type_.time) for type_ in (one, other)]
    return dims[0] == dims[1] and kinds[0] == kinds[1]
