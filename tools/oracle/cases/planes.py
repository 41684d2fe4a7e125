"""2D LSTMs: outside of loops the whole plane, in them a row a step, in a search each hypothesis with its own rows.

RETURNN's runs on GPUs only; `native_2d_lstm` lets it run here.
"""

from __future__ import annotations

from typing import Any

from ..case import Case, Net, objective
from .search import search

POOLINGS = ("last", "max", "average", "weighted")
# RETURNN's gradient is right where no source is longer than the batch is large.
SHORT = {"data": (3, 2, 3), "frames": (4, 3, 1), "classes": (4, 3, 1)}
EQUAL = {"data": (3, 3, 3), "frames": (4, 4, 4), "classes": (4, 4, 4)}
PADDING = "RETURNN pools over the padding, too"
NO_GRADIENT = "in RETURNN no gradient goes from row to row in a loop"
CUT_GRADIENT = (
    "in RETURNN a frame has no gradient from its right if its number is that of the last sequence of the batch"
)
BOTH = (True, False)


def plane(source: str, target: str, **options: Any) -> dict[str, Any]:
    return {"class": "twod_lstm", "n_out": 3, "from": [source, target], **options}


def outside(name: str, **options: Any) -> Case:
    """The target comes from a unit: RETURNN's result has wrong axes if the target is batch-major."""
    layer = {key: options.pop(key) for key in ("pooling", "n_out") if key in options}
    target = {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "data:frames"}
    network: Net = {"target": target, "output": plane("data", "target", **layer), **objective()}
    return Case(f"{name}.outside", network, ("output",), **{"lengths": SHORT, **options})


def looped(name: str, *, cycle: bool = False, **options: Any) -> Case:
    layer = {key: options.pop(key) for key in ("pooling", "n_out") if key in options}
    target: dict[str, Any] = {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "data:source"}
    if cycle:
        target = {"class": "linear", "activation": "tanh", "n_out": 4, "from": ["data:source", "prev:probe"]}
    unit: Net = {
        "target": target,
        "probe": plane("base:data:data", "target", **layer),
        "output": {"class": "copy", "from": "probe"},
    }
    network: Net = {"output": {"class": "rec", "from": "data:frames", "unit": unit}, **objective()}
    place = "cycle" if cycle else "loop"
    return Case(f"{name}.{place}", network, ("output",), **{"lengths": SHORT, **options})


def searched(name: str, **layer: Any) -> Case:
    """RETURNN takes the hypotheses of the first source for those of the result, so that the encoder must have some."""
    unit: Net = {
        "query": {"class": "linear", "activation": "tanh", "n_out": 4, "from": "embed"},
        "encoder": {"class": "combine", "kind": "add", "from": ["base:encoder", "query"]},
        "s": plane("encoder", "embed", **layer),
    }
    return search(name, unit=unit, lengths=SHORT)


CASES = [
    outside("twod_lstm"),
    outside("twod_lstm.average", pooling="average"),
    *(outside(f"twod_lstm.{pooling}", pooling=pooling, differs=PADDING) for pooling in ("max", "weighted")),
    *(outside(f"twod_lstm.{pooling}.equal_lengths", pooling=pooling, lengths=EQUAL) for pooling in ("max", "weighted")),
    outside("twod_lstm.wide", lengths={**SHORT, "data": (6, 4, 5)}, differs=CUT_GRADIENT),
    outside("twod_lstm.wide.forward", lengths={**SHORT, "data": (6, 4, 5)}, modes=("eval",)),
    *(looped(f"twod_lstm.{p}", pooling=p, lengths=EQUAL, modes=("eval",), optimize=BOTH) for p in POOLINGS),
    looped("twod_lstm"),
    looped("twod_lstm.ragged", modes=("eval",), optimize=BOTH),
    looped("twod_lstm", cycle=True, modes=("eval",), optimize=BOTH),
    looped("twod_lstm.train", cycle=True, modes=("train",), optimize=BOTH, differs=NO_GRADIENT),
    searched("twod_lstm"),
    searched("twod_lstm.average", pooling="average"),
]
