"""What is the same for all sequences has frames but no batch: every layer on it does as if each sequence had its own.

The right values are those of the layer on the same frames, repeated for each sequence.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.dims import DimKind
from tests.commit import takes_part
from tests.net.without_batch import PROBES, Layers, uncovered
from tests.properties.running import assert_equal, part_of, run, sequence_of
from tests.reference.named import Array

EXTERN_DATA = {
    "data": {"dim": 4},
    "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "data"}},
    "labels": {"dim": 5, "sparse": True},
}
GENERATOR = np.random.default_rng(5)
FEED: dict[str, Array] = {
    "data": GENERATOR.normal(size=(3, 5, 4)).astype("float32"),
    "classes": GENERATOR.integers(0, 5, (3, 5)),
    "labels": GENERATOR.integers(0, 5, (3, 2)),
}
LENGTHS: dict[str, Array] = {key: np.array([5, 2, 4]) for key in ("data", "classes")} | {"labels": np.array([2, 1, 2])}
FRAMES: dict[str, Any] = {
    "positions": {"class": "positional_encoding", "from": "data"},
    "frames": {"class": "linear", "n_out": 4, "activation": "tanh", "from": "positions"},
    "number": {"class": "range_in_axis", "axis": "T", "from": "data"},
    "sums": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data"},
    "zero": {"class": "eval", "eval": "source(0) * 0.0", "from": "sums"},
}
SHARED = {"class": "copy", "from": "frames"}
REPEATED = {"class": "combine", "kind": "add", "from": ["zero", "frames"], "allow_broadcast_all_sources": True}
RESULT = {
    "floats": {"class": "cast", "dtype": "float32", "from": "o"},
    "output": {"class": "eval", "eval": "tf.square(source(0)) + source(0)", "from": "floats", "loss": "as_is"},
}


def network(probe: Layers, x: dict[str, Any]) -> dict[str, Any]:
    return {**FRAMES, "x": x, **probe, **RESULT}


def evaluated(probe: Layers, x: dict[str, Any], optimize: bool) -> dict[str, Array]:
    """The losses, as NumPy computes them: sums, and what they are divided by."""
    built = build({"network": network(probe, x), "extern_data": EXTERN_DATA, "behavior_version": 21}, "eval")
    found = run(built, optimized(built, optimize), FEED, LENGTHS)
    return {name: value.array for name, value in found.items() if name.startswith("loss:")}


def test_every_class_has_a_probe() -> None:
    assert uncovered() == set()


@pytest.mark.parametrize("name", PROBES)
def test_as_if_each_sequence_had_its_own(name: str) -> None:
    wanted = evaluated(PROBES[name], REPEATED, optimize=False)
    assert wanted
    for optimize in (True, False):
        found = evaluated(PROBES[name], SHARED, optimize)
        assert found.keys() == wanted.keys()
        for key, value in found.items():
            np.testing.assert_allclose(value, wanted[key], rtol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", [name for name in PROBES if takes_part(name, 8)])
def test_trains_as_if_each_sequence_had_its_own(name: str) -> None:
    """With gradients, in TensorFlow."""
    networks = [
        rl.compile(network(PROBES[name], x), EXTERN_DATA, "train", behavior_version=21) for x in (SHARED, REPEATED)
    ]
    for key, variable in networks[0].params.items():
        value = np.abs(np.random.default_rng(zlib.crc32(key.encode())).normal(0, 0.4, variable.shape))
        for one in networks:
            one.params[key].assign(value)
    shared, repeated = (one.gradients(FEED, LENGTHS) for one in networks)
    assert set(shared) == set(repeated)
    for key, gradient in shared.items():
        np.testing.assert_allclose(gradient, repeated[key], rtol=1e-3, atol=1e-4, err_msg=key)


IN_LOOPS = (
    *(
        "reduce mean",
        "norm",
        "top_k",
        "rec nativelstm2 -1",
        "loop",
        "cum_concat",
        "self_attention to the left",
        "window",
    ),
    *("shift_axis back", "concat", "slice from the end", "repeat by number", "gather", "conv valid", "pool avg"),
)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", IN_LOOPS)
def test_in_a_loop_over_other_frames(name: str, masked: bool) -> None:
    """What is known around a loop, in its steps and under masks: as with a batch, optimised or not."""
    probe = {"number": {"class": "range_in_axis", "axis": "T", "from": "x"}, **PROBES[name], "floats": RESULT["floats"]}
    found = []
    for x in (SHARED, REPEATED):
        x_of_step: dict[str, Any] = {"x": {"class": "copy", "from": "base:base:x" if masked else "base:x"}}
        mean = {"class": "reduce", "mode": "mean", "axis": "except_batch", "from": "floats"}
        below = {**x_of_step, **probe, "output": mean}
        unit: dict[str, Any] = {**below, "mean": mean}
        if masked:
            sub = {"class": "subnetwork", "from": "data", "subnetwork": below}
            unit = {
                "level": {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"},
                "mask": {"class": "compare", "kind": "greater", "value": 0.0, "from": "level"},
                "mean": {"class": "masked_computation", "mask": "mask", "from": "data:source", "unit": sub},
            }
        unit["output"] = {
            "class": "combine",
            "kind": "add",
            "from": ["state", "mean"],
            "allow_broadcast_all_sources": True,
        }
        unit["state"] = linear_of_both = {"class": "linear", "n_out": 3, "activation": "tanh"}
        linear_of_both["from"] = ["data:source", "prev:state"]
        layers = {
            **FRAMES,
            "x": x,
            "embed": {"class": "linear", "n_out": 3, "from": "data:other"},
            "output": {"class": "rec", "from": "embed", "unit": unit, "loss": "as_is"},
        }
        config = {
            "network": layers,
            "behavior_version": 21,
            "extern_data": {**EXTERN_DATA, "other": {"dim": 5, "sparse": True}},
        }
        built = build(config, "eval")
        feed = {**FEED, "other": FEED["classes"][:, :4]}
        for optimize in (True, False):
            results = run(built, optimized(built, optimize), feed, {**LENGTHS, "other": np.array([1, 4, 2])})
            found.append(float(results["loss:output:sum"].array))
    np.testing.assert_allclose(found, found[0], rtol=1e-7)


SEARCH: dict[str, Any] = {
    "class": "rec", "from": [], "target": "classes", "max_seq_len": 5,
    "unit": {
        "state": {"class": "linear", "activation": "tanh", "n_out": 4, "from": ["prev:embed", "base:mean"]},
        "prob": {"class": "softmax", "from": "state", "target": "classes"},
        "output": {"class": "choice", "target": "classes", "beam_size": 3, "from": "prob", "initial_output": 0},
        "embed": {"class": "linear", "activation": None, "n_out": 4, "from": "output", "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in IN_LOOPS if name != "cum_concat"])  # all hypotheses share that
def test_behind_a_search(name: str) -> None:
    """Each hypothesis has its own number of frames: a sequence decides for the same alone, optimised or not."""
    layers = {
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "labels": SEARCH,
        "embedded": {"class": "linear", "n_out": 4, "from": "labels"},
        "positions": {"class": "positional_encoding", "from": "embedded"},
        "x": {"class": "linear", "n_out": 4, "activation": "tanh", "from": "positions"},
        "number": {"class": "range_in_axis", "axis": "T", "from": "labels"},
        **PROBES[name],
        "floats": RESULT["floats"],
        "output": {"class": "decide", "from": "floats"},
    }
    keys = {"data": EXTERN_DATA["data"], "classes": {"dim": 5, "sparse": True, "available_for_inference": False}}
    built = build({"network": layers, "extern_data": keys, "behavior_version": 21}, "search")
    feed, lengths = {"data": FEED["data"]}, {"data": LENGTHS["data"]}
    plain = run(built, optimized(built, False), feed, lengths)
    fast = run(built, optimized(built, True), feed, lengths)
    assert_equal({"output": fast["layer:output"]}, {"output": plain["layer:output"]})
    for i in range(3):
        alone = run(built, optimized(built, True), *sequence_of(feed, lengths, i), i)["layer:output"]
        part = part_of(plain["layer:output"], i, alone)
        assert part is not None
        at = [axis for axis, dim in enumerate(alone.dims) if dim.kind is not DimKind.BATCH]
        dims = [dim for dim in plain["layer:output"].dims if dim.kind is not DimKind.BATCH]
        single = alone.array.take(0, next(a for a in range(alone.array.ndim) if a not in at))
        order = [[alone.dims[a] for a in at].index(dim) for dim in dims]
        np.testing.assert_allclose(part, single.transpose(order), rtol=1e-7, atol=1e-9)
