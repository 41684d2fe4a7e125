"""Builds graphs: nodes are added to the innermost open loop body, or to the outermost level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from returnn_lite.dims import Dim, DimError, TensorType, display_order
from returnn_lite.dims.markers import marked
from returnn_lite.ir.frames import RealFrames
from returnn_lite.ir.graph import Graph
from returnn_lite.ir.insertion import Insertion
from returnn_lite.ir.lengths import length_as_computed
from returnn_lite.ir.nodes import Element, Ending, Loop, Node, Search, loop_node
from returnn_lite.ir.op import Op
from returnn_lite.ir.open_body import Body, InsertionPoint, OpenState
from returnn_lite.ir.ops.axes import Relabel, Squeeze
from returnn_lite.ir.ops.histories import CumConcat
from returnn_lite.ir.ops.sources import AssignParameter, Computed, Parameter, StepIndex
from returnn_lite.ir.values import Clock, Value
from returnn_lite.ir.views import View, in_graph, new_view, result_types, view_of

Added = Callable[[Op, Sequence[View], Sequence[View]], None]
"""Is told of each primitive with its operands and results."""


class Builder(Insertion, RealFrames):
    """Collects nodes, and tells `added` of each. Origins name the layer that is being built, for messages and text.

    What it gives are views of the graph's values, and what it takes may be: the graph gets the values alone.
    """

    def __init__(self, added: Added = lambda op, operands, results: None) -> None:
        super().__init__()
        self._added = added
        self._nodes: list[Node] = []
        self._inputs: list[View] = []
        self._producer: dict[Value, Node] = {}
        self._maker: dict[Dim, Node] = {}
        self._layers_with: dict[Dim, dict[str, None]] = {}
        self._names: dict[str, int] = {}
        self._checks: list[View] = []

    # Nodes

    def emit_exactly(self, op: Op, *inputs: Value) -> tuple[View, ...]:
        views = tuple([view_of(value) for value in inputs])
        types = result_types(op, views)
        labels = op.roles if len(types) > 1 and op.roles else [op.label] * len(types)
        results = tuple([new_view(self._fresh_name(name), type_) for name, type_ in zip(labels, types, strict=True)])
        operands, outputs = (tuple([view.of for view in of]) for of in (views, results))
        self._append(Node(op, operands, outputs, self.origin, self.clock))
        self._added(op, views, results)
        return results

    def _append(self, node: Node) -> None:
        if self._bodies:
            self._bodies[-1].add(node, differs=any(self.differs_by_step(value) for value in node.inputs))
        else:
            self._nodes.append(node)
        for dim in node.op.created_dims():
            self._maker[dim] = node
        given = {dim for value in node.inputs for dim in value.type.dims}
        for output in node.outputs:
            self._producer[output] = node
            for dim in output.type.dims:
                if dim not in given and dim.parts():
                    self._layers_with.setdefault(dim, {})[self.origin.layer] = None

    def _fresh_name(self, label: str) -> str:
        stem = f"{self.origin.layer}:{label}" if self.origin.layer else label
        count = self._names[stem] = self._names.get(stem, 0) + 1
        return stem if count == 1 else f"{stem}.{count}"

    def redefine(self, value: Value, op: Op) -> None:
        """Puts an op in place of the one that a value outside of all loops is a result of; the type is the same."""
        index = next(index for index, node in enumerate(self._nodes) if value in node.outputs)
        self._nodes[index] = replace(self._nodes[index], op=op)
        self._producer.update(dict.fromkeys(self._nodes[index].outputs, self._nodes[index]))

    def input(self, name: str, type_: TensorType) -> View:
        """An input of the graph, whose axes are fed in the order in which they are shown."""
        seen = marked(type_)
        fed = Value(name, seen.plain.of_dims(display_order(seen.feature_last)))
        self._inputs.append(View(fed, seen))
        return self._inputs[-1]

    @property
    def inputs(self) -> tuple[View, ...]:
        """The inputs of the graph, so far."""
        return tuple(self._inputs)

    @property
    def outermost_nodes(self) -> tuple[Node, ...]:
        """The nodes outside of all loops, so far."""
        return tuple(self._nodes)

    def producer(self, value: Value) -> Node | None:
        """The node that a value is a result of; None for inputs, elements and states."""
        return self._producer.get(value)

    def maker(self, dim: Dim) -> Node | None:
        """The node that creates a dim; None for one of the data, and for one that is computed from others."""
        return self._maker.get(dim)

    def operands_of(self, value: Value) -> tuple[Value, ...]:
        """What the node reads that a value is a result of."""
        node = self.producer(value)
        return () if node is None else node.inputs

    def computed(self, value: View) -> Computed | None:
        """A value, its axes in the order of its dims, with all that it is computed from, if that is no input, and
        nothing of a loop; else None."""
        nodes: dict[Node, None] = {}
        pending: list[tuple[Value, bool]] = [(value, False)]
        while pending:
            current, seen = pending.pop()
            node = self.producer(current)
            if node is None or isinstance(node.op, Loop | StepIndex) or node.clock:
                return None
            if seen:
                nodes[node] = None
            elif node not in nodes:
                pending += [(current, True), *((operand, False) for operand in node.inputs)]
        return Computed(Graph((), tuple(nodes), {"value": value.of}, shown={"value": value.type.dims}))

    def length(self, of: Dim, dtype: str = "int32") -> View:
        """The length of a dim. Of one that a step of an open loop makes it is computed from what makes it, so that it
        is known to vary from step to step."""
        if not self.is_made_by_step(of):
            return super().length(of, dtype)
        return self.cast(length_as_computed(self, of, self._maker), dtype)

    def is_made_by_step(self, dim: Dim) -> bool:
        """True if a step of an open loop makes the dim, so that it is unknown around the loop, and may differ from step
        to step."""
        maker = self._maker.get(dim)
        if maker is not None:
            return any(self.varies_in_loop(output) for output in maker.outputs)
        return any(self.is_made_by_step(operand) for operand in dim.operands())

    def is_made_anew(self, dim: Dim) -> bool:
        """True if a step of an open loop makes the dim from what differs from step to step."""
        maker = self._maker.get(dim)
        if maker is not None:
            return any(self.differs_by_step(output) for output in maker.outputs)
        return any(self.is_made_anew(operand) for operand in dim.operands())

    def dim_made_anew(self, value: Value) -> Dim | None:
        """A dim of a value that a step of an open loop makes from what differs from step to step."""
        return next((dim for dim in value.type.dims if self.is_made_anew(dim)), None)

    def clock_of_frames(self, value: Value) -> tuple[Dim, Clock] | None:
        """A dim of a value that is made anew by the innermost open body, in which the value is on a slower clock; and
        this clock. None if there is none: then it can be held."""
        maker = self.producer(value)
        if maker is None or not maker.clock or value not in self._bodies[-1].values:
            return None
        made = (dim for dim in value.type.dims if any(self._is_made_here(leaf) for leaf in dim.leaves))
        return next(((dim, maker.clock) for dim in made), None)

    def _is_made_here(self, dim: Dim) -> bool:
        """True if the innermost open body makes the dim anew; a loop in it does, whatever it depends on."""
        maker = self._maker.get(dim)
        if maker is None or self._bodies[-1].values.isdisjoint(maker.outputs):
            return False
        return isinstance(maker.op, Loop) or self.is_made_anew(dim)

    def lengths_over(self, dim: Dim) -> tuple[Dim, ...]:
        """The dims that a dim's length varies over; of a history with a Dim of the config, which does not say that, the
        frames that see it."""
        maker = self._maker.get(dim)
        return dim.over or ((maker.op.over,) if maker is not None and isinstance(maker.op, CumConcat) else ())

    def layers_with(self, dim: Dim) -> Iterable[str]:
        """The layers that have computed something along a dim from what has other dims: the first pooling of the
        frames by two makes half of them, and so does the second."""
        return self._layers_with.get(dim, ())

    def require_computed(self, value: View) -> None:
        """Has a value computed although nothing may use it: assertions, assignments, prints."""
        if not self._bodies:
            self._checks.append(value)
            return
        if self.clock_of_frames(value) is not None:  # all steps are asked for a value, and these frames can't be held
            frames = tuple(dim for dim in value.type.dims if any(self._is_made_here(leaf) for leaf in dim.leaves))
            value = self.reduce("any", self.cast(value, "bool"), frames)
        self._bodies[-1].checks.append(value)

    # Loops

    def element(self, whole: View, name: str | None = None) -> View:
        """whole[t] in the open body; the same value each time for the same whole. Without the loop's dim, whole
        itself."""
        body = self._open_body()
        if body.over not in whole.type:
            return self._frame_of_step(body, whole)
        if whole not in body.elements:
            now = Value(name or f"{whole.name}[{body.over.name}]", whole.of.type.without(body.over))
            body.elements[whole.of] = Element(now, whole.of)
            body.begin(now)
        now = body.elements[whole].now
        return View(now, whole.type.without(body.over))

    def takes_frames_of(self, dim: Dim) -> bool:
        """Whether each step of the innermost loop takes the frame of its number of a dim that is not its own."""
        return bool(self._bodies) and dim in self._bodies[-1].frames

    def _frame_of_step(self, body: Body, whole: View) -> View:
        """The frame for the step of a loop that ends itself; beyond the last, when its sequence has ended, any."""
        frames = next((dim for dim in body.frames if dim in whole.type), None)
        if frames is None:
            return whole
        if whole not in body.taken:
            with self.at(InsertionPoint(len(self._bodies))):  # also where a mask is asked
                body.taken[whole] = self.gather(whole, self.apply(StepIndex()), frames, clip=True)
        taken = body.taken[whole]
        new = tuple(dim for dim in taken.type.dims if dim not in whole.type)
        return taken.with_type(whole.type.of_dims((*new, *(dim for dim in whole.type.dims if dim in taken.type))))

    def delay(self, name: str, type_: TensorType, init: View, previous: str = "") -> OpenState:
        """A new State of the open body, on the current clock; set its `next` before the loop is closed. `previous`: of
        `prev:x`, the path of x."""
        return self._open_body().delay(new_view(name, marked(type_)), init, self.origin, previous)

    def hold(self, value: View, init: View) -> None:
        """Says what a value of a slower clock is before the clock's first tick."""
        self._open_body().holds[value] = init

    def keep_last(self, before: View, value: View) -> None:
        """Says that the last value of the open body is for the parameter that `before` reads; `close_loop` stacks it as
        `kept_name` says."""
        self._open_body().kept.append((before, value))

    def assign(self, before: Value, value: View, frames: Dim | None = None) -> None:
        """Has a value assigned, when the step ends, to the parameter that `before` reads, perhaps with dims squeezed or
        renamed; repeated along the dims that it lacks. `frames` is in place of dims that the parameter itself has."""
        node = self.producer(before)
        undo: list[Squeeze | Relabel] = []
        while node is not None and isinstance(node.op, Squeeze | Relabel):
            undo.append(node.op)
            node = self.producer(node.inputs[0])
        assert node is not None and isinstance(node.op, Parameter), "only a parameter can be assigned"
        for op in undo:
            value = self.expand(value, op.dim) if isinstance(op, Squeeze) else self.relabel(value, op.new, op.old)
        own = node.op.created_dims() if frames is not None else ()
        dims = tuple(frames if frames is not None and dim in own else dim for dim in node.op.dims)
        self.require_computed(self.apply(AssignParameter(node.op.name, dims), self.expand(value, *dims)))

    def ended_before(self, batch: Dim) -> list[View]:
        """For each open loop in which sequences of a batch may end, whether they had before this step.

        Raises DimError in a loop under a mask, whose sequences are at steps of their own.
        """
        found = []
        for level, body in enumerate(self._bodies, 1):
            if body.clock and level < len(self._bodies):
                raise DimError(
                    "in a loop under a mask each sequence is at a step of its own, so nothing goes over the batch: "
                    "compute it outside of the masked_computation"
                )
            if body.ended_before is not None:
                found.append(body.ended_before())
            elif batch in self.lengths_over(body.over):
                with self.at(InsertionPoint(level)):
                    found.append(self.binary("greater_equal", self.apply(StepIndex()), self.length(body.over)))
        return found

    def close_loop(
        self,
        stacks: Sequence[tuple[str, View]],
        finals: Sequence[tuple[str, View]] = (),
        ending: Ending | None = None,
        search: Search | None = None,
    ) -> dict[str, View]:
        """Ends the open body and adds its loop; returns the named stacks and finals as outer values."""
        body = self._bodies.pop()
        stacked = [*stacks, *body.checked_and_kept()]
        loop = body.loop(stacked, finals, ending, search)
        self._append(loop_node(loop, self.origin, self.clock))
        types = {name: now.type.with_dims(body.over) for name, now in stacked}
        types |= {name: now.type for name, now in finals}
        wholes = [element.whole for element in (*loop.stacks, *loop.finals)]
        outer = {whole.name: View(whole, types[whole.name]) for whole in wholes}
        for check in body.checks:
            self.require_computed(outer[body.check_name(check)])
        return outer

    def graph(self, outputs: Mapping[str, Value], checks: Iterable[Value] = ()) -> Graph:
        """Everything that was added, as a graph."""
        assert not self._bodies, "a loop body is still open"
        inputs = tuple(value.of for value in self._inputs)
        shown = {name: view_of(value).type.feature_last.dims for name, value in outputs.items()}
        results = {name: in_graph(value) for name, value in outputs.items()}
        return Graph(inputs, tuple(self._nodes), results, tuple(map(in_graph, (*self._checks, *checks))), shown)
