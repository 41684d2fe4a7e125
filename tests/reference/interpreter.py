"""Runs graphs with the reference meaning of their primitives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from returnn_lite.ir import Graph, Loop, Node, Value
from returnn_lite.ir.ops.search import BeamGather, Choose, Decide, FirstBeam
from returnn_lite.ir.ops.sources import Parameter, StepIndex
from tests.reference.named import Array, Lengths, Named, poisoned
from tests.reference.primitives import PRIMITIVES, Rule, stacked
from tests.reference.search import beam_gather, choose, decide, first_beam

RULES: Mapping[type, Rule] = {
    **PRIMITIVES,
    Choose: choose,
    FirstBeam: first_beam,
    BeamGather: beam_gather,
    Decide: decide,
}
Environment = dict[Value, Named]


def interpret(
    graph: Graph, inputs: Mapping[str, Array], lengths: Lengths, parameters: Mapping[str, Array]
) -> dict[str, Named]:
    """The outputs of a graph. `inputs` have the axes in the order of their types."""
    environment: Environment = {}
    for value in graph.inputs:
        environment[value] = poisoned(Named(np.asarray(inputs[value.name]), value.type.dims), lengths)
    _run(graph.nodes, environment, lengths, parameters, None)
    return {name: environment[value] for name, value in graph.outputs.items()}


def _run(
    nodes: Iterable[Node], environment: Environment, lengths: Lengths, parameters: Mapping[str, Array], step: int | None
) -> None:
    for node in nodes:
        inputs = [environment[value] for value in node.inputs]
        results: Any
        if isinstance(node.op, Loop):
            results = _loop(node.op, environment, lengths, parameters)
        elif isinstance(node.op, Parameter):
            results = Named(np.asarray(parameters[node.op.name]), node.op.dims)
        elif isinstance(node.op, StepIndex):
            assert step is not None
            results = Named(np.array(step), ())
        else:
            with np.errstate(all="ignore"):
                results = RULES[type(node.op)](node.op, lengths, *inputs)
        results = results if isinstance(results, tuple) else (results,)
        for output, result in zip(node.outputs, results, strict=True):
            assert set(result.dims) <= set(output.type.dims), (node.op, output, result.dims)
            full = Named(result.full(output.type.dims, lengths), output.type.dims)
            environment[output] = poisoned(full, lengths)


def _loop(loop: Loop, environment: Environment, lengths: Lengths, parameters: Mapping[str, Array]) -> tuple[Named, ...]:
    """Runs the body step by step, for as long as the loop's dim or its ending says."""
    states = {state.now: environment[state.init] for state in loop.states}
    most = lengths.size(loop.over) if loop.ending is None else int(environment[loop.ending.max_steps].array.max())
    history: list[Environment] = []
    varying = [dim for dim, length in lengths.known.items() if loop.over in length.dims]
    for step in range(most):
        inner = Lengths(dict(lengths.known))
        for dim in varying:
            length = lengths.known[dim]
            rest = tuple(d for d in length.dims if d != loop.over)
            inner.known[dim] = Named(length.array.take(step, length.axis(loop.over)), rest)
        body: Environment = dict(environment)
        for element in loop.elements:
            whole = environment[element.whole]
            frame = whole.array.take(step, whole.axis(loop.over))
            body[element.now] = Named(frame, tuple(d for d in whole.dims if d != loop.over))
        body.update(states)
        _run(loop.body, body, inner, parameters, step)
        created = {d: v for d, v in inner.known.items() if d not in lengths.known or d in _created(loop)}
        body["lengths"] = created  # type: ignore[index, assignment]
        history.append(body)
        states = {state.now: _spread(body[state.next], state.now, inner) for state in loop.states}
        if loop.ending is not None and body[loop.ending.ended].array.all():
            break
    return _results(loop, history, lengths)


def _created(loop: Loop) -> set[Any]:
    return {dim for node in loop.body for dim in node.op.created_dims()}


def _spread(value: Named, state: Value, lengths: Lengths) -> Named:
    return (
        Named(value.full(state.type.dims, lengths), state.type.dims)
        if set(value.dims) != set(state.type.dims)
        else value
    )


def _results(loop: Loop, history: list[Environment], lengths: Lengths) -> tuple[Named, ...]:
    trace = _trace(loop, history)
    for dim in _created(loop):
        frames = [body["lengths"][dim] for body in history]  # type: ignore[index, call-overload]
        lengths.known[dim] = stacked([_traced(f, t, loop) for f, t in zip(frames, trace, strict=True)], loop.over)
    if loop.ending is not None:
        ended = [_traced(body[loop.ending.ended], t, loop) for body, t in zip(history, trace, strict=True)]
        over = stacked(ended, loop.over)
        counted = (
            ~over.array
            if not loop.ending.include_end
            else np.concatenate([np.ones_like(over.array[:1]), ~over.array])[:-1]
        )
        lengths.known[loop.over] = Named(counted.sum(0), over.dims[1:])
    stacks = []
    for stack in loop.stacks:
        frames = [_traced(body[stack.now], t, loop) for body, t in zip(history, trace, strict=True)]
        if not frames:
            shape = [0 if d == loop.over else lengths.size(d) for d in stack.whole.type.dims]
            stacks.append(Named(np.zeros(shape, stack.whole.type.dtype), stack.whole.type.dims))
            continue
        whole = stacked(frames, loop.over)
        stacks.append(Named(whole.array[: lengths.size(loop.over)], whole.dims))
    return (*stacks, *(history[-1][final.now] for final in loop.finals))


def _trace(loop: Loop, history: list[Environment]) -> list[Named | None]:
    """For each step the hypotheses that those at the end come from."""
    if loop.back_pointers is None or not history:
        return [None] * len(history)
    last = history[-1][loop.back_pointers]
    (beam,) = (dim for dim in last.dims if dim.kind.value == "beam")
    size = last.array.shape[last.axis(beam)]
    shape = [size if d == beam else n for d, n in zip(last.dims, last.array.shape, strict=True)]
    alive = Named(
        np.broadcast_to(np.arange(size).reshape([-1 if d == beam else 1 for d in last.dims]), shape), last.dims
    )
    trace: list[Named | None] = []
    for body in reversed(history):
        trace.append(alive)
        alive = beam_gather(BeamGather(beam), Lengths(), body[loop.back_pointers], alive)
    return trace[::-1]


def _traced(value: Named, alive: Named | None, loop: Loop) -> Named:
    if alive is None:
        return value
    (beam,) = (dim for dim in alive.dims if dim.kind.value == "beam")
    return beam_gather(BeamGather(beam), Lengths(), value, alive) if beam in value.dims else value
