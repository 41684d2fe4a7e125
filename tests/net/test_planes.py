"""twod_lstm: optimised as plain, a batch as its sequences, under masks and in search; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

EXTERN_DATA = {"data": {"dim": 4}, "frames": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}
LENGTHS = {"data": [5, 2, 3], "frames": [4, 3, 1], "classes": [4, 3, 1]}
OBJECTIVE = {"class": "activation", "activation": "tanh", "from": "output", "loss": "as_is"}
TARGET = {"class": "linear", "activation": "tanh", "n_out": 4, "from": "data:source"}
PLANE = {"class": "twod_lstm", "n_out": 3, "from": ["base:data:data", "target"]}
MASKED_PLANE = {"class": "twod_lstm", "n_out": 3, "from": ["base:data:data", "data"]}
SCORES = {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True}
STEP = {
    "first": {"class": "gather", "axis": "F", "position": 0, "from": "data:source"},
    "mask": {"class": "compare", "kind": "greater", "value": -0.3, "from": "first"},
}
BODIES: dict[str, dict[str, Any]] = {
    "leaves": {"target": TARGET, "output": PLANE},
    "cycle": {"target": {**TARGET, "from": ["data:source", "prev:output"]}, "output": PLANE},
    "before": {"target": TARGET, "y": PLANE, "output": {"class": "copy", "from": ["y", "prev:y"]}},
    "each step another first source": {
        "target": {**TARGET, "from": ["data:source", "prev:output"]},
        "seen": {"class": "combine", "kind": "mul", "from": ["base:data:data", "target"]},
        "output": {**PLANE, "from": ["seen", "target"]},
    },
    "first source of a step, no cycle": {
        "target": TARGET,
        "seen": {"class": "combine", "kind": "mul", "from": ["base:data:data", "target"]},
        "output": {**PLANE, "from": ["seen", "target"]},
    },
    "the loop's own frames": {"target": TARGET, "output": {**PLANE, "from": ["base:data:frames", "target"]}},
    "both of one sequence from around": {
        "target": TARGET,
        "plane": {**PLANE, "from": ["base:data:data", "base:data:data"]},
        "last": {"class": "reduce", "mode": "max", "axis": "T", "from": "plane"},
        "output": {"class": "copy", "from": ["last", "target"]},
    },
    "rows of what the step before made, along the same frames": {
        "target": {**TARGET, "from": ["data:source", "prev:last"]},
        "seen": {"class": "combine", "kind": "mul", "from": ["base:data:data", "target"]},
        "plane": {**PLANE, "from": ["prev:seen", "base:data:data"]},
        "last": {"class": "reduce", "mode": "max", "axis": "T", "from": "plane"},
        "output": {"class": "copy", "from": ["last", "target"]},
    },
    "masked": {
        **STEP,
        "target": TARGET,
        "output": {"class": "masked_computation", "mask": "mask", "from": "target", "unit": MASKED_PLANE},
    },
    "masked cycle": {
        **STEP,
        "target": {**TARGET, "from": ["data:source", "prev:output"]},
        "output": {"class": "masked_computation", "mask": "mask", "from": "target", "unit": MASKED_PLANE},
    },
}


def feed(batch: int = 3) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {
        "data": draw.standard_normal((batch, 5, 4)),
        "frames": draw.standard_normal((batch, 4, 4)),
        "classes": draw.integers(1, 5, (batch, 4)),
    }


def compiled(network: dict[str, Any], mode: str, optimize: bool) -> Any:
    net = rl.compile(network, EXTERN_DATA, mode, optimize=optimize, behavior_version=21, dtype="float64")
    for name, variable in sorted(net.params.items()):
        draw = np.random.default_rng([ord(letter) for letter in name])
        variable.assign(draw.standard_normal(variable.shape) * 0.7)
    return net


def in_loop(body: dict[str, Any]) -> dict[str, Any]:
    return {"output": {"class": "rec", "from": "data:frames", "unit": body}, "objective": OBJECTIVE}


def real_frames(output: np.ndarray) -> list[np.ndarray]:
    return [row[:length] for row, length in zip(output, LENGTHS["frames"], strict=True)]


def of_sequence(arrays: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    return {key: array[index : index + 1, : LENGTHS[key][index]] for key, array in arrays.items()}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("pooling", ["last", "max", "average", "weighted"])
def test_outside_is_a_loop_of_rows(pooling: str) -> None:
    """The whole plane, the row in a loop that is one, and sequence by sequence."""
    layer = {**PLANE, "pooling": pooling}
    outside = {"output": {**layer, "from": ["data", "data:frames"]}, "objective": OBJECTIVE}
    rows = in_loop({"output": {**layer, "from": ["base:data:data", "data:source"]}})
    found = []
    for network, optimize in ((outside, True), (rows, False), (rows, True)):
        net = compiled(network, "train", optimize)
        for seed, variable in enumerate(net.params.values()):
            variable.assign(np.random.default_rng(seed).standard_normal(variable.shape))
        output = real_frames(net.run(feed(), seq_lens=LENGTHS).layers["output"].value)
        found.append([*output, *net.gradients(feed(), seq_lens=LENGTHS).values()])
        if optimize:
            continue
        for index, frames in enumerate(output):
            lengths = {key: [n[index]] for key, n in LENGTHS.items()}
            own = net.run(of_sequence(feed(), index), seq_lens=lengths).layers["output"].value
            np.testing.assert_allclose(own[0], frames, rtol=1e-9)
    plane, *others = found
    for other in others:
        for array, wanted in zip(other, plane, strict=True):
            np.testing.assert_allclose(array, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_optimised_is_plain(body: dict[str, Any]) -> None:
    found = []
    for optimize in (True, False):
        net = compiled(in_loop(body), "train", optimize)
        output = net.run(feed(), seq_lens=LENGTHS).layers["output"]
        found.append((real_frames(output.value), net.gradients(feed(), seq_lens=LENGTHS)))
    for row, plain in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(row, plain, rtol=1e-9, atol=1e-12)
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(gradient, found[1][1][name], rtol=1e-8, atol=1e-12, err_msg=name)
        assert np.abs(gradient).max() > 1e-6, name


def test_leaves_its_loop() -> None:
    places = {name: compiled(in_loop(BODIES[name]), "train", True).placement for name in ("leaves", "cycle")}
    assert places["leaves"]["output/output"] != "loop"
    assert places["cycle"]["output/output"] == "loop"


@pytest.mark.parametrize("first", ["base:data:data", "seen"])
def test_search(first: str) -> None:
    """Each hypothesis has rows of its own: scores are those of the labels, given one after the other."""
    body = {
        "output": {"class": "choice", "target": "classes", "beam_size": 4, "from": "prob", "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
        "target": {"class": "linear", "activation": None, "n_out": 4, "from": "prev:output"},
        "seen": {"class": "combine", "kind": "mul", "from": ["base:data:data", "target"]},
        "y": {**PLANE, "from": [first, "target"]},
        "scaled": {"class": "eval", "eval": "source(0) * 3.0", "from": "y"},
        "prob": {"class": "softmax", "target": "classes", "loss": "ce", "from": "scaled"},
    }
    body["output"] = {**body["output"], "length_normalization": False}
    loop = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 5, "unit": body}
    found = {}
    for optimize in (True, False):
        net = compiled({"output": loop, "scores": SCORES}, "search", optimize)
        inputs = {"data": feed()["data"]}
        found[optimize] = net.run(inputs, seq_lens={"data": LENGTHS["data"]}).layers
    output, plain = found[True]["output"], found[False]["output"]
    scores = found[True]["scores"].value
    np.testing.assert_array_equal(output.value, plain.value)
    np.testing.assert_allclose(scores, found[False]["scores"].value, rtol=1e-9)
    assert len({tuple(labels) for labels in output.value[0]}) > 1
    train = compiled({"output": loop}, "train", True)
    (steps,) = (lengths for name, lengths in output.seq_lens.items() if name != "data")
    for sequence in range(3):
        for hypothesis in range(4):
            length = int(steps[sequence, hypothesis])
            labels = output.value[sequence, hypothesis, :length]
            inputs = {"data": feed()["data"][[sequence]], "classes": np.append(labels, 0)[None][:, : length + 1]}
            lengths = {"data": [LENGTHS["data"][sequence]], "classes": [min(length + 1, 5)]}
            inputs["classes"] = inputs["classes"][:, : lengths["classes"][0]]
            loss = train.run(inputs, seq_lens=lengths).losses["output/prob"].sum
            np.testing.assert_allclose(-loss, scores[sequence, hypothesis], rtol=1e-6)


def test_initialisers() -> None:
    """There is one for all weights: that of the recurrent ones, else that of the others."""
    for options, wanted in (
        ({"recurrent_weights_init": 0.5, "forward_weights_init": 0.25}, 0.5),
        ({"forward_weights_init": 0.25}, 0.25),
    ):
        layer = {**PLANE, "from": ["data", "data:frames"], "pooling": "weighted", **options}
        net = rl.compile({"output": layer}, EXTERN_DATA, "forward", behavior_version=21)
        assert {name: variable.shape.as_list() for name, variable in net.params.items()} == {
            "output/rec-twod/W_re": [8, 15],
            "output/rec-twod/Vh_re": [3, 15],
            "output/rec-twod/Vv_re": [3, 15],
            "output/rec-twod/W_att": [4, 3],
        }
        for variable in net.params.values():
            np.testing.assert_array_equal(variable.numpy(), wanted)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"bias_init": 1.0}, "bias_init: 1.0 is not supported"),
        ({"unit_opts": {"step": 1}}, "a 2D LSTM has no option 'step'"),
        ({"pooling": "mean"}, "pooling"),
        ({"from": ["data"]}, "source"),
        ({"from": ["data", "one"]}, "the second source has no time axis"),
        ({"from": ["one", "data"]}, "the first source has no time axis"),
        ({"from": ["data", "data:classes"]}, "'data:classes' must have a feature dim"),
    ],
)
def test_refused(layer: dict[str, Any], message: str) -> None:
    one = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    network = {"one": one, "output": {"class": "twod_lstm", "n_out": 3, "from": ["data", "data:frames"], **layer}}
    with pytest.raises(rl.ConfigError, match=message):
        rl.compile(network, EXTERN_DATA, "forward", behavior_version=21)


def test_a_history_is_no_first_source() -> None:
    body = {
        "target": TARGET,
        "history": {"class": "cum_concat", "from": "target", "out_spatial_dim": rl.Dim("history")},
        "output": {**PLANE, "from": ["history", "target"]},
    }
    with pytest.raises(rl.ConfigError, match="differs from step to step"):
        rl.compile(in_loop(body), EXTERN_DATA, "train", behavior_version=21)
