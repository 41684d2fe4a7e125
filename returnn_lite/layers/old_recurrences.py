"""What to write for a loop, a layer or a cell of TensorFlow 1, Keras, Caffe2 or PyTorch that a config names as a class
of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from returnn_lite.layers.cells.registry import known_name

_LOOP: Final = "Write {class: rec, unit: CELL}."
_BOTH: Final = "Write {class: rec, direction: both, merge: concat, unit: CELL}."
_NETWORK: Final = "Write {class: rec, unit: {..}} with a step's layers: prev:NAME is the step before, 'end' the last."

DRIVERS: Final[Mapping[str, str]] = {
    "bidirectional": _BOTH,
    "bidirectionaldynamicrnn": _BOTH,
    "dynamicrnn": _LOOP,
    "fusedrnncelladaptor": "Write {class: rec, unit: CELL}: whole sequences are one recurrence where that is possible.",
    "rawrnn": _NETWORK,
    "recurrentnet": _NETWORK,
    "rnn": _LOOP,
    "stackbidirectionaldynamicrnn": "Write {class: rec, direction: both, unit: [CELL, CELL]}.",
    "stackbidirectionalrnn": "Write {class: rec, direction: both, unit: [CELL, CELL]}.",
    "staticbidirectionalrnn": _BOTH,
    "staticrnn": _LOOP,
    "staticstatesavingrnn": "Write {class: rec, unit: CELL, stateful: true}.",
    "timereversedfusedrnn": "Write {class: rec, unit: CELL, direction: -1}.",
}
"""By the names of what runs cells, in lower case, without underscores and modules."""


def recurrence_instead(name: str) -> str | None:
    """What to write in place of a class; None for one that is none of these."""
    bare = name.rpartition(".")[2].lower().replace("_", "")
    if bare in DRIVERS:
        return DRIVERS[bare]
    if known_name(name) is None:
        return None
    return f"It is the unit of a layer: write {{class: rec, unit: {name}}}, or in a loop {{class: rnn_cell, ..}}."
