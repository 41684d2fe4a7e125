"""What reads the hypotheses of a search: their scores, which ones they continue, and all of them side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite import ConfigError

BEAM, CLASSES, STEPS = 3, 5, 4
BOTH = pytest.mark.parametrize("optimize", [True, False])
EXTERN = {"data": {"dim": 3}, "classes": {"dim": CLASSES, "sparse": True}}
Net = dict[str, Any]


def out(cls: str, source: str, **options: Any) -> Net:
    return {"class": cls, "from": source, "is_output_layer": True, **options}


def network(around: Net | None = None, inside: Net | None = None, **rec: Any) -> Net:
    """Labels that depend on the label before and the sequence; 0 ends."""
    unit = {
        "logits": {"class": "linear", "activation": None, "from": ["prev:embed", "base:start"], "n_out": CLASSES},
        "prob": {"class": "activation", "activation": "softmax", "from": "logits"},
        "output": {
            "class": "choice",
            "from": "prob",
            "target": "classes",
            "beam_size": BEAM,
            "initial_output": 0,
            "length_normalization": False,
        },
        "embed": {"class": "linear", "activation": "tanh", "from": "output", "n_out": 3, "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
        **(inside or {}),
    }
    start = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    loop = {"class": "rec", "from": [], "target": "classes", "unit": unit, "max_seq_len": STEPS, **rec}
    return {"start": start, "output": loop, **(around or {})}


def run(net: Net, optimize: bool, mode: Any = "search") -> dict[str, np.ndarray]:
    """Each output with the batch first, then the hypotheses, then the rest as it comes."""
    compiled = rl.compile(net, extern_data=EXTERN, mode=mode, optimize=optimize, behavior_version=21)
    generator = np.random.default_rng(7)
    for name in sorted(compiled.params):
        compiled.params[name].assign(generator.normal(size=compiled.params[name].shape) * 1.5)
    data = np.random.default_rng(1).normal(size=(2, 3, 3)).astype("float32")
    inputs = {"data": data, "classes": [[1, 2, 3], [4, 0, 0]]}
    result = compiled.run(inputs, {"data": [3, 2], "classes": [3, 2]})
    arrays = {}
    for name, layer in result.layers.items():
        place = {dim: i for i, dim in enumerate(layer.dims)}
        first = [place[dim] for dim in layer.dims if dim == "B"] + [place[d] for d in layer.dims if "beam" in d]
        rest = [i for i in range(len(layer.dims)) if i not in first]
        arrays[name] = np.transpose(np.asarray(layer.value), [*first, *rest])
        for lengths in layer.seq_lens.values():
            arrays[f"{name}:lengths"] = np.asarray(lengths)
    return arrays


@BOTH
def test_hypotheses_along_a_dim_of_their_own(optimize: bool) -> None:
    around = {
        "scores": out("choice_get_beam_scores", "output"),
        "split": out("split_batch_beam", "output"),
        "split_scores": out("split_batch_beam", "scores", beam_dim=rl.Dim("mine", rl.DimKind.SPATIAL, BEAM)),
        "sum": out("reduce", "split_scores", mode="sum", axis="stag:mine"),
        "labels": out("reduce", "split", mode="max", axis="T"),
        "same": out("split_batch_beam", "seen"),
        "seen": {"class": "combine", "kind": "add", "from": ["start_of", "zero"]},
        "start_of": {"class": "reduce", "mode": "sum", "axis": "F", "from": "start"},
        "zero": {"class": "eval", "from": "scores", "eval": "source(0) * 0.0"},
    }
    found = run(network(around), optimize)
    np.testing.assert_array_equal(found["split"], found["output"])
    np.testing.assert_array_equal(found["split:lengths"], found["output:lengths"])
    assert found["split"].shape[:2] == (2, BEAM)
    np.testing.assert_allclose(np.sort(found["split_scores"])[:, ::-1], found["scores"], rtol=1e-6)
    np.testing.assert_allclose(found["sum"], found["scores"].sum(1), rtol=1e-6)
    lengths = np.reshape(found["output:lengths"], (2, BEAM))
    rows = found["output"].reshape(2 * BEAM, -1)
    for row, longest, count in zip(rows, found["labels"].ravel(), lengths.ravel(), strict=True):
        assert count == 0 or row[:count].max() == longest
    assert found["same"].shape == (2, BEAM)
    np.testing.assert_array_equal(found["same"], found["same"][:, :1].repeat(BEAM, 1))


@BOTH
def test_lengths_of_hypotheses(optimize: bool) -> None:
    """Each has its own: of the labels, of some more, and of those that a mask leaves."""
    around = {
        "length": out("length", "output", axis="T"),
        "longer": {"class": "postfix_in_time", "from": "output", "postfix": 1, "repeat": 2},
        "more": out("length", "longer", axis="T"),
        "mask": {"class": "compare", "kind": "not_equal", "value": 2, "from": "output"},
        "kept": {"class": "masked_computation", "mask": "mask", "from": "output", "unit": {"class": "copy"}},
        "fewer": out("length", "kept", axis="T"),
        "score": {"class": "choice_get_beam_scores", "from": "output"},
        "times": {"class": "cast", "dtype": "float32", "from": "length"},
        "product": {"class": "combine", "kind": "mul", "from": ["score", "times"], "is_output_layer": True},
    }
    found = run(network(around, {"end": {"class": "compare", "from": "output", "value": 3}}), optimize)
    lengths = np.reshape(found["output:lengths"], (2, BEAM))
    assert len(set(lengths.ravel())) > 1
    np.testing.assert_array_equal(found["length"], lengths)
    np.testing.assert_array_equal(found["more"], lengths + 2)
    real = np.arange(found["output"].shape[2]) < lengths[..., None]
    twos = (real & (found["output"] == 2)).sum(2)
    assert twos.any()
    np.testing.assert_array_equal(found["fewer"], lengths - twos)
    np.testing.assert_allclose(found["product"], found["score"] * lengths, rtol=1e-6)


@BOTH
def test_which_hypothesis_each_one_continues(optimize: bool) -> None:
    """Without their last order, the steps' pointers and scores: here they are in the last order, like all that a loop
    leaves."""
    inside = {
        "back": out("choice_get_src_beams", "output"),
        "score": out("choice_get_beam_scores", "embed"),
        "gain": {"class": "combine", "kind": "sub", "from": ["score", "before"], "is_output_layer": True},
        "before": {"class": "copy", "from": "prev:score"},
    }
    around = {
        "order": out("choice_get_src_beams", "output"),
        "scores": out("choice_get_beam_scores", "output"),
        "kept": out("decide_keep_beam", "scores"),
    }
    found = run(network(around, inside, include_eos=True), optimize)
    np.testing.assert_array_equal(found["order"], found["output/back"][:, :, -1])
    np.testing.assert_array_equal(found["kept"], found["scores"])
    back = found["output/back"]
    assert (back[:, :, 0] == 0).all(), "there is one hypothesis at the beginning"
    assert back.max() > 0
    np.testing.assert_allclose(found["output/score"][:, :, -1], found["scores"], rtol=1e-6)
    steps = np.diff(found["output/score"], axis=2, prepend=0.0)
    np.testing.assert_allclose(found["output/gain"], steps, rtol=1e-4, atol=1e-5)
    assert (steps <= 1e-6).all()


def test_optimised_is_as_unoptimised() -> None:
    inside = {"back": out("choice_get_src_beams", "output"), "score": out("choice_get_beam_scores", "output")}
    around = {"split": out("split_batch_beam", "output"), "score_split": out("split_batch_beam", "output/score")}
    fast, plain = (run(network(around, inside), optimize) for optimize in (True, False))
    assert set(fast) == set(plain)
    for name, value in fast.items():
        np.testing.assert_allclose(value, plain[name], rtol=1e-5, atol=1e-6, err_msg=name)


@BOTH
def test_without_search_there_is_one_sequence(optimize: bool) -> None:
    around = {"kept": out("decide_keep_beam", "output")}
    inside = {"kept": out("decide_keep_beam", "output")}
    found = run(network(around, inside), optimize, "forward")
    np.testing.assert_array_equal(found["kept"], found["output"])
    np.testing.assert_array_equal(found["output/kept"], found["output"])


@pytest.mark.parametrize(
    ("around", "inside", "mode", "wanted"),
    [
        ({"x": out("split_batch_beam", "output")}, {}, "forward", "'output' does not come from search"),
        ({"x": out("choice_get_src_beams", "start")}, {}, "search", "does not come from search"),
        ({"x": out("split_batch_beam", "output", beam_dim=4)}, {}, "search", "but there are 3 hypotheses"),
        ({}, {"x": out("split_batch_beam", "output")}, "search", "are known when it has ended"),
        ({}, {"x": out("choice_get_src_beams", "prev:output")}, "search", "depends on no choice of this step"),
        ({}, {"x": out("choice_get_beam_scores", "output")}, "forward", "depends on no choice of this step"),
        ({}, {"x": out("decide_keep_beam", "output")}, "search", "what a loop computes follows its hypotheses"),
    ],
)
def test_refused(around: Net, inside: Net, mode: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(network(around, inside), True, mode)
    assert wanted in str(caught.value)
