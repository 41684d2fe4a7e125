"""What tests of layers in loops share: a decoder with a few layers in it, in each place where they can be.

A probe is a dict of layers. It reads `x`, one vector in each step (`inner`: one for each frame of `memory`, whose axis
is then the "T" that a step has), may read `memory` [B, S, F] and `label`, the label before; its last layer is `probe`.

- "frames": over the frames of the data, from nothing that a step decides: it leaves the loop in every mode;
- "labels": over the labels: it leaves the loop in training; in search it depends on the hypothesis and stays;
- "cycle": what it gives is what the next step begins with: it stays in every mode;
- "masked": as "labels", but executed only at the steps where a mask is true, without any unmask layer;
- "masked cycle": both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.ir import Graph, Loop, walk
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.verification.random_batches import random_feed
from tests.commit import takes_part
from tests.properties import backend
from tests.properties.running import Feed, assert_equal, run

SIZE = 4
CLASSES = 5
PLACES = ("frames", "labels", "cycle", "masked", "masked cycle")
LEAVING = ("frames", "labels", "masked")
"""The places from which a probe can leave the loop in training."""
MODES: tuple[ModeName, ...] = ("train", "eval", "search")
IN_TENSORFLOW: Mapping[ModeName, int] = {"train": 64, "eval": 96, "search": 64}
Layers = Mapping[str, Any]


def linear(*sources: str, n_out: int = SIZE, **options: Any) -> dict[str, Any]:
    """A layer that mixes its sources, bounded."""
    return {"class": "linear", "activation": "tanh", "n_out": n_out, "from": list(sources), **options}


def copy(source: str, **options: Any) -> dict[str, Any]:
    """A layer that is its source."""
    return {"class": "copy", "from": source, **options}


def add(*sources: str, **options: Any) -> dict[str, Any]:
    """The sum of its sources."""
    return {"class": "combine", "kind": "add", "from": list(sources), **options}


def decoder(
    probe: Layers, place: str = "labels", *, inner: bool = False, around: Layers | None = None, **rec: Any
) -> dict[str, Any]:
    """The config of a decoder with a probe in a place; `around` are layers outside of the loop, `rec` its options."""
    masked, cycle = "masked" in place, "cycle" in place
    read = linear("data:source") if place == "frames" else linear("prev:embed", *(["prev:result"] if cycle else []))
    given = {"x": add("memory", "step") if inner else copy("step")}
    flat = {"class": "reduce", "mode": "mean", "axis": "T?", "from": "probe"} if inner else copy("probe")
    layers: dict[str, Any] = {"step": read, "memory": copy("base:memory"), "label": copy("prev:output")}
    if masked:
        below = {name: copy(f"base:{name}") for name in ("memory", "label")} | {"step": copy("data")}
        sub = {"class": "subnetwork", "from": "data", "subnetwork": {**below, **given, **probe, "output": flat}}
        layers["flat"] = {"class": "masked_computation", "mask": "prev:mask", "from": "step", "unit": sub}
    else:
        layers |= {**given, **probe, "flat": flat}
    unit = {
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0},
        "embed": linear("output", initial_output=0),
        "mask": {"class": "compare", "kind": "greater", "value": 1, "from": "output", "initial_output": True},
        **layers,
        "result": linear("flat", initial_output=0),
        "prob": {"class": "softmax", "from": ["result", "step"], "loss": "ce", "target": "classes"},
        "end": {"class": "compare", "from": "output", "kind": "equal", "value": 0},
    }
    if place == "frames":
        del unit["end"]
    shared = {"same_dim_tags_as": {"t": "data"}} if place == "frames" else {}
    loop = {"class": "rec", "from": "data" if place == "frames" else [], "target": "classes", "max_seq_len": 5}
    return {
        "behavior_version": 21,
        "target": "classes",
        "extern_data": {
            "data": {"dim": SIZE},
            "memory": {"dim": SIZE, "available_for_inference": True},
            "classes": {"dim": CLASSES, "sparse": True, "available_for_inference": False, **shared},
        },
        "network": {
            "memory": linear("data:memory"),
            **(around or {}),
            "output": {**loop, "unit": unit, **rec},
            "decision": {"class": "decide", "from": "output", "only_on_search": True, "is_output_layer": True},
        },
    }


everywhere = pytest.mark.parametrize("place", PLACES)
over_inner_frames = pytest.mark.parametrize("place", ["frames", "labels", "cycle", "masked"])


def check(probe: Layers, place: str, *, history: bool = False, **options: Any) -> None:
    """Optimised = plain = step by step, in each mode: with NumPy; and some with TensorFlow, and gradients.

    Of a `history` under a mask NumPy knows no per-step meaning: each sequence's has another length.
    """
    config = decoder(probe, place, **options)
    if history and "masked" in place:
        assert_same_evaluation(config)
    else:
        assert_per_step(config)
    assert_same_search(config)
    assert_same_in_tensorflow(config, MODES)


def refused(probe: Layers, place: str, message: str, mode: ModeName = "train", **options: Any) -> None:
    """With and without optimisation the config is refused with a message."""
    for enabled in (True, False):
        with pytest.raises(ConfigError, match=message):
            optimized(build(decoder(probe, place, **options), mode), enabled)


def assert_same(config: Mapping[str, Any], modes: Sequence[ModeName] = MODES) -> None:
    """Optimised gives what plain gives: every layer, loss and hypothesis, with what is random."""
    for mode in modes:
        built = build(config, mode, targets=mode != "search")
        feed = feed_of(config, built)
        assert_equal(*(run(built, graph, *feed) for graph in both(config, built)))
    assert_same_in_tensorflow(config, modes)


def assert_same_in_tensorflow(config: Mapping[str, Any], modes: Sequence[ModeName]) -> None:
    """The optimised graph gives in TensorFlow what NumPy gives; in training what the plain one does there, with every
    gradient. Of each mode one config in so many, nightly all."""
    for mode in (mode for mode in modes if takes_part(f"{mode} {config!r}", IN_TENSORFLOW[mode])):
        built = build(config, mode, targets=mode != "search")
        graph, feed = optimized(built), feed_of(config, built)
        if mode == "train":
            backend.assert_same_as_plain(built, backend.program_of(built, graph), *feed)
            continue
        with backend.unless_tied(built, graph, *feed):
            backend.assert_same_in_tensorflow(built, graph, *feed)


def assert_per_step(config: Mapping[str, Any]) -> None:
    """Both give what the layers do step by step, as NumPy computes it: in evaluation, in which nothing is random."""
    built = build(config, "eval")
    feed = feed_of(config, built)
    meaning = run(built, built.graph, *feed)
    for graph in both(config, built):
        assert_equal(run(built, graph, *feed), meaning)


def assert_same_evaluation(config: Mapping[str, Any]) -> None:
    """Optimised gives what plain gives, as NumPy computes both."""
    built = build(config, "eval")
    feed = feed_of(config, built)
    assert_equal(*(run(built, graph, *feed) for graph in both(config, built)))


def assert_same_search(config: Mapping[str, Any]) -> None:
    """The same hypotheses with the same scores, and the same of every layer that is seen from around the loop."""
    built = build(config, "search", targets=False)
    assert "layer:output" in built.graph.outputs
    feed = feed_of(config, built)
    assert_equal(*(run(built, graph, *feed) for graph in both(config, built)))


def both(config: Mapping[str, Any], built: BuiltNetwork) -> list[Graph]:
    """Optimised and plain. Of one config in four, nightly of all, the graph is verified after each pass, not only after
    the last."""
    verify_each = takes_part(repr(config), 4)
    return [optimized(built, enabled, verify_each=verify_each) for enabled in (True, False)]


def feed_of(config: Mapping[str, Any], built: BuiltNetwork) -> tuple[Feed, Feed]:
    """Random arrays and lengths for all data keys."""
    return random_feed(built.extern_data.entries, list(config["extern_data"]), 3, 2)


def stays(config: Mapping[str, Any], mode: ModeName, layer: str = "probe") -> bool:
    """True if any part of a layer, or of one inside it, runs in a loop after optimisation."""
    graph = optimized(build(config, mode))
    loops = [node.op for node in graph.nodes if isinstance(node.op, Loop)]
    return any(layer in node.origin.layer.split("/") for loop in loops for node in walk(loop.body))
