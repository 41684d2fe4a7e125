"""Cells with attention in a loop: in each place, under masks, and in search with a context for each hypothesis."""

from __future__ import annotations

from typing import Any

import pytest

from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.ir import Loop
from returnn_lite.ir.ops.contraction import Dot
from tests.loop.probing import SIZE, check, decoder, everywhere, linear, refused

UNITS: dict[str, dict[str, Any]] = {
    "recurrent": {"class": "lstm_attention", "kind": "recurrent"},
    "soft coverage": {"class": "lstm_attention", "kind": "soft_coverage", "key_size": 3},
    "around a stack": {"class": "attention", "kind": "dot", "cell": ["lstm", "gru"]},
    "given keys": {"class": "attention", "cell": "milstm", "context": "recurrent", "keys": "memory"},
}


MEMORY = {"memory": linear("data")}
"""It is there in search, too."""


def cell(name: str, **options: Any) -> dict[str, Any]:
    unit = {**UNITS[name], "encoder": "memory"}
    return {"class": "rnn_cell", "unit": unit, "n_out": SIZE, "from": "x", **options}


@pytest.mark.one_in(2)
@everywhere
@pytest.mark.parametrize("name", UNITS)
def test_in_a_decoder(name: str, place: str) -> None:
    check({"probe": cell(name)}, place, around=MEMORY)


@everywhere
def test_the_context_of_each_step(place: str) -> None:
    context = {"class": "get_last_hidden_state", "from": "cell", "key": "context"}
    coverage = {"class": "get_last_hidden_state", "from": "cell", "key": "coverage"}
    most = {"class": "reduce", "mode": "max", "axis": "T?", "from": "coverage"}
    layers = {"cell": cell("soft coverage"), "context": context, "coverage": coverage, "most": most}
    check({**layers, "probe": {"class": "combine", "kind": "add", "from": ["context", "most"]}}, place, around=MEMORY)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "keys of dot": ({"kind": "dot", "keys": "memory"}, "dot: the frames themselves are the keys"),
    "size of given keys": ({"keys": "memory", "key_size": 7}, "key_size: the keys have 4 features, not 7"),
    "no frames": ({"encoder": "x"}, "'x' has no frames to attend to"),
    "no keys": ({"keys": "x"}, "'x' has no key for each frame"),
    "unknown kind": ({"kind": "additive"}, "expected one of 'regular', 'recurrent', 'dot', 'soft_coverage'"),
    "too small with the context": ({"with_context": True}, "the output has 4 features, not those of h and 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name: str) -> None:
    options, message = WRONG[name]
    unit = {"class": "lstm_attention", "encoder": "memory", **options}
    refused({"probe": {"class": "rnn_cell", "unit": unit, "n_out": SIZE, "from": "x"}}, "labels", message)


def test_a_cell_that_can_not_see_it_beside_h() -> None:
    unit = {"class": "attention", "encoder": "memory", "context": "recurrent", "cell": "rhn"}
    probe = {"class": "rnn_cell", "unit": unit, "n_out": SIZE, "from": "x"}
    refused({"probe": probe}, "labels", "context: rhn can't see it beside h")


def test_labels_have_no_context_beside_them() -> None:
    unit = {"class": "attention", "encoder": "memory", "cell": "lstm"}
    probe = {"class": "rnn_cell", "unit": unit, "n_out": SIZE, "from": "label"}
    refused({"probe": probe}, "labels", "the context can't be joined to the source, which has labels")


def test_labels_as_the_source() -> None:
    check({"probe": cell("recurrent", **{"from": "label"})}, "labels", around=MEMORY)


@pytest.mark.parametrize("mode", ["train", "search"])
def test_the_keys_are_computed_once(mode: ModeName) -> None:
    """Although the decoder stays in its loop."""
    config = decoder({"probe": cell("recurrent")}, "cycle", around=MEMORY)
    graph = optimized(build(config, mode, targets=mode != "search"))
    made = [{dim.name for dim in node.output.type.dims} for node in graph.nodes if isinstance(node.op, Dot)]
    assert any("output/probe:key" in names for names in made)
    assert any(isinstance(node.op, Loop) for node in graph.nodes)
