"""Caffe2's recurrent networks with attention, as layers here.

Beyond a decoder's length Caffe2 holds h and c, and goes on computing the context and the coverage from them. Here there
is nothing: h and c are held by what is compared, and so is the context where it is made of h alone (regular, dot). What
else Caffe2 has there is compared with nothing. Both are equal where a sequence has all frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tools.cells.case import Array, Case
from tools.cells.layouts import attention, caffe2
from tools.cells.layouts.layout import Tensors
from tools.cells.layouts.table import layout_of
from tools.cells.plan import Net, Plan, Shown, entry_of, last_frame, sequence

ENCODER, KEYS = "in/encoder_outputs", "in/weighted_encoder_outputs"


def plan_of(case: Case, in_loop: bool) -> Plan:
    """The layer `output` is the decoder; in a loop its steps are."""
    return Decoder(case, in_loop).plan()


@dataclass(frozen=True)
class Decoder:
    """A case as a network of ours; the output of a whole sequence is [h; context] at all frames."""

    case: Case
    in_loop: bool

    @cached_property
    def cell(self) -> str:
        """That of `AttentionCell(MILSTMCell)`; else an LSTM."""
        inside = str(self.case.constructor["function"]).rstrip(")").partition("(")[2]
        return inside.removesuffix("Cell") or "LSTM"

    @property
    def is_lstm_with_attention(self) -> bool:
        return "(" not in str(self.case.constructor["function"])

    @property
    def scope(self) -> str:
        """What our names of the states and parameters of the cell inside begin with."""
        return "" if self.is_lstm_with_attention else "cell/"

    @cached_property
    def kind(self) -> str:
        return str(self.case.constructor["attention_type"])

    @cached_property
    def states(self) -> dict[str, str]:
        """Our keys by what recorded arrays are called."""
        own = {name: self.scope + key for name, key in caffe2.STATES.items()}
        return own | {name: key for name, key in attention.STATES.items() if name != "coverage" or self.has_coverage}

    @property
    def has_coverage(self) -> bool:
        return self.kind == "SoftCoverage"

    @property
    def frames(self) -> int:
        return int(self.case.arrays["in/x"].shape[1])

    @property
    def units(self) -> int:
        return int(self.case.constructor["decoder_state_dim"])

    @cached_property
    def lengths(self) -> Array:
        batch = self.case.arrays["in/x"].shape[0]
        return np.full(batch, self.frames) if self.case.lengths is None else self.case.lengths

    @cached_property
    def lengths_of_encoder(self) -> Array:
        batch, frames = self.case.arrays[ENCODER].shape[:2]
        return self.case.arrays.get("encoder_lengths", np.full(batch, frames))

    def plan(self) -> Plan:
        found = sequence(self.case, "data", "in/x") | self._encoder("encoder", ENCODER)
        if KEYS in self.case.arrays:
            found |= self._encoder("keys", KEYS)
        for name in self.case.below("state0/"):
            found |= self._initial(name)
        found |= Plan(self._layers(), parameters=self._parameters)
        for key in self.case.keys("out/") + self.case.keys("state/"):
            found |= self._shown(key)
        return found

    # What goes in

    def _encoder(self, name: str, key: str) -> Plan:
        """Frames of the encoder, or their keys, as data."""
        entry = entry_of(self.case.arrays[key], frames=True, like="" if key == ENCODER else "encoder")
        lengths = {name: self.lengths_of_encoder} if key == ENCODER else {}
        return Plan(extern_data={name: entry}, feeds={name: lambda recorded: recorded[key]}, lengths=lengths)

    def _initial(self, name: str) -> Plan:
        """An initial state as data: [1, N, n], [N, n], or for all sequences [n]."""
        size, key = self.case.arrays[f"state0/{name}"].shape[-1], f"{name}_before"
        entry = {"shape": (size,), "dim": size, "time_dim_axis": None}
        shown = {"class": "copy", "from": f"data:{key}", "is_output_layer": True}

        def made(recorded: Tensors) -> Any:
            return tf.broadcast_to(tf.reshape(recorded[f"state0/{name}"], (-1, size)), (len(self.lengths), size))

        return Plan({f"first_{name}": shown}, {key: entry}, {key: made})

    def _unit(self, base: str) -> Net:
        options = {name: self.case.constructor[name] for name in ("forget_bias",) if name in self.case.constructor}
        unit: Net = {"attention_type": self.kind, "encoder": f"{base}data:encoder", "with_context": not self.in_loop}
        unit |= {"keys": f"{base}data:keys"} if KEYS in self.case.arrays else {}
        if self.is_lstm_with_attention:
            return {"class": "caffe2.LSTMWithAttention", "decoder_state_dim": self.units, **unit, **options}
        cell = {"class": f"caffe2.{self.cell}Cell", "units": self.units, **options}
        return {"class": "caffe2.AttentionCell", "cell": cell, **unit}

    def _layers(self) -> Net:
        base = "base:" if self.in_loop else ""
        given = {self.states[name]: f"{base}data:{name}_before" for name in self.case.below("state0/")}
        source = {"class": "rnn_cell", "from": "data:source"} if self.in_loop else {"class": "rec", "from": "data"}
        layer = {**source, "unit": self._unit(base), "initial_state": given, "is_output_layer": True}
        if not self.in_loop:
            layer["n_out"] = self.units + self.case.arrays[ENCODER].shape[-1]
        layers: Net = {"output": layer}
        for name, key in self.states.items():
            layers[name] = {"class": "get_last_hidden_state", "key": key, "from": "output", "is_output_layer": True}
        return {"output": {"class": "rec", "from": "data", "unit": layers}} if self.in_loop else layers

    def _parameters(self, recorded: Tensors) -> dict[str, Any]:
        own = {key.rpartition("/")[2]: recorded[key] for key in self.case.keys("param/")}
        inside = layout_of("caffe2", self.cell).parameters(self.case.constructor, own)
        found = attention.of_attention(own) | {self.scope + name: value for name, value in inside.items()}
        scope = "output/rec/output/rec/" if self.in_loop else "output/rec/"
        return {scope + name: value for name, value in found.items()}

    # What comes out

    def _shown(self, key: str) -> Plan:
        """An array of states at all frames or at the end, as far as this way gives it."""
        name, _, part = key.partition("/")[2].rpartition("_")
        names = ["hidden", "context"] if part == "concat" else [name]
        if part != "last" and not self.in_loop and not {"hidden", "context"}.issuperset(names):
            return Plan()
        layers = [f"output/{one}" for one in names] if self.in_loop else [*names, "output"]
        layers += [f"first_{one}" for one in names if f"state0/{one}" in self.case.arrays]
        recorded, real = self.case.arrays[key], np.arange(self.frames) < self.lengths[:, None]
        compared = (
            (real | self._is_held(names))[..., None] if part != "last" else self._compared_at_end(names, recorded)
        )

        def made(*values: Any) -> Any:
            ours = dict(zip(layers, values, strict=True))
            states = [self._last(one, ours) if part == "last" else self._all(one, ours, real) for one in names]
            return tf.where(compared, tf.reshape(tf.concat(states, -1), recorded.shape), recorded)

        only_real = key.startswith("out/") and part != "last" and "t < length" in self.case.record["objective"]
        return Plan(shown={key: Shown(tuple(layers), made, real if only_real else None)})

    def _is_held(self, names: Sequence[str]) -> bool:
        """Whether Caffe2 has the last values beyond the length, too."""
        changes = self.kind in ("Recurrent", "SoftCoverage")
        return "coverage" not in names and not (changes and "context" in names)

    def _compared_at_end(self, names: Sequence[str], recorded: Array) -> Array:
        compared = (self.lengths == self.frames) | self._is_held(names)
        return compared.reshape((*recorded.shape[:-1], 1))

    def _all(self, name: str, ours: Mapping[str, Any], real: Array) -> Any:
        """A state at all frames, held beyond the length."""
        if self.in_loop:
            found = self._steps(name, ours)
        else:
            found = ours["output"][..., : self.units] if name == "hidden" else ours["output"][..., self.units :]
        padded = tf.pad(found, [(0, 0), (0, self.frames - tf.shape(found)[1]), (0, 0)])
        return tf.where(real[..., None], padded, self._last(name, ours)[:, None])

    def _last(self, name: str, ours: Mapping[str, Any]) -> Any:
        """A state after the last frame."""
        if not self.in_loop:
            return self._real_frames(name, ours[name])
        return last_frame(self._steps(name, ours), self.lengths, ours.get(f"first_{name}"))

    def _steps(self, name: str, ours: Mapping[str, Any]) -> Any:
        """A state after each step of the loop [N, T, ..]; the coverage has the frames of the encoder before those."""
        found = ours[f"output/{name}"]
        return self._real_frames(name, tf.transpose(found, (0, 2, 1))) if name == "coverage" else found

    def _real_frames(self, name: str, state: Any) -> Any:
        """The coverage with 0 for what is no frame of an encoder [N, .., S]; other states as they are."""
        if name != "coverage":
            return state
        real = np.arange(self.case.arrays[ENCODER].shape[1]) < self.lengths_of_encoder[:, None]
        return tf.where(real if len(state.shape) == 2 else real[:, None], state, 0.0)
