"""A value that a layer registers as data means in a loop what data of that name would mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite import ConfigError
from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.dims import DimKind
from tests.properties.running import run
from tests.reference.named import Array

CLASSES = {"classes": {"dim": 3, "sparse": True, "available_for_inference": False}}
EXTERN = {"data": {"dim": 3}, **CLASSES}
INPUTS = {"data": np.arange(18.0).reshape(2, 3, 3) * 0.1, "classes": np.array([[1, 2, 0], [2, 0, 0]])}
LENGTHS = {"data": [3, 2], "classes": [3, 2]}
Layers = dict[str, Any]

COPY = {"class": "copy", "from": "data:classes"}
OWN_TIME = {
    "class": "reinterpret_data",
    "from": "data:classes",
    "set_dim_tags": {"T": rl.Dim("frames", DimKind.SPATIAL, None)},
}
PUBLISHED: dict[str, Layers] = {
    "a copy": {"published": {**COPY, "register_as_extern_data": "labels"}},
    "a copy with a time of its own": {"published": {**OWN_TIME, "register_as_extern_data": "labels"}},
    "a copy of a copy that is published later": {
        "first": {"class": "copy", "from": "data:later", "register_as_extern_data": "labels"},
        "second": {**COPY, "register_as_extern_data": "later"},
    },
}


def linear(*sources: str, **options: Any) -> Layers:
    return {"class": "linear", "activation": "tanh", "n_out": 4, "from": list(sources), **options}


def softmax(target: str, *sources: str) -> Layers:
    return {"class": "softmax", "from": list(sources), "target": target, "loss": "ce"}


def in_subnetwork(layer: Layers) -> Layers:
    return {"class": "subnetwork", "from": "s", "subnetwork": {"output": {**layer, "from": "data"}}}


def masked(layer: Layers) -> Layers:
    return {"class": "masked_computation", "mask": "mask", "from": "s", "unit": {**layer, "from": "data"}}


def bodies(target: str) -> dict[str, Layers]:
    """Ways to reach a target from the step of a loop."""
    loss = softmax(target, "s")
    gold = linear(f"data:{target}")
    both = softmax(target, "s", "gold")
    return {
        "loss": {"p": loss},
        "loss in a subnetwork": {"q": in_subnetwork(loss), "p": {"class": "copy", "from": "q"}},
        "loss in a subnetwork of one": {
            "q": in_subnetwork({**in_subnetwork(loss), "from": "data"}),
            "p": {"class": "copy", "from": "q"},
        },
        "loss under a mask": {"q": masked(loss), "p": softmax("classes", "s", "q")},
        "data": {"gold": gold, "p": both},
        "data in a subnetwork": {
            "gold": {"class": "subnetwork", "from": "s", "subnetwork": {"output": gold}},
            "p": both,
        },
        "data under a mask": {
            "gold": {"class": "masked_computation", "mask": "mask", "from": "s", "unit": gold},
            "p": both,
        },
        "drawn label": {"p": loss, "output": {"scheduled_sampling": {"gold_mixin_prob": 1.0}}},
    }


def decoder(target: str, way: str, source: str | None = None) -> Layers:
    layers = dict(bodies(target)[way])
    choice = {"class": "choice", "target": target, "beam_size": 2, "from": "p", "initial_output": 0}
    return {
        "output": {
            "class": "rec",
            "from": [] if source is None else source,
            "target": target,
            "max_seq_len": 3,
            "unit": {
                "embed": linear("prev:output"),
                "s": linear("embed", "prev:s", *([] if source is None else ["data:source"])),
                "mask": {
                    "class": "compare",
                    "from": "prev:output",
                    "value": 1,
                    "kind": "greater",
                    "initial_output": True,
                },
                **layers,
                "output": {**choice, **layers.get("output", {})},
                "end": {"class": "compare", "from": "output", "value": 0},
            },
        }
    }


def results(network: Layers, mode: ModeName, *, targets: bool = True, optimize: bool = True) -> dict[str, Array]:
    """What NumPy computes of the outputs."""
    config = {"network": network, "extern_data": EXTERN, "behavior_version": 21}
    built = build(config, mode, targets=targets)
    keys = {value.name for value in built.graph.inputs}
    feed, lengths = ({key: np.array(x[key]) for key in {"data", *keys}} for x in (INPUTS, LENGTHS))
    return {name: x.array for name, x in run(built, optimized(built, optimize), feed, lengths).items()}


@pytest.mark.parametrize("source", [None, "data"])
@pytest.mark.parametrize("way", list(bodies("classes")))
def test_a_published_target_is_as_the_target_itself(way: str, source: str | None) -> None:
    """Whatever its dims are called: the target's time is the loop's."""
    expected = results(decoder("classes", way, source), "eval")["objective"]
    for layers in PUBLISHED.values():
        for optimize in (True, False):
            found = results({**layers, **decoder("labels", way, source)}, "eval", optimize=optimize)["objective"]
            np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            {
                "class": "self_attention",
                "num_heads": 1,
                "total_key_dim": 4,
                "n_out": 4,
                "attention_left_only": True,
                "from": "e",
            },
            12.4525,
        ),
        (linear("e", "prev:s"), 7.1186),
    ],
    ids=["self-attention", "a state"],
)
@pytest.mark.parametrize("optimize", [True, False])
def test_the_loss_of_a_decoder(layer: Layers, expected: float, optimize: bool) -> None:
    """The first value is RETURNN's; the second that of the target itself."""
    unit = {
        "output": {"class": "choice", "target": "labels", "beam_size": 1, "from": "p", "initial_output": 0},
        "e": linear("prev:output", activation=None),
        "s": layer,
        "p": softmax("labels", "s"),
    }
    loop = {"class": "rec", "from": [], "target": "labels", "max_seq_len": 3, "unit": unit}
    net = rl.compile({**PUBLISHED["a copy"], "output": loop}, EXTERN, "train", behavior_version=21, optimize=optimize)
    generator = np.random.RandomState(1)
    for name in sorted(net.params):
        net.params[name].assign(generator.normal(size=net.params[name].shape))
    (loss,) = net.run(INPUTS, seq_lens=LENGTHS).losses.values()
    assert loss.sum == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("target", ["classes", "labels"])
