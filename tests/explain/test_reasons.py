"""What `explain` says of layers in loops is true: without the reads that it names they leave, with any of them not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from returnn_lite.cli.loading import load
from returnn_lite.compiler import build, optimized
from returnn_lite.explain.cycles import BodyDependencies
from returnn_lite.explain.placement import Place, placement
from returnn_lite.ir import Graph, Loop, Node, Value, loop_node
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.passes.pipeline import optimize

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


def linear(*sources: str, **options: Any) -> dict[str, Any]:
    return {"class": "linear", "from": list(sources), "n_out": 3, "activation": "tanh", **options}


UNIT: dict[str, Any] = {
    "acc": {"class": "combine", "kind": "add", "from": ["data:source", "prev:acc"]},
    "a": linear("acc", "prev:b"),
    "b": linear("a", "prev:b"),
    "both": {"class": "copy", "from": "b"},
    "cell": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 4, "from": "a"},
    "sub": {
        "class": "subnetwork",
        "from": "cell",
        "subnetwork": {"h": linear("data"), "output": linear("h", "prev:h")},
    },
    "back": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["prev:next", "data:source"]},
    "next": linear("back"),
    "output": linear("sub", "both", "next", loss="as_is"),
}
NETWORK = {"output": {"class": "rec", "from": "data", "unit": UNIT}}
CONFIG = {"network": NETWORK, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}


def built_of(name: str, mode: str) -> BuiltNetwork:
    if name == "unit":
        return build(CONFIG, mode)  # type: ignore[arg-type]
    loaded = load(str(CONFIGS / name), [])
    return build(loaded.data, mode, locate=loaded.locate)  # type: ignore[arg-type]


def places_of(built: BuiltNetwork, graph: Graph) -> dict[str, Place]:
    return placement(graph, optimize(graph), built.layers)


def without(built: BuiltNetwork, cut: tuple[tuple[str, str], ...]) -> Graph:
    """The network in which the readers of a cut read data of its own instead."""
    graph = built.graph
    inputs: list[Value] = []
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node.op, Loop):
            nodes.append(node)
            continue
        dependencies = BodyDependencies(node.op, built.layers)
        body: list[Node] = []
        for index, inner in enumerate(node.op.body):
            cut_values: dict[Value, Value] = {}
            for read, value in dependencies.needs[index]:
                found = dependencies._layer_read(index, read, value)
                if found is not None and (found.reader, found.reference) in cut:
                    inputs.append(Value(f"instead{len(inputs)}", value.type))
                    cut_values[value] = inputs[-1]
            clock = tuple(replace(mask, value=cut_values.get(mask.value, mask.value)) for mask in inner.clock)
            operands = tuple(cut_values.get(value, value) for value in inner.inputs)
            body.append(replace(inner, inputs=operands, clock=clock if clock != inner.clock else inner.clock))
        loop = loop_node(replace(node.op, body=tuple(body)), node.origin)
        nodes.append(replace(loop, outputs=node.outputs))
    return replace(graph, inputs=(*graph.inputs, *inputs), nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("name", "mode"),
    [("unit", "train"), ("g2p_attention.yaml", "train"), ("g2p_transformer.yaml", "train"), ("lm_lstm.yaml", "train")],
)
def test_without_the_reads_of_its_cut_a_layer_leaves(name: str, mode: str) -> None:
    built = built_of(name, mode)
    places = places_of(built, built.graph)
    kept = {path: place for path, place in places.items() if place.where == "loop"}
    assert kept or name not in ("unit", "g2p_attention.yaml")
    for path, place in kept.items():
        assert place.cut, path
        assert place.cycle[0] in (path, place.cycle[-1]), path
        assert places_of(built, without(built, place.cut))[path].where != "loop", (path, place.cut)
        for index in range(len(place.cut)):
            fewer = (*place.cut[:index], *place.cut[index + 1 :])
            assert places_of(built, without(built, fewer))[path].where == "loop", (path, fewer)


def test_reasons_are_the_shortest_cycles() -> None:
    places = places_of(built := built_of("unit", "train"), built.graph)
    shown = {path.removeprefix("output/"): place for path, place in places.items()}
    assert shown["acc"].reason == "it needs prev:acc, which needs acc"
    assert shown["acc"].to_leave == "it could leave if acc did not read prev:acc"
    assert shown["a"].reason == "it needs prev:b, which needs a"
    assert shown["both"].reason == "it needs b, which needs prev:b, which needs b"
    assert shown["b"].cut == (("output/a", "prev:output/b"), ("output/b", "prev:output/b"))
    assert shown["back"].cycle == ("output/back", "prev:output/next", "output/back")
    assert {shown[name].where for name in ("cell", "sub", "sub/h", "output")} == {"after"}


def test_search_says_what_is_chosen_and_how_the_loop_ends() -> None:
    built = built_of("g2p_attention.yaml", "search")
    places = placement(built.graph, optimized(built), built.layers)
    assert places["output/output"].reason.startswith("search chooses here")
    assert places["output/output"].to_leave == "it can't leave: a choice runs step by step"
    assert places["output/readout"].reason.startswith("it needs prev:embed, which needs readout (")
    assert (places["output/output_prob"].where, places["output/output_prob"].reason) == (
        "after",
        "the loop needs only a part of what it computes",  # the choice takes what goes into the softmax
    )
    assert places["output/s"].cut == (("output/s", "prev:output/att"), ("output/s", "prev:output/embed"))
    assert places["output/s"].to_leave.endswith("and the loop's length were known before it starts")
    assert places["output/s"].beams == ("output/output:beam",)
    assert places["encoder"].beams == ()


def test_masks_are_named() -> None:
    built = built_of("g2p_transducer.yaml", "train")
    places = placement(built.graph, optimized(built), built.layers)
    assert places["output/label_model0/unit"].masks == ("prev:emitted",)
    assert places["output/readout"].masks == ()


def in_loop(unit: dict[str, Any], mode: str = "train") -> dict[str, Place]:
    built = build({**CONFIG, "network": {"output": {"class": "rec", "from": "data", "unit": unit}}}, mode)  # type: ignore[arg-type]
    return places_of(built, built.graph)


def test_a_step_before_that_a_copy_passes_on_has_its_name() -> None:
    copied = {"class": "copy", "from": "prev:b"}
    unit = {"b": linear("a"), "a": linear("prev:b", "copied"), "copied": copied, "output": linear("a", "b")}
    place = in_loop(unit)["output/a"]
    assert place.reason == "it needs prev:b, which needs a"
    assert place.cut == (("output/a", "prev:output/b"),)


def test_a_copy_of_what_works_step_by_step() -> None:
    cell = {"class": "rnn_cell", "unit": "layernormvariantslstm", "n_out": 3, "from": "data:source"}
    places = in_loop({"cell": cell, "out": {"class": "copy", "from": "cell"}, "output": linear("out")})
    assert places["output/out"].to_leave == "it can't leave before cell does"
    assert places["output/out"].reason.startswith("it needs cell, each of whose steps needs the step before")


def test_a_long_way_is_short_in_words_and_whole_in_the_facts() -> None:
    chain = {f"l{i}": linear(f"l{i - 1}") for i in range(1, 40)}
    place = in_loop({"l0": linear("prev:output"), **chain, "output": linear("l39")})["output/l20"]
    assert place.reason == (
        "it needs prev:output, which needs l20 "
        "(l20 → l19 → … → l0 → prev:output → l39 → … → l21 → l20)"
    )  # fmt: skip
    assert len(place.cycle) > 40


def test_layers_that_pass_data_on_have_a_place() -> None:
    config = {**CONFIG, "network": {"same": {"class": "copy", "from": "data"}, "output": linear("same")}}
    built = build(config, "train")
    assert places_of(built, built.graph).keys() == built.layers.keys() == {"same", "output"}
