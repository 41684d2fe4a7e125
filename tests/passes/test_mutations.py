"""Networks that random changes of others led to: each is refused with a message, or the same optimised and plain."""

from __future__ import annotations

from typing import Any

import pytest

from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.config.diagnostics import ConfigError
from tests.properties.networks import CLASSES, SIZE
from tests.properties.running import assert_equal, feed_of, run


def linear(*sources: str, n_out: int = SIZE) -> dict[str, Any]:
    return {"class": "linear", "from": list(sources), "n_out": n_out, "activation": "tanh"}


CHOICE = {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0}
END = {"class": "compare", "from": "output", "kind": "equal", "value": 0}
PROB = {"class": "softmax", "from": "x", "target": "classes", "loss": "ce"}
EMBED = linear("prev:output")
MASK = {"class": "compare", "from": "output", "kind": "not_equal", "value": 1.0, "initial_output": True}
MASKED = {"class": "masked_computation", "mask": "prev:mask", "from": "data:source", "unit": linear("data")}
DECODER = {"embed": EMBED, "x": linear("embed"), "prob": PROB, "output": CHOICE, "end": END}


def config_of(unit: dict[str, Any], source: str | list[str] = "data") -> dict[str, Any]:
    return {
        "behavior_version": 21,
        "target": "classes",
        "extern_data": {"data": {"dim": SIZE}, "classes": {"dim": CLASSES, "sparse": True}},
        "network": {
            "encoder": linear("data"),
            "output": {"class": "rec", "from": source, "target": "classes", "unit": unit, "max_seq_len": 5},
        },
    }


REFUSED: dict[str, tuple[ModeName, dict[str, Any], str | list[str], str]] = {
    "a mask with features": (
        "eval",
        {"masked": MASKED, "mask": MASK, "output": linear("masked")},
        "data",
        r"network.output.unit.masked.*: the mask 'output/prev:mask' differs along output/.*feature\(3\)",
    ),
    "an end with features": (
        "search",
        {**DECODER, "end": {**END, "from": ["output", "embed"]}},
        [],
        r"network.output.unit.end: 'end' differs along output/embed:feature\(3\)",
    ),
    "scores at each position": (
        "search",
        {**DECODER, "x": {"class": "combine", "kind": "add", "from": ["embed", "base:encoder"]}},
        [],
        "the scores differ along data:time too",
    ),
    "two choices": (
        "search",
        {**DECODER, "other": {**CHOICE, "beam_size": 2}, "x": linear("embed", "again"), "again": linear("other2"),
         "other2": linear("prev:other")},
        [],
        "which choice is first",
    ),
    "a search in a loop": (
        "search",
        {**DECODER, "inner": {"class": "rec", "from": [], "target": "classes", "unit": DECODER, "max_seq_len": 3},
         "x": {"class": "reduce", "mode": "max", "axis": "T", "from": "inner_x"}, "inner_x": linear("inner")},
        [],
        "a search in a loop inside of another loop is not supported",
    ),
    "a sequence that the loop computes": (
        "eval",
        {"x": {"class": "combine", "kind": "add", "from": ["data:source", "base:encoder"]},
         "frame": {"class": "rec_unstack", "from": "x"}, "output": linear("frame")},
        "data",
        "the source is computed in the loop, step by step",
    ),
    "a window that grows from step to step": (
        "eval",
        {"x": {"class": "window", "window_size": 3, "from": "all"},
         "all": {"class": "combine", "kind": "add", "from": ["base:encoder", "prev:x"]},
         "output": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"}},
        "data",
        "occurs twice in",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    mode, unit, source, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        for enabled in (True, False):
            optimized(build(config_of(unit, source), mode, targets=mode != "search"), enabled)


def test_a_loop_over_the_dim_of_the_loop_around() -> None:
    inner = {"class": "rec", "from": [], "target": "classes", "unit": {"output": linear("prev:output")}}
    unit = {
        "inner": inner,
        "x": {"class": "reduce", "mode": "mean", "axis": "T", "from": "inner"},
        "output": linear("x"),
    }
    with pytest.raises(ConfigError, match="but so does the loop around"):
        build(config_of(unit, []), "eval")


SAME: dict[str, dict[str, Any]] = {
    "a history whose mask depends on it": {
        "attended": {
            "class": "masked_computation", "mask": "mask", "from": "data:source",
            "unit": {"class": "self_attention", "num_heads": 1, "total_key_dim": 2, "n_out": SIZE,
                     "attention_left_only": True, "from": "data"},
        },
        "both": linear("prev:attended", "data:source"),
        "first": {"class": "reduce", "mode": "sum", "axis": "F", "from": "both"},
        "mask": {"class": "compare", "from": "first", "kind": "greater", "value": 0.0},
        "output": linear("attended"),
    },
    "a frame of a sequence around": {
        "frame": {"class": "rec_unstack", "from": "base:encoder", "axis": "T"},
        "output": linear("frame", "prev:output"),
    },
    "a loop that ends itself in each step of one without a cycle": {
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "inner"},
        "inner": {
            "class": "rec", "from": [], "max_seq_len": 3,
            "unit": {
                "output": linear("prev:output", "base:data:source"),
                "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "output"},
                "end": {"class": "compare", "from": "sum", "kind": "greater", "value": 0.0},
            },
        },
        "output": linear("mean"),
    },
    "a sum behind a state of a number": {
        "mask": {"class": "compare", "from": "sum", "kind": "greater", "value": 0.0},
        "sum": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"},
        "masked": {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": linear("data")},
        "shown": {"class": "unmask", "from": "masked", "mask": "mask", "initial_output": 0},
        "total": {"class": "reduce", "mode": "sum", "axis": "F", "from": "prev:shown"},
        "output": {"class": "copy", "from": "total"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_same(name: str) -> None:
    config = config_of(SAME[name])
    del config["network"]["output"]["target"], config["extern_data"]["classes"]
    config["network"]["loss"] = {"class": "activation", "activation": "tanh", "from": "output", "loss": "as_is"}
    built = build(config, "eval")
    feed, lengths = feed_of({"extern_data": {"classes": {}}})
    both = [run(built, optimized(built, enabled), feed, lengths) for enabled in (True, False)]
    assert_equal(*both)
    assert both[0]["objective"].dims == ()
