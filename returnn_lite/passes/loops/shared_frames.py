"""Which sequences of one level other loops can read frame by frame, while the loop that makes them runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from returnn_lite.dims import Dim
from returnn_lite.ir import Loop, Node, Value


@dataclass(frozen=True, eq=False)
class Frame:
    """A sequence that others can read frame by frame in the body of the loop that makes it: a value that it stacks, or,
    with `before`, the frame before by a delay."""

    loop: Node
    now: Value
    delay: Node | None = None
    before: Frame | None = None

    @property
    def over(self) -> Dim:
        """The dim of its loop's steps."""
        assert isinstance(self.loop.op, Loop)
        return self.loop.op.over

    def first(self) -> list[Value]:
        """What it was before the first steps."""
        return [delay.inputs[1] for delay in self.delays()]

    def delays(self) -> Iterator[Node]:
        """The delays since the stack, the last one first."""
        frame: Frame | None = self
        while frame is not None and frame.delay is not None:
            yield frame.delay
            frame = frame.before


class SharedFrames:
    """Those of the nodes so far."""

    def __init__(self) -> None:
        self._frames: dict[Value, Frame] = {}
        self._read: dict[Node, dict[Value, Frame]] = {}

    def of(self, sequence: Value) -> Frame | None:
        """What a frame of a sequence is in the loop that makes it, if it can be read there."""
        return self._frames.get(sequence)

    def add_loop(self, node: Node, loop: Loop) -> None:
        """Adds what a loop stacks."""
        self._frames |= {stack.whole: Frame(node, stack.now) for stack in loop.stacks}

    def add(self, node: Node) -> None:
        """Adds what another node makes, if it delays such a sequence."""
        frame = self._frames.get(node.inputs[0]) if node.inputs else None
        if frame is not None and node.op.delays_along == frame.over:
            self._frames[node.output] = Frame(frame.loop, frame.now, node, frame)

    def read_by(self, node: Node) -> dict[Value, Frame]:
        """The frames of loops over the same steps that a loop reads by its elements alone; looked up once, when all of
        them are here."""
        if node not in self._read:
            self._read[node] = self._found(node)
        return self._read[node]

    def _found(self, node: Node) -> dict[Value, Frame]:
        loop = node.op
        assert isinstance(loop, Loop)
        whole = {*(state.init for state in loop.states), *(init for _, init in loop.holds), *loop.free_values()}
        return {
            element.whole: frame
            for element in loop.elements
            if (frame := self._frames.get(element.whole)) is not None
            and (frame.over, frame.loop.clock) == (loop.over, node.clock)
            and element.whole not in whole
        }
