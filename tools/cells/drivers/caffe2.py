"""Caffe2's recurrent networks: its functions as layers here, and its results made of ours.

What it does beyond a sequence's length is its convention: states are held there, or 0 with `drop_states`. Here there is
nothing, so that is made of our results. The states of all frames are results, too: here they are in a loop only, so a
case whose objective has them runs in one, whichever way it goes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tools.cells.case import Array, Case
from tools.cells.drivers.caffe2_functions import Recurrence, cell_of, parameters_by_layer, recurrences
from tools.cells.layouts.caffe2 import STATES, of_gates
from tools.cells.layouts.layout import Layout, Tensors
from tools.cells.layouts.table import layout_of
from tools.cells.plan import Net, Plan, Shown, frames_of, last_frame, sequence

STATE = re.compile(rf"({'|'.join(STATES)})(?:_(all|last))?(?:_layer(\d+))?")
"""What an array of a state is called: which one, of all frames or the last, of which layer of a stack."""


def plan_of(case: Case, in_loop: bool) -> Plan:
    """The layer `output` is the last of the recurrences; in a loop its steps are."""
    whole = Network(case, in_loop)
    return whole.plan() if all(whole.gives(key) for key in case.below("out/")) else Network(case, True).plan()


@dataclass(frozen=True)
class Network:
    """A case as a network of ours."""

    case: Case
    in_loop: bool

    @cached_property
    def recurrences(self) -> Sequence[Recurrence]:
        """One after the other: each starts from the last states of the one before."""
        return recurrences(self.case)

    @property
    def last(self) -> Recurrence:
        return self.recurrences[-1]

    @cached_property
    def layout(self) -> Layout:
        return layout_of("caffe2", cell_of(self.case))

    @cached_property
    def keys(self) -> list[str]:
        """Of the states of the last recurrence."""
        return [scope + key for scope in self.last.scopes.values() for key in self.layout.states]

    @cached_property
    def lengths(self) -> Array:
        batch, frames = self.case.arrays["in/x"].shape[:2]
        return np.full(batch, frames) if self.case.lengths is None else self.case.lengths

    @property
    def frames(self) -> int:
        return int(self.case.arrays["in/x"].shape[1])

    def plan(self) -> Plan:
        found = sequence(self.case, "data", "in/x")
        for i, name in enumerate(self.initial_states.values()):
            found |= self._initial(f"state0_{i}", name)
        draws = {name: mask.swapaxes(0, 1) for name, mask in self.case.below("mask/").items()}
        found |= Plan(self.layers(), parameters=self.parameters, draws=draws)
        for name in self.case.keys("out/") + self.case.keys("state/"):
            short = name.partition("/")[2]
            if short == "output":
                found |= frames_of(self.case, name, ["output"])
            elif STATE.fullmatch(short) and self.gives(short):
                found |= self._state(name, *parsed(short))
        return found

    # What goes in

    @cached_property
    def initial_states(self) -> Mapping[str, str]:
        """Our keys of the states of the first recurrence that are given, each with that of the recorded array."""
        scopes, found = self.recurrences[0].scopes, {}
        for name in self.case.below("state0/"):
            state, _, layer = parsed(name)
            found[scopes[int(layer or min(scopes))] + STATES[state]] = f"state0/{name}"
        return found

    def _initial(self, key: str, recorded_key: str) -> Plan:
        """An initial state as data: [N, n], whether recorded as that, with an axis of one frame, or for all as [n]."""
        size = self.case.arrays[recorded_key].shape[-1]

        def made(recorded: Tensors) -> Any:
            return tf.broadcast_to(tf.reshape(recorded[recorded_key], (-1, size)), (len(self.lengths), size))

        entry = {"shape": (size,), "dim": size, "time_dim_axis": None}
        shown = {"class": "copy", "from": f"data:{key}", "is_output_layer": True}
        return Plan({f"first_{key}": shown}, {key: entry}, {key: made})

    def parameters(self, recorded: Tensors) -> dict[str, Any]:
        """Ours, by their full names."""
        given = {key.removeprefix("given/"): recorded[key] for key in self.case.keys("given/")}
        below = {key.removeprefix("param/"): recorded[key] for key in self.case.keys("param/")}
        layers = {0: of_gates(given)} if given else parameters_by_layer(below)
        found: dict[str, Any] = {}
        for recurrence in self.recurrences:
            steps = self.in_loop and recurrence is self.last
            layer = "output/rec/output" if steps else recurrence.name
            for number, scope in recurrence.scopes.items():
                made = self.layout.parameters(self.case.constructor, layers[number])
                found |= {f"{layer}/rec/{scope}{name}": value for name, value in made.items()}
                for state, key in STATES.items():
                    name = f"initial_{scope}{key if len(self.keys) > 1 else 'var'}"
                    if f"initial_{state}_state" in layers[number]:
                        learned = layers[number][f"initial_{state}_state"]
                        found[f"{layer}/{name}" if steps else f"{layer}/rec/{name}"] = learned
        return found

    def layers(self) -> Net:
        """`NAME_KEY` is the last state of a recurrence, `state_i` of the last one by the order of keys."""
        given: Net = {key: f"data:state0_{i}" for i, key in enumerate(self.initial_states)}
        source, layers = "data", {}
        for one in self.recurrences[:-1]:
            layers[one.name] = {"class": "rec", "unit": one.unit, "from": source, "initial_state": given or "var"}
            given, source = {}, one.name
            for key in self.layout.states:
                state = {"class": "get_last_hidden_state", "from": one.name, "key": key}
                layers[f"{one.name}_{key}"] = state
                # Caffe2 has no gradient through the states between recurrences.
                layers[f"start_{key}"] = {"class": "scaled_grad", "scale": 0, "from": f"{one.name}_{key}"}
                given[key] = f"start_{key}"
        return layers | self._last_layers(source, given)

    def _last_layers(self, source: str, given: Net) -> Net:
        base = "base:" if self.in_loop else ""
        output: Net = {"class": "rnn_cell", "from": "data:source"} if self.in_loop else {"class": "rec", "from": source}
        initial = {key: base + name for key, name in given.items()} or "var"
        layers: Net = {"output": {**output, "unit": self.last.unit, "initial_state": initial}}
        for i, key in enumerate(self.keys):
            state = {"class": "get_last_hidden_state", "key": key, "from": "output", "is_output_layer": True}
            layers[f"state_{i}"] = state
        return {"output": {"class": "rec", "from": source, "unit": layers}} if self.in_loop else layers

    # What comes out

    def gives(self, result: str) -> bool:
        """Whether this way gives a result: of a whole sequence there are all frames of the output only."""
        if self.in_loop or result == "output":
            return True
        state, part, layer = parsed(result)
        scope = self.last.scope_of_output
        return part == "last" or (self._key(state, layer) == f"{scope}h" and not scope.endswith("cell/"))

    def _key(self, state: str, layer: str | None) -> str:
        """Our key of a state, of the layer of the output if none is said."""
        scope = self.last.scope_of_output if layer is None else self.last.scopes[int(layer)]
        return scope + STATES[state]

    def _state(self, name: str, state: str, part: str, layer: str | None) -> Plan:
        """A state at all frames or at the end."""
        key = self._key(state, layer)
        last = f"state_{self.keys.index(key)}"
        sources = ["output", last] if part == "all" else [last]
        if self.in_loop:
            sources = [f"output/{last}", *self._first(key)]
        shape, drops = self.case.arrays[name].shape, bool(self.case.constructor.get("drop_states"))
        real = np.arange(self.frames) < self.lengths[:, None]

        def last_of(*values: Any) -> Any:
            return last_frame(values[0], self.lengths, *values[1:]) if self.in_loop else values[-1]

        def at_end(*values: Any) -> Any:
            last = last_of(*values)
            return tf.reshape(tf.where(real[:, -1:], last, 0.0) if drops else last, shape)

        def at_all(*values: Any) -> Any:
            frames = tf.pad(values[0], [(0, 0), (0, self.frames - tf.shape(values[0])[1]), (0, 0)])
            return tf.where(real[..., None], frames, 0.0 if drops else last_of(*values)[:, None])

        if part == "last":
            return Plan(shown={name: Shown(tuple(sources), at_end)})
        only_real = name.startswith("out/") and "t < length" in self.case.record.get("objective", "")
        return Plan(shown={name: Shown(tuple(sources), at_all, real if only_real else None)})

    def _first(self, key: str) -> list[str]:
        """The layer that is the state before the first frame, unless that is learned."""
        if len(self.recurrences) > 1:
            return [f"start_{key}"]
        return [f"first_state0_{list(self.initial_states).index(key)}"] if self.initial_states else []


def parsed(name: str) -> tuple[str, str, str | None]:
    """The state that an array is of, `all` or `last`, and the number of its layer. Raises ValueError for others."""
    match = STATE.fullmatch(name)
    if match is None:
        raise ValueError(f"there is no state {name}")
    return match[1], match[2] or "", match[3]
