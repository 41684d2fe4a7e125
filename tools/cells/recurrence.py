"""One cell of another system over a sequence, as layers of ours: through `rec`, or step by step through `rnn_cell`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tools.cells.case import Case, Constructor
from tools.cells.layouts.layout import StateLayout, Tensors
from tools.cells.layouts.table import layout_of, masks, ours, state_keys, state_sizes
from tools.cells.plan import Net, Plan, Shown, entry_of, last_frame
from tools.cells.units import unit_of


@dataclass(frozen=True)
class Recurrence:
    """The layer `name` is the output of the cell, over the layer `source`; its other layers have names that begin so.

    `before` and `after` are the recorded keys of the initial and the final states, in the order of the other system;
    `parameters` those of the parameters. A cell under a `mask` runs at its frames only, and holds what it has.
    """

    name: str
    constructor: Constructor
    source: str | Sequence[str]
    parameters: Sequence[str]
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    reverse: bool = False
    mask: str = ""

    def plan(self, case: Case, in_loop: bool) -> Plan:
        """Layers, initial states, parameters, dropout masks and final states."""
        keys = state_keys(case.system, self.constructor)
        unit = unit_of(case.system, self.constructor)
        given = self.given(case)
        layers, scope = self._in_loop(unit, keys, given) if in_loop else self._whole(unit, keys, given)
        return self._with(case, layers, scope, f"{self._steps}/" if in_loop else "")

    def part_of(self, case: Case, layer: str, path: str) -> Plan:
        """The same without a layer of its own: its states and parameters are below a path of another."""
        keys = [f"{path}/{key}" for key in state_keys(case.system, self.constructor)]
        return self._with(case, self._states(keys, layer), f"{layer}/rec/{path}/", "")

    def given(self, case: Case) -> dict[str, str]:
        """The layers of the initial states by their keys."""
        keys = state_keys(case.system, self.constructor) if self.before else []
        return {key: f"data:{self._data(i)}" for i, key in enumerate(keys)}

    def _with(self, case: Case, layers: Net, scope: str, folder: str) -> Plan:
        """Layers and what belongs to them: parameters below a scope, final states in a folder of outputs."""
        keys = state_keys(case.system, self.constructor)

        def parameters(recorded: Tensors) -> dict[str, Any]:
            own = {key.removeprefix("param/"): recorded[key] for key in self.parameters}
            return {scope + name: value for name, value in ours(case.system, self.constructor, own).items()}

        recorded = {name: mask for name, mask in case.below("mask/").items() if name != "in"}
        draws = masks(case.system, self.constructor, recorded)
        shown = self._final(case, keys, folder)
        return self._initial(case, keys) | Plan(layers, parameters=parameters, draws=draws, shown=shown)

    def _data(self, place: int) -> str:
        return f"{self.name}_before_{place}"

    def _initial(self, case: Case, keys: Sequence[str]) -> Plan:
        """The initial states as data; one that is all of them joined is cut."""
        if not self.before:
            return Plan()
        layout = layout_of(case.system, self.constructor["class"]).of_states
        if layout is not None:
            return self._converted(case, layout, len(keys))
        arrays = [case.arrays[key] for key in self.before]
        joined = len(arrays) != len(keys)
        sizes = state_sizes(case.system, self.constructor, arrays[0].shape[-1]) if joined else []
        found = Plan()
        for i in range(len(keys)):
            start = sum(sizes[:i])

            def made(recorded: Tensors, i: int = i, start: int = start) -> Any:
                if joined:
                    return recorded[self.before[0]][..., start : start + sizes[i]]
                return recorded[self.before[i]]

            array = arrays[0][..., start : start + sizes[i]] if joined else arrays[i]
            found |= Plan(extern_data={self._data(i): entry_of(array, frames=False)}, feeds={self._data(i): made})
        return found

    def _converted(self, case: Case, layout: StateLayout, count: int) -> Plan:
        """The initial states as data that is made of all that were recorded."""
        found = Plan()
        for i in range(count):

            def made(recorded: Tensors, i: int = i) -> Any:
                return layout.ours(self.constructor, [recorded[key] for key in self.before])[i]

            entry = entry_of(np.asarray(made(case.arrays)), frames=False)
            found |= Plan(extern_data={self._data(i): entry}, feeds={self._data(i): made})
        return found

    def _final(self, case: Case, keys: Sequence[str], folder: str) -> dict[str, Shown]:
        """What the final states are made of."""
        layers = [f"{folder}{self.name}_state_{i}" for i in range(len(keys))]

        def joined(*values: Any) -> Any:
            return tf.concat([final(value) for value in values], -1)

        def final(value: Any, before: str = "") -> Any:
            return last_frame(value, case.lengths, case.arrays[before] if before else None) if folder else value

        layout = layout_of(case.system, self.constructor["class"]).of_states
        if layout is not None:
            return self._recorded_of(case, layout, layers, bool(folder))
        if len(self.after) != len(keys):
            return {key: Shown(tuple(layers), joined) for key in self.after}
        firsts = self.before if len(self.before) == len(keys) else [""] * len(keys)
        return {
            key: Shown((layer,), lambda value, before=first: final(value, before))
            for key, layer, first in zip(self.after, layers, firsts, strict=True)
        }

    def _recorded_of(self, case: Case, layout: StateLayout, layers: Sequence[str], of_frames: bool) -> dict[str, Shown]:
        """What each final state is made of, of all of ours."""
        before = [case.arrays[key] for key in self.before]
        firsts = layout.ours(self.constructor, before) if before else [None] * len(layers)

        def made(*values: Any, place: int) -> Any:
            if of_frames:
                values = tuple(
                    last_frame(value, case.lengths, first) for value, first in zip(values, firsts, strict=True)
                )
            return layout.theirs(self.constructor, values)[place]

        return {key: Shown(tuple(layers), partial(made, place=i)) for i, key in enumerate(self.after)}

    @property
    def _steps(self) -> str:
        """The name of the loop: turned round, it has not the name of the result."""
        return f"{self.name}_steps" if self.reverse else self.name

    def _states(self, keys: Sequence[str], of: str) -> Net:
        layer = {"class": "get_last_hidden_state", "from": of, "is_output_layer": True}
        return {f"{self.name}_state_{i}": {**layer, "key": key} for i, key in enumerate(keys)}

    def _whole(self, unit: Net, keys: Sequence[str], given: Mapping[str, str]) -> tuple[Net, str]:
        """The layers over whole sequences, and where the parameters of the cell are."""
        options: Net = {"class": "rec", "unit": unit, "is_output_layer": True}
        options |= {"initial_state": dict(given)} if given else {}
        options |= {"direction": -1} if self.reverse else {}
        if not self.mask:
            return {self.name: {**options, "from": self.source}, **self._states(keys, self.name)}, f"{self.name}/rec/"
        masked = f"{self.name}_masked"
        unit_layer = {name: value for name, value in options.items() if name != "is_output_layer"} | {"from": "data"}
        layers = {
            masked: {"class": "masked_computation", "mask": self.mask, "from": self.source, "unit": unit_layer},
            self.name: {"class": "unmask", "from": masked, "mask": self.mask, "is_output_layer": True},
        }
        return {**layers, **self._states(keys, masked)}, f"{masked}/rec/"

    def _in_loop(self, unit: Net, keys: Sequence[str], given: Mapping[str, str]) -> tuple[Net, str]:
        """The same with a loop over steps; backwards over the reversed sequence."""
        cell: Net = {"class": "rnn_cell", "unit": unit, "from": "data:source"}
        cell |= {"initial_state": {key: f"base:{layer}" for key, layer in given.items()}} if given else {}
        turned: Net = {}

        def turn(layer: str) -> str:
            if not self.reverse:
                return layer
            name = f"{self.name}_turned_{len(turned)}"
            turned[name] = {"class": "slice", "from": layer, "axis": "T", "slice_step": -1}
            return name

        sources = [self.source] if isinstance(self.source, str) else list(self.source)
        sources = [turn(source) for source in sources]
        body = {"output": cell, **self._states(keys, "output")}
        loop = {"class": "rec", "from": sources, "unit": body, "is_output_layer": True}
        if len(sources) > 1 and not self.mask:
            loop["from"] = sources[0]
            frames = {f"input_{i}": {"class": "rec_unstack", "from": f"base:{one}"} for i, one in enumerate(sources)}
            body |= frames
            cell["from"] = list(frames)
        if self.mask:
            body["mask"] = {"class": "rec_unstack", "from": f"base:{turn(self.mask)}"}
            masked = {"class": "masked_computation", "mask": "mask", "from": "data:source"}
            body["output"] = {**masked, "unit": {**cell, "from": "data"}}
        layers = {**turned, self._steps: loop}
        if self.reverse:
            back = {"class": "slice", "from": self._steps, "axis": "T", "slice_step": -1, "is_output_layer": True}
            layers[self.name] = back
        return layers, f"{self._steps}/rec/output/rec/"
