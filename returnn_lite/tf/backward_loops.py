"""Loops that are computed again for gradients: their states are known, so that each step is taken from these alone.

TensorFlow's gradient of a loop keeps what each step makes. Here nothing but the states is kept: the backward loop takes
each step again, the last one first, and goes back through it at once.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import tensorflow as tf

from returnn_lite.tf.context import Context
from returnn_lite.tf.gradient_rules import operations_before, with_gradient
from returnn_lite.tf.gradients import LiveTap, Tap, Taps, empty_list, find_taps
from returnn_lite.tf.layout import Tensor, move_first
from returnn_lite.tf.loops import Environment, LowerNodes, Plan, carried, initial_state, rearranged
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.stacks import stack, step_array

Tensors = list[tf.Tensor]
Gradients = list["tf.Tensor | None"]


def loop_from_states(
    c: Context, plan: Plan, environment: Environment, known: Sequence[Tensor], lower_nodes: LowerNodes
) -> tuple[Tensor, ...]:
    """The stacks of a loop, then its finals, which are all `known`, with their gradient. Its states are among them."""
    loop = plan.loop
    around = ChainMap(rearranged(loop, environment), environment)
    results = [move_first(one, loop.over) for one in known[: len(loop.stacks)]] + list(known[len(loop.stacks) :])
    elements = [move_first(around[element.whole], loop.over) for element in loop.elements]
    initial = [initial_state(c, plan, around[state.init], state.now) for state in loop.states]
    taps = find_taps(c.sizes, loop, around.__getitem__, again=True)
    steps = Steps(c, plan, around, elements, initial, results, taps, lower_nodes)
    raws = iter(steps.with_gradients())
    return tuple(replace(one, raw=next(raws), _derived={}) if one.dtype.is_floating else one for one in results)


@dataclass(frozen=True)
class StepGradient:
    """The gradient of a step as a function of its number, the states before it, the frames of elements, the gradients
    of what it gives, and lists; `gives` says of which inputs, captured tensors and lists it gives one."""

    concrete: tf.types.experimental.ConcreteFunction
    gives: Sequence[bool]

    def gradients(self, given: Tensors, captured: Tensors) -> Gradients:
        """Of states and frames, captured tensors, and lists."""
        types = [output.dtype for output in self.concrete.outputs]
        call = tf.raw_ops.PartitionedCall(args=[*given, *captured], Tout=types, f=self.concrete)
        found = iter(call if types else ())
        return [next(found) if there else None for there in self.gives]


@dataclass(frozen=True)
class Steps:
    """A loop whose stacks and finals are known: `results`, stacks with the loop's dim first, as `elements` have it."""

    c: Context
    plan: Plan
    environment: Environment
    elements: Sequence[Tensor]
    initial: Sequence[Tensor]
    results: Sequence[Tensor]
    taps: Sequence[Tap]
    lower_nodes: LowerNodes

    def with_gradients(self) -> Tensors:
        """The results that have gradients, with these."""
        step = self._traced()
        inputs = _floats([*self.elements, *self.initial])
        captured = list(step.concrete.captured_inputs)
        floats = [raw for raw in captured if raw.dtype.is_floating]
        flows = [sink.flow for tap in self.taps for sink in tap.sinks(None)]
        results = _floats(self.results)

        def rule(*upstream: tf.Tensor) -> Gradients:
            of_elements, of_initial, of_captured, of_flows = self._backward(step, captured, list(upstream), len(flows))
            wanted = [d for d, raw in zip(of_captured, captured, strict=True) if raw.dtype.is_floating]
            return [*of_elements, *of_initial, *wanted, *of_flows]

        return with_gradient(results, [*inputs, *floats, *flows], rule)[: len(results)]

    @property
    def _passed(self) -> list[int]:
        """The stacks whose gradient each step gets: those that have one and are read."""
        stacks = self.results[: len(self.plan.loop.stacks)]
        wanted = self.c.wanted(len(stacks))
        return [i for i, one in enumerate(stacks) if one.dtype.is_floating and wanted[i]]

    def _traced(self) -> StepGradient:
        """The gradient of a step, traced on what is around."""
        parts: list[list[bool]] = []
        frames = [_spec(one.raw.dtype, one.raw.shape[1:]) for one in self.elements]
        states = [_spec(one.raw.dtype, one.raw.shape) for one in self.initial]
        passed = [self.results[i].raw for i in self._passed]
        upstream = [spec for spec in states if spec.dtype.is_floating]
        upstream += [_spec(one.dtype, one.shape[1:]) for one in passed]
        lists = [_spec(tf.variant, tf.TensorShape([])) for _ in range(2 * len(self.taps))]
        count = len(frames), len(states)

        def gradient(number: tf.Tensor, *given: tf.Tensor) -> Tensors:
            now, before = list(given[: count[0]]), list(given[count[0] : sum(count)])
            flows = [empty_list(tap.weight.dtype) for tap in self.taps for _ in range(2)]
            ys = self._step(number, now, before, flows)
            captured = [inner for _, inner in tf.compat.v1.get_default_graph().captures]
            floats = [x for x in (*now, *before) if x.dtype.is_floating]
            trained = [_is_trained(outer) for outer, _ in tf.compat.v1.get_default_graph().captures]
            of_frames = [_is_trained(one.raw) for one in self.elements if one.dtype.is_floating]
            sources = [
                [x if wanted else None for x, wanted in zip_longest(floats, of_frames, fillvalue=True)],
                [x if wanted else None for x, wanted in zip(captured, trained, strict=True)],
                flows,
            ]
            own = [x for part in sources for x in part if x is not None]
            found = iter(tf.gradients(ys, own, list(given[sum(count) :])))
            made = [[None if x is None else next(found) for x in part] for part in sources]
            parts.extend([d is not None for d in part] for part in made)
            return [tf.convert_to_tensor(d) for part in made for d in part if d is not None]

        specs = [_spec(tf.int32, tf.TensorShape([])), *frames, *states, *upstream, *lists]
        concrete = tf.function(gradient, autograph=False).get_concrete_function(*specs)
        of_inputs, of_captured, of_flows = parts
        later = len(concrete.captured_inputs) - len(of_captured)  # what only the gradients read
        return StepGradient(concrete, [*of_inputs, *of_captured, *[False] * later, *of_flows])

    def _step(self, number: tf.Tensor, now: Tensors, before: Tensors, flows: Tensors) -> Tensors:
        """What a step gives and has gradients: states after it, entries of stacks, and lists."""
        loop, c = self.plan.loop, self.c
        lists = [tf.TensorArray(self.taps[i // 2].weight.dtype, flow=flow) for i, flow in enumerate(flows)]
        live = [
            LiveTap(tap, gradients, inputs, pushes=True)
            for tap, gradients, inputs in zip(self.taps, lists[::2], lists[1::2], strict=True)
        ]
        taps = Taps(live, number, self.plan.is_local)
        inner = replace(
            c,
            sizes=c.sizes.inside(loop.over, number),
            steps=(*c.steps, (loop.over, number)),
            taps=taps if live else None,
        )
        local: Environment = ChainMap({}, self.environment)
        for element, whole, raw in zip(loop.elements, self.elements, now, strict=True):
            local[element.now] = Tensor(tf.ensure_shape(raw, [d.size for d in whole.dims[1:]]), whole.dims[1:])
        for state, like, raw in zip(loop.states, self.initial, before, strict=True):
            local[state.now] = Tensor(raw, like.dims)
        self.lower_nodes(loop.body, local, inner)
        ys = [carried(inner, local[s.next], like) for s, like in zip(loop.states, self.initial, strict=True)]
        ys = [y for y in ys if y.dtype.is_floating]
        for i in self._passed:
            ys.append(broadcast(inner.sizes, local[loop.stacks[i].now], self.results[i].dims[1:]).raw)
        return [*ys, *taps.flows]

    def _backward(
        self, step: StepGradient, captured: Tensors, upstream: Tensors, flow_count: int
    ) -> tuple[Gradients, Gradients, Gradients, Tensors]:
        """The gradients of elements, initial states, captured tensors and lists."""
        count = self.c.size(self.plan.loop.over)
        of_results = dict(
            zip((i for i, one in enumerate(self.results) if one.dtype.is_floating), upstream, strict=True)
        )
        frames = len(_floats(self.elements))
        states = len(_floats(self.initial))
        has = list(step.gives)
        collected = [i for i in range(frames) if has[i]]
        summed = [i for i in range(len(captured)) if has[frames + states + i]]

        def body(left: tf.Tensor, d_states: Tensors, sums: Tensors, arrays: Any, flows: Tensors) -> Any:
            number = left - 1
            given = [number, *(whole.raw[number] for whole in self.elements), *self._before(number)]
            given += [*d_states, *(of_results[i][number] for i in self._passed), *flows]
            found = step.gradients(given, captured)
            of_frames, rest = found[:frames], found[frames:]
            new = [tf.zeros_like(d) if one is None else one for one, d in zip(rest[:states], d_states, strict=True)]
            new = [tf.ensure_shape(one, d.shape) for one, d in zip(new, d_states, strict=True)]
            of_captured = rest[states : states + len(captured)]
            sums = [tf.ensure_shape(one + of_captured[i], one.shape) for one, i in zip(sums, summed, strict=True)]
            arrays = [array.write(number, of_frames[i]) for array, i in zip(arrays, collected, strict=True)]
            pushed = rest[states + len(captured) :]
            flows = [flow if one is None else one for one, flow in zip(pushed, flows, strict=True)]
            return number, new, sums, arrays, flows

        elements = [one for one in self.elements if one.dtype.is_floating]
        variables = (
            tf.convert_to_tensor(count),
            list(self._last_gradients(of_results)),
            [tf.zeros_like(captured[i]) for i in summed],
            [step_array(elements[i].dtype, count) for i in collected],
            [empty_list(tap.weight.dtype) for tap in self.taps for _ in range(2)],
        )
        _, d_states, sums, arrays, flows = tf.while_loop(lambda left, *_: left > 0, body, variables)
        of_elements: Gradients = [None] * frames
        for i, array in zip(collected, arrays, strict=True):
            whole = elements[i]
            raw = stack(array, whole.dtype, self.c.shape(whole.dims[1:]))
            of_elements[i] = tf.ensure_shape(raw, whole.raw.shape)
        of_captured: Gradients = [None] * len(captured)
        for i, one in zip(summed, sums, strict=True):
            of_captured[i] = one
        return of_elements, d_states, of_captured, flows

    def _before(self, number: tf.Tensor) -> Iterator[tf.Tensor]:
        """The states before a step."""
        positions = {one.now: i for i, one in enumerate(self.plan.loop.stacks)}
        for state, first in zip(self.plan.loop.states, self.initial, strict=True):
            whole = self.results[positions[state.next]]
            frame = Tensor(whole.raw[tf.maximum(number - 1, 0)], whole.dims[1:], finite=whole.finite)
            yield tf.where(tf.equal(number, 0), first.raw, carried(self.c, frame, first))

    def _last_gradients(self, of_results: dict[int, tf.Tensor]) -> Iterator[tf.Tensor]:
        """The gradients of the states after the last step: those of finals."""
        loop = self.plan.loop
        for state, like in zip(loop.states, self.initial, strict=True):
            if not like.dtype.is_floating:
                continue
            total = tf.zeros_like(like.raw)
            for i, final in enumerate(loop.finals, len(loop.stacks)):
                if final.now is state.next:
                    total += Tensor(of_results[i], self.results[i].dims).in_order(like.dims)
            yield total


def _floats(tensors: Sequence[Tensor]) -> Tensors:
    return [one.raw for one in tensors if one.dtype.is_floating]


def _is_trained(tensor: tf.Tensor) -> bool:
    """Whether a tensor from around the step may get a gradient: one that inputs of the function around reach."""
    if not tensor.dtype.is_floating:
        return False
    return any(op.type == "Placeholder" for op in operations_before(tensor))


def _spec(dtype: tf.DType, shape: tf.TensorShape) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)
