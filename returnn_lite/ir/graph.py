"""Graphs: nodes between inputs and named outputs, and their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from returnn_lite.dims import Dim, display_order
from returnn_lite.ir.nodes import Loop, Node, Recompute, stack_dim
from returnn_lite.ir.text import Writer, application_text
from returnn_lite.ir.values import Clock, Value


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in dependency order between inputs and named outputs.

    `checks` are values that must be computed although nothing else uses them: runtime assertions and effects (print).
    `shown` has the order of dims in which an output is shown, where one is declared; passes may add dims. `beyond` has
    for an output the one that stands beyond the ends of its sequences where it is shown, if that is not zero.
    """

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: dict[str, Value] = field(default_factory=dict)
    checks: tuple[Value, ...] = ()
    shown: Mapping[str, tuple[Dim, ...]] = field(default_factory=dict)
    beyond: Mapping[str, str] = field(default_factory=dict)

    def results(self) -> tuple[Value, ...]:
        """What must be computed: the outputs and the checks."""
        return (*self.outputs.values(), *self.checks)

    def axes(self, output: str) -> tuple[Dim, ...]:
        """The axes of an output as users see them: batch, beam, what passes have added, then the dims as declared."""
        type_ = self.outputs[output].type
        declared = tuple(dim for dim in self.shown.get(output, ()) if dim in type_)
        added = tuple(dim for dim in type_.dims if dim not in declared)
        return display_order(type_.of_dims((*added, *declared)))

    def end_of(self, output: str) -> tuple[str, Dim] | None:
        """The output that stands beyond the ends of the sequences of another one, and the dim of these; None if that
        is zero."""
        name = self.beyond.get(output)
        if name is None or name not in self.outputs:
            return None
        (over,) = (dim for dim in self.outputs[output].type.dims if dim not in self.outputs[name].type)
        return name, over

    def __str__(self) -> str:
        writer = Writer()
        for value in self.inputs:
            writer.line(f"{writer.bind(value)} = input", [value.type])
        _write(self.nodes, writer)
        for name, value in self.outputs.items():
            writer.line(f"return {name} = {writer.name(value)}")
        return "\n".join(writer.lines)


def text_of(nodes: Iterable[Node], indent: str = "") -> str:
    """IR text of some nodes; see `ir/text.py`."""
    writer = Writer()
    with writer.level(indent):
        _write(nodes, writer)
    return "\n".join(writer.lines)


def _write(nodes: Iterable[Node], writer: Writer) -> None:
    for node in nodes:
        if isinstance(node.op, Loop):
            _write_loop(node, node.op, writer)
        elif isinstance(node.op, Recompute):
            writer.line("recompute {")
            with writer.indented():
                _write(node.op.body, writer)
            writer.line("}")
        elif not writer.quotes(node.outputs[0], node.op.literal):
            _write_node(node, writer)


def _write_node(node: Node, writer: Writer) -> None:
    operands = writer.names(node.inputs)
    names = ", ".join(writer.bind(output, node.op.result_name) for output in node.outputs)
    left = f"{names} = {application_text(node.op, operands, names)}{_when(node.clock, writer)}"
    writer.line(left, [output.type for output in node.outputs], writer.known_type(node.inputs))


def _write_loop(node: Node, loop: Loop, writer: Writer) -> None:
    unrolled = f" unroll {loop.unroll or 'all'}" if loop.unroll != 1 else ""
    writer.line(f"loop {loop.over.name}{unrolled}{_when(node.clock, writer)} {{")
    collected: list[tuple[Value, str]] = []
    with writer.level():
        for element in loop.elements:
            whole = writer.name(element.whole)
            is_named = element.now.name not in (element.whole.name, f"{element.whole.name}[{loop.over.name}]")
            now = writer.bind(element.now, "" if is_named else f"{whole}[t]")
            writer.line(f"{now} = {whole}[{stack_dim(loop, element).name}]")
        for state in loop.states:
            writer.bind(state.now)
        for state in loop.states:
            left = f"{writer.name(state.now)} = delay({writer.names((state.next, state.init))})"
            writer.line(left + _when(state.clock, writer), [state.now.type])
        _write(loop.body, writer)
        if loop.ending is not None:
            counted = ", counting the end" if loop.ending.include_end else ""
            ended, most = writer.name(loop.ending.ended), writer.name(loop.ending.max_steps)
            writer.line(f"until {ended} or {most} steps{counted}")
        collected += [(e.whole, f"stack({writer.name(e.now)}){_when(e.clock, writer)}") for e in loop.stacks]
        collected += [(e.whole, f"final({writer.name(e.now)})") for e in loop.finals]
    names = [writer.bind(whole) for whole, _ in collected]
    with writer.level():
        for name, (_, right) in zip(names, collected, strict=True):
            writer.line(f"{name} = {right}")
    writer.line("}")


def _when(clock: Clock, writer: Writer) -> str:
    return "".join(f" when {writer.name(mask.value)}" for mask in clock)
