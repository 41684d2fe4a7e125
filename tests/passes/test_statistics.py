"""Statistics over all steps of a loop: batch_norm in training leaves the loop, whether other layers do or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.ir import Graph, InLoop, Loop, walk
from returnn_lite.verification.comparison import compare
from tests.properties.running import LENGTHS, assert_equal, parameters_of, run

SIZE = 3
X = np.random.default_rng(3).normal(size=(3, 4, SIZE))
FRAMES = np.arange(4) < LENGTHS["data"][:, None]


def linear(*sources: str) -> dict[str, Any]:
    return {"class": "linear", "from": list(sources), "n_out": SIZE, "activation": "tanh"}


def norm(source: str, **options: Any) -> dict[str, Any]:
    return {"class": "batch_norm", "from": source, "masked_time": True, **options}


MASK = {
    "positive": {"class": "compare", "from": "data:source", "kind": "greater", "value": 0.0},
    "mask": {"class": "reduce", "mode": "any", "axis": "F", "from": "positive"},
}
UNITS: dict[str, dict[str, Any]] = {
    "of the input": {"bn": norm("data:source"), "output": linear("bn", "prev:output")},
    "behind a cycle": {"a": linear("data:source", "prev:a"), "bn": norm("a"), "output": linear("bn")},
    "between cycles": {
        "a": linear("data:source", "prev:a"),
        "bn": norm("a"),
        "b": linear("bn", "prev:b"),
        "bn2": norm("b", use_sample=0.5, delay_sample_update=False),
        "output": linear("bn2", "a"),
    },
    "of what no step changes": {"bn": norm("base:mean"), "output": linear("bn", "data:source")},
    "of what is the same for all sequences": {
        "a": linear("prev:a"),
        "bn": norm("a"),
        "output": linear("bn", "data:source"),
    },
    "under a mask": {
        **MASK,
        "bn": {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": norm("data")},
        "output": linear("bn", "prev:output"),
    },
    "under a mask behind a cycle": {
        **MASK,
        "a": linear("data:source", "prev:a"),
        "bn": {"class": "masked_computation", "mask": "mask", "from": "a", "unit": norm("data")},
        "output": linear("bn", "prev:output"),
    },
}


def config_of(unit: dict[str, Any], version: int = 21) -> dict[str, Any]:
    return {
        "behavior_version": version,
        "extern_data": {"data": {"dim": SIZE}},
        "network": {
            "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
            "output": {"class": "rec", "from": "data", "unit": unit},
        },
    }


def statistics_in_loops(graph: Graph) -> list[str]:
    loops = [node.op for node in graph.nodes if isinstance(node.op, Loop)]
    inner = (node for loop in loops for node in walk(loop.body))
    return [node.outputs[0].name for node in inner if node.op.in_loop is InLoop.WHOLE_AXIS]


@pytest.mark.tensorflow
@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", UNITS)
def test_plain_is_optimised_in_tensorflow(name: str) -> None:
    """With gradients."""
    assert not [layer for layer, far in compare(config_of(UNITS[name]), "train", batch=3).items() if far.is_one]


@pytest.mark.parametrize("version", [0, 21])
@pytest.mark.parametrize("name", UNITS)
def test_plain_is_optimised(name: str, version: int) -> None:
    built = build(config_of(UNITS[name], version), "train")
    graphs = [optimized(built, enabled) for enabled in (True, False)]
    assert not statistics_in_loops(graphs[0]) and not statistics_in_loops(graphs[1])
    both = [run(built, graph, {"data": X}, {"data": LENGTHS["data"]}) for graph in graphs]
    assert_equal(*both)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_a_run_in_a_loop_assigns_the_running_statistics_once(masked: bool, optimize: bool) -> None:
    """From the real frames of all steps, or of those at which the mask is true."""
    x, lengths = X.astype("float32"), LENGTHS["data"]
    bn = norm("data:source", update_sample_only_in_training=False, momentum=0.5)
    unit = {"output": bn}
    if masked:
        unit = {**MASK, "output": {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": bn}}
        unit["output"]["unit"] = {**bn, "from": "data"}
    net = rl.compile(
        config_of(unit)["network"], {"data": {"dim": SIZE}}, "train", behavior_version=21, optimize=optimize
    )
    net.run({"data": x}, {"data": lengths})
    counted = x[FRAMES & (x > 0).any(-1)] if masked else x[FRAMES]
    (mean,) = (value.numpy() for name, value in net.params.items() if name.endswith("mean"))
    np.testing.assert_allclose(mean, 0.5 * counted.mean(0), rtol=1e-5)


def normalized(frames: np.ndarray, parameters: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    centered = frames - frames.mean(0)
    scaled = centered / np.sqrt(np.square(centered).mean(0) + 1e-3)
    return scaled * parameters[f"{prefix}/batch_norm/v2_gamma"] + parameters[f"{prefix}/batch_norm/v2_beta"]


@pytest.mark.parametrize("name", ["of the input", "under a mask"])
def test_statistics_are_over_real_frames(name: str) -> None:
    """Of a layer under a mask, those at which the mask is true; between them its last value is held."""
    built = build(config_of(UNITS[name]), "train")
    found = run(built, optimized(built, False), {"data": X}, {"data": LENGTHS["data"]})["layer:output/bn"]
    counted = FRAMES & (X > 0).any(-1) if name == "under a mask" else FRAMES
    expected = np.zeros_like(X)
    expected[counted] = normalized(X[counted], parameters_of(built), "output/rec/bn")
    for step in range(1, 4):
        expected[:, step] = np.where(counted[:, step, None], expected[:, step], expected[:, step - 1])
    values = found.array.transpose([found.dims.index(dim) for dim in built.graph.axes("layer:output/bn")])
    np.testing.assert_allclose(np.where(FRAMES[..., None], values, 0), np.where(FRAMES[..., None], expected, 0), 1e-6)


def test_what_is_the_same_for_all_sequences_counts_in_each() -> None:
    """As often as there are sequences with the frame."""
    config = config_of(UNITS["of what is the same for all sequences"])
    built = build(config, "train")
    found = run(built, optimized(built), {"data": X}, {"data": LENGTHS["data"]})
    same, normed = (found[f"layer:output/{name}"] for name in ("a", "bn"))
    time, feature = built.graph.axes("layer:output/a")
    batch = next(dim for dim in normed.dims if dim not in (time, feature))
    frames = np.broadcast_to(same.over((batch, time, feature)), (3, 4, SIZE))[FRAMES]
    expected = normalized(frames, parameters_of(built), "output/rec/bn")
    np.testing.assert_allclose(normed.over((batch, time, feature))[FRAMES], expected, 1e-6)


@pytest.mark.parametrize("enabled", [True, False])
def test_in_a_cycle_is_an_error_that_names_it(enabled: bool) -> None:
    built = build(config_of({"a": linear("data:source", "prev:bn"), "bn": norm("a"), "output": linear("bn")}), "train")
    with pytest.raises(
        ConfigError, match=r"'output/bn' needs all steps .* the cycle output/bn -> output/a -> output/bn"
    ):
        optimized(built, enabled)