def test_a_step_has_no_time(target: str) -> None:
    summed = {"class": "reduce", "mode": "sum", "axis": "T", "from": f"data:{target}", "is_output_layer": True}
    network = {**PUBLISHED["a copy"], **decoder(target, "loss")}
    network["output"]["unit"]["summed"] = summed
    with pytest.raises(ConfigError, match=r"network\.output\.unit\.summed\.axis: there is no axis 'T'"):
        build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "train")


@pytest.mark.parametrize("published", list(PUBLISHED))
def test_search_needs_no_targets(published: str) -> None:
    """Of a published target its classes are known, as those of the target itself."""
    networks = decoder("classes", "loss"), {**PUBLISHED[published], **decoder("labels", "loss")}
    expected, found = (results(network, "search", targets=False) for network in networks)
    for name in ("layer:output", "scores:output"):
        np.testing.assert_allclose(found[name], expected[name])


def test_what_registers_a_key_may_read_data_of_that_name() -> None:
    doubled = {"class": "eval", "eval": "source(0) * 2", "from": "data", "register_as_extern_data": "data"}
    network = {"doubled": doubled, "output": {"class": "copy", "from": "data:data"}}
    real = (np.arange(3) < np.array(LENGTHS["data"])[:, None])[:, :, None]
    np.testing.assert_allclose(results(network, "eval")["layer:output"], INPUTS["data"] * 2 * real)


def test_a_key_of_another_network_that_is_not_there_yet() -> None:
    inner = {"output": {**COPY, "register_as_extern_data": "labels"}}
    network = {
        "inner": {"class": "subnetwork", "from": "data", "subnetwork": inner, "is_output_layer": True},
        "a": {"class": "copy", "from": "data:labels", "is_output_layer": True},
    }
    with pytest.raises(ConfigError, match=r"network\.a\.from: 'data:labels' is not there yet: the layer"):
        build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "train")
