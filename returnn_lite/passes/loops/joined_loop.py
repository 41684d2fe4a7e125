"""Several loops over the same steps as one: what one stacks for another is read in the step, delays become states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from returnn_lite.ir import Element, Loop, Node, State, Value
from returnn_lite.ir.substitution import Substitution
from returnn_lite.passes.loops.shared_frames import Frame, SharedFrames


def joined_loop(nodes: Sequence[Node], frames: SharedFrames) -> Node:
    """The loops, in dependency order, as one. `frames` are those that loops read of each other."""
    joined = _Joined(set(nodes), frames)
    for node in nodes:
        assert isinstance(node.op, Loop)
        joined.add(node.op)
    return nodes[0].with_loop(joined.loop())


class _Joined:
    """The loop so far."""

    def __init__(self, nodes: set[Node], frames: SharedFrames) -> None:
        self.nodes = nodes
        self.frames = frames
        self.parts: list[Loop] = []
        self._given: dict[Value, Value] = {}
        self._inside = Substitution()
        self._delays: list[State] = []
        self._states: dict[tuple[Value, Value], list[State]] = {}
        """All states so far, by what they are next and first."""

    def add(self, loop: Loop) -> None:
        """Adds one loop."""
        own: list[Element] = []
        for element in loop.elements:
            if element.whole not in self._given:
                frame = self.frames.of(element.whole)
                if frame is not None and frame.loop in self.nodes:
                    self._given[element.whole] = self._frame(frame)
                else:
                    own.append(element)
                    self._given[element.whole] = element.now
            self._inside.replace({element.now: self._given[element.whole]})
        delays, self._delays = self._delays, []
        part = self._inside.loop(loop, [self._inside.node(node) for node in loop.body])
        for state in part.states:
            self._states.setdefault((state.next, state.init), []).append(state)
        self.parts.append(replace(part, elements=tuple(own), states=(*delays, *part.states)))

    def loop(self) -> Loop:
        """All that was added as one loop."""
        parts = self.parts
        return Loop(
            parts[0].over,
            tuple(element for part in parts for element in part.elements),
            tuple(state for part in parts for state in part.states),
            tuple(stack for part in parts for stack in part.stacks),
            tuple(node for part in parts for node in part.body),
            tuple(final for part in parts for final in part.finals),
            holds=tuple(hold for part in parts for hold in part.holds),
            unroll=parts[0].unroll,
        )

    def _frame(self, frame: Frame) -> Value:
        """What a frame that one of the loops makes is in the step."""
        now = self._inside.value(frame.now)
        for delay in reversed(list(frame.delays())):
            now = self._before(delay, now)
        return now

    def _before(self, delay: Node, following: Value) -> Value:
        """The state that a delay is, one that is there already if it is the same."""
        init = delay.inputs[1]
        type_ = delay.output.type.without(self.parts[0].over)
        known = self._states.setdefault((following, init), [])
        same = next((state.now for state in known if state.now.type == type_), None)
        if same is not None:
            return same
        state = State(delay.output.of_type(type_), init, following, origin=delay.origin)
        known.append(state)
        self._delays.append(state)
        return state.now
