"""One cell over a sequence: dynamic_rnn, static_rnn, Keras' RNN, fused cells, one call of a cell.

Frames beyond a length are no frames here, whatever the driver puts there; of a mask with gaps they are not computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tools.cells.case import Array, Case, Constructor
from tools.cells.plan import Plan, Shown, entry_of, frames_of, last_frame, sequence
from tools.cells.recurrence import Recurrence

FUSED = {"FusedRNNCellAdaptor": False, "TimeReversedFusedRNN": True}
"""What makes a layer of a cell, and whether it runs backwards."""


def plan_of(case: Case, in_loop: bool) -> Plan:
    """The layer `output` over all data."""
    found, sources, mask = sources_of(case)
    constructor, reverse = unwrapped(case.constructor)
    reverse = reverse or bool((case.record.get("layer") or {}).get("go_backwards"))
    recurrence = Recurrence(
        "output",
        constructor,
        sources,
        case.keys("param/"),
        case.keys("state0/"),
        case.keys("state/"),
        reverse,
        mask,
    )
    return found | recurrence.plan(case, in_loop) | output_of(case, "out/y", "output", reverse)


def unwrapped(constructor: Constructor) -> tuple[Constructor, bool]:
    """The cell in layers around it, and whether it runs backwards."""
    reverse = False
    while constructor.get("class") in FUSED:
        reverse ^= FUSED[constructor["class"]]
        constructor = constructor["cell"]
    return constructor, reverse


def sources_of(case: Case) -> tuple[Plan, list[str], str]:
    """All inputs as data, their layers, and that of a mask with gaps."""
    keys = case.keys("in/")
    names = ["data", *(f"data_{i}" for i in range(1, len(keys)))]
    found = Plan()
    for name, key in zip(names, keys, strict=True):
        found |= sequence(case, name, key, like="" if name == "data" else "data")
    sources = ["data", *(f"data:{name}" for name in names[1:])]
    if not case.has_gaps:
        return found, sources, ""
    entry = entry_of(case.arrays["mask/in"].astype(bool), frames=True, like="data")
    found |= Plan(extern_data={"mask": entry}, feeds={"mask": lambda recorded: tf.cast(recorded["mask/in"], tf.bool)})
    return found, sources, "data:mask"


def output_of(case: Case, key: str, layer: str, reverse: bool = False) -> Plan:
    """A recorded output: all frames of a layer, or only that of the last step."""
    options = case.record.get("layer") or {}
    if options.get("return_sequences", case.arrays[key].ndim >= 3):
        return _in_order_of_steps(case, key, layer) if options.get("go_backwards") else frames_of(case, key, [layer])
    real = case.real if case.real is not None else np.ones((len(case.arrays[key]), case.record["time"]), bool)
    held = None if options.get("zero_output_for_mask") is None else real[:, 0 if reverse else -1]
    return Plan(shown={key: Shown((layer,), lambda frames: _of_last_step(frames, real, reverse, held))})


def _of_last_step(frames: Any, real: Array, reverse: bool, held: Array | None) -> Any:
    """The frame that was computed last; 0 for sequences that another system's loop left before its last step, where
    it gives zeros there (`held` says which have a frame in the last step)."""
    lengths = real.shape[1] - np.argmax(real[:, ::-1], 1)
    last = frames[:, 0] if reverse else last_frame(frames, lengths * real.any(1))
    return last if held is None else tf.where(held.reshape((-1,) + (1,) * (len(last.shape) - 1)), last, 0.0)


def _in_order_of_steps(case: Case, key: str, layer: str) -> Plan:
    """Frames from the last to the first, as Keras' `go_backwards` leaves them, with those beyond a length in front, as
    0. Those that count may be the first of them or the last: the recorded objective says which."""
    whole = frames_of(case, key, [layer]).shown[key]
    real = whole.real
    if real is None:
        return Plan(shown={key: Shown((layer,), lambda value: tf.reverse(whole.made(value), [1]))})
    weighted = case.arrays[key] * case.arrays[f"w/{key.removeprefix('out/')}"]
    there = real.reshape(real.shape + (1,) * (weighted.ndim - 2))
    totals = [(weighted * frames).sum() for frames in (there, there[:, ::-1])]
    counted = (
        real if abs(totals[0] - case.arrays["objective"]) < abs(totals[1] - case.arrays["objective"]) else real[:, ::-1]
    )

    def turned(value: Any) -> Any:
        return tf.reverse(tf.where(there, whole.made(value), 0.0), [1])

    return Plan(shown={key: Shown((layer,), turned, counted)})
