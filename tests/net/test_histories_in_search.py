"""Histories in a search whose hypotheses have differently many frames, as a mask says: the score of a hypothesis is
what its labels get in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

EXTERN_DATA = {
    "data": {"dim": 3},
    "classes": {"dim": 5, "sparse": True, "available_for_inference": False, "same_dim_tags_as": {"t": "data"}},
}
X = np.random.default_rng(5).normal(size=(3, 7, 3)).astype("float32")
LENGTHS = [7, 4, 2]
BEAM = 4
ATTENTION = {
    "class": "self_attention",
    "num_heads": 1,
    "total_key_dim": 2,
    "n_out": 3,
    "attention_left_only": True,
    "from": "data",
}
RELATIVE = {
    "class": "subnetwork",
    "from": "data",
    "subnetwork": {
        "shift": {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "data"},
        "output": {**ATTENTION, "key_shift": "shift"},
    },
}
LESS = {"class": "compare", "kind": "less", "value": 3, "initial_output": True}
OTHER = {**LESS, "from": "output"}
OF_MASKED = {"class": "masked_computation", "mask": "odd", "from": "output", "unit": {**LESS, "from": "data"}}


def network(unit: dict[str, Any], mask: str, source: str, other: dict[str, Any]) -> dict[str, Any]:
    """A transducer whose scores depend on what a history of some of its labels gives."""
    body = {
        "other": other,
        "odd": {"class": "compare", "kind": "not_equal", "from": "output", "value": 1, "initial_output": True},
        "seen": {"class": "masked_computation", "mask": mask, "from": source, "unit": unit},
        "s": {"class": "linear", "from": ["data:source", "prev:seen"], "n_out": 4, "activation": "tanh"},
        "prob": {"class": "softmax", "from": "s", "target": "classes", "loss": "ce"},
        "output": {
            "class": "choice",
            "target": "classes",
            "beam_size": BEAM,
            "from": "prob",
            "initial_output": 0,
            "length_normalization": False,
        },
        "embed": {"class": "linear", "activation": None, "from": "output", "n_out": 3, "initial_output": 0},
    }
    return {
        "output": {"class": "rec", "from": "data", "target": "classes", "unit": body},
        "score": {"class": "choice_get_beam_scores", "from": "output", "only_on_search": True, "is_output_layer": True},
    }


def compiled(net: dict[str, Any], mode: Any, optimize: bool) -> rl.Network:
    """The network in a mode; the same parameters in each."""
    made = rl.compile(net, EXTERN_DATA, mode, optimize=optimize, behavior_version=21, target="classes")
    for name, variable in sorted(made.params.items()):
        variable.assign(np.random.default_rng(len(name)).normal(0, 1.2, variable.shape))
    return made


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("unit", "mask", "source", "other"),
    [
        (RELATIVE, "prev:other", "prev:embed", OTHER),
        (RELATIVE, "prev:other", "embed", OTHER),
        (ATTENTION, "other", "embed", OTHER),
        (RELATIVE, "prev:other", "embed", OF_MASKED),
    ],
    ids=["before the choice", "labels of now under the mask of before", "after the choice", "a mask under a mask"],
)
def test_scores_are_those_of_training(
    unit: dict[str, Any], mask: str, source: str, other: dict[str, Any], optimize: bool
) -> None:
    assert_scores_of_training(network(unit, mask, source, other), optimize)


def beside_a_mask(shifted: bool) -> dict[str, Any]:
    """A transducer that attends to the labels so far; what it reads of a mask's frames depends on no choice."""
    net = network(RELATIVE, "prev:other", "prev:embed", OTHER)
    body = net["output"]["unit"]
    positions = {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "prev:embed"}
    body["positions"] = positions
    body["context"] = {**ATTENTION, "from": "prev:embed", **({"key_shift": "positions"} if shifted else {})}
    body["sum"] = {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"}
    body["positive"] = {"class": "compare", "kind": "greater", "from": "sum", "value": 0}
    body["seen"] = {"class": "masked_computation", "mask": "positive", "from": "data:source", "unit": ATTENTION}
    body["frames"] = {"class": "unmask", "from": "seen", "mask": "positive"}
    body["s"]["from"] = ["frames", "context"]
    return net


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_keys_of_labels_beside_a_mask_of_frames(shifted: bool, optimize: bool) -> None:
    """The relative positions of the labels depend on no choice, but have the dim of the keys, which do."""
    net = beside_a_mask(shifted)
    assert_scores_of_training(net, optimize)
    search = compiled(net, "search", optimize)
    scores = search.run({"data": X}, {"data": LENGTHS}).layers["score"].value
    for x, length, together in zip(X, LENGTHS, scores, strict=True):
        alone = search.run({"data": x[None, :length]}, {"data": [length]}).layers["score"].value
        np.testing.assert_allclose(together, alone[0], rtol=1e-5)


def assert_scores_of_training(net: dict[str, Any], optimize: bool) -> None:
    """The scores of the hypotheses that a search finds are what their labels get in training."""
    found = compiled(net, "search", optimize).run({"data": X}, {"data": LENGTHS}).layers
    labels, scores = found["output"].value, found["score"].value
    assert labels.shape == (3, BEAM, max(LENGTHS))
    # Each hypothesis as a sequence whose target is its labels.
    right, lengths = labels.reshape(3 * BEAM, -1), np.repeat(LENGTHS, BEAM)
    trained = compiled(net, "eval", optimize=False)
    prob = trained.run({"data": np.repeat(X, BEAM, 0), "classes": right}, {"data": lengths}).layers["output/prob"].value
    of_labels = np.take_along_axis(prob, right[..., None], -1)[..., 0]
    expected = np.log(np.where(np.arange(max(LENGTHS)) < lengths[:, None], of_labels, 1)).sum(1)
    np.testing.assert_allclose(scores.ravel(), expected, rtol=1e-4)
