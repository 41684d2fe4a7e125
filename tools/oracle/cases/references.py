"""References beyond plain names: overlay networks, parts of layers, and layers named in options."""

from typing import Any

from ..case import LENGTHS, Case, Net, objective
from .golden import DECIDE, ENCODER, END, EQUAL, LINEAR, ONE_TOO_MANY, prob

CHAIN: Net = {
    "a": {**LINEAR, "n_out": 3, "from": "data"},
    "b": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "a"},
    "c": {**LINEAR, "n_out": 2, "from": "b"},
}
RELU = {"class": "linear", "activation": "relu", "n_out": 3, "from": "a"}


def chain(name: str, sources: list[str], more: Net | None = None, **options: Any) -> Case:
    network = {**CHAIN, **(more or {}), "output": {"class": "copy", "from": sources}, **objective()}
    return Case(f"overlay.{name}", network, ("output",), **options)


SUBNET: Net = {
    "s": {"class": "subnetwork", "from": "data", "subnetwork": {"output": {**LINEAR, "n_out": 2, "from": "base:b"}}}
}
CHOICE = {"class": "choice", "target": "classes", "beam_size": 3, "from": "output_prob", "initial_output": 0}
UNIT: Net = {
    "embed": {**LINEAR, "n_out": 3, "from": "prev:output"},
    "s": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 4, "from": ["embed", "base:mean"]},
    "scaled": {"class": "eval", "eval": "source(0) * 3.0", "from": "s"},
    "output_prob": prob("scaled"),
    "output": CHOICE,
    "end": END,
}
QUIET: Net = {**UNIT, "output_prob": {"class": "softmax", "n_out": 5, "from": "scaled", "target": "classes"}}
MEAN: Net = {"mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "encoder"}}
LOOP = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 6, "unit": UNIT}
QUIET_LOOP = {**LOOP, "unit": QUIET}
GREEDY = {**QUIET_LOOP, "unit": {**QUIET, "output": {**CHOICE, "beam_size": 1}}}
BEST: Net = {
    "best": {"class": "decide", "from": "extra.search:output", "is_output_layer": True},
}
SEARCHED: Net = {**ENCODER, **MEAN, "output": LOOP, "extra.search:output": QUIET_LOOP}
STUDENT: Net = {
    "label": {**LINEAR, "n_out": 3, "from": "best"},
    "of_label": {"class": "reduce", "mode": "sum", "axis": "T", "from": "label"},
    "student": {"class": "combine", "kind": "add", "from": ["of_label", "student_in"]},
    "student_in": {**LINEAR, "n_out": 3, "from": "data"},
    "objective": {"class": "activation", "activation": "tanh", "from": "student", "loss": "as_is"},
}


def searched(name: str, network: Net, layers: tuple[str, ...], **options: Any) -> Case:
    options = {"modes": ("train", "eval"), "optimize": (True, False), "lengths": EQUAL, **options}
    return Case(f"overlay.search.{name}", network, layers, **options)


CASES = [
    chain("rebuilt", ["c", "extra:c"]),
    chain("only", ["extra:c"]),
    chain("override.read", ["c", "extra:c"], {"extra:b": RELU}),
    chain("override.not_read", ["b", "extra:c"], {"extra:a": {**LINEAR, "n_out": 3, "from": "data", "L2": 0.1}}),
    chain("override.two", ["extra:c", "extra.two:c", "extra.two.search:c"], {"extra:b": RELU}),
    chain("override.new", ["extra:new"], {"extra:new": RELU}),
    chain("override.of_override", ["c", "extra:c"], {"extra:b": RELU, "extra:c": {**CHAIN["c"], "from": "extra:b"}}),
    chain("L2", ["c", "extra:c"], {"c": {**CHAIN["c"], "L2": 0.1}}),
    chain("loss", ["c"], {"extra:c": {**CHAIN["c"], "loss": "as_is", "loss_scale": 0.5}},
        differs="RETURNN calls the loss 'c', as if it were that of the network below; here it is 'extra:c'"),
    chain("subnetwork", ["s", "extra:s"], {**SUBNET, "extra:b": RELU}),
    chain("base", ["s"], {"s": {**SUBNET["s"], "subnetwork": {"output": {"class": "copy", "from": "base:extra:b"}}}}),
    chain("part", ["extra:x/1"], {"x": {"class": "split", "axis": "F", "num_splits": 3, "from": "b"}}),
    searched("decided", {**SEARCHED, **BEST}, ("best",)),
    searched("decided.lengths", {**SEARCHED, **BEST}, ("best",), lengths=LENGTHS, differs=ONE_TOO_MANY),
    searched("same_unit", {**SEARCHED, **BEST, "output": QUIET_LOOP}, ("best", "output")),
    searched("only", {**{k: v for k, v in SEARCHED.items() if k != "output"}, **BEST}, ("best",)),
    searched(
        "beam_1",
        {**SEARCHED, **BEST, "extra.search:output": GREEDY},
        ("best",),
    ),
    searched(
        "decided_in_overlay",
        {**SEARCHED, **DECIDE, "best": {"class": "copy", "from": "extra.search:decision", "is_output_layer": True}},
        ("best", "decision"),
    ),
    searched("student", {**SEARCHED, **BEST, **STUDENT}, ("best", "student")),
]  # fmt: skip
