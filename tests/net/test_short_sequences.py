"""Sequences shorter than the options of a layer assume: a batch gives what each sequence gives alone, down to none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

LENGTHS = (8, 0, 3, 1, 2)
Network = dict[str, Any]


def ones(network: Network, dim: int = 1) -> rl.Network:
    """The network with parameters that are all one."""
    compiled = rl.compile(network, {"data": {"dim": dim}}, "forward", behavior_version=21)
    for variable in compiled.params.values():
        variable.assign(np.ones(variable.shape))
    return compiled


def frames_of(result: rl.RunResult, layer: str, row: int) -> np.ndarray:
    """The real frames of a sequence."""
    out = result.layers[layer]
    for lengths in out.seq_lens.values():
        return out.value[row, : lengths[row]]
    return out.value[row]


def alone_and_in_a_batch(network: Network, lengths: Sequence[int] = LENGTHS, dim: int = 1) -> list[np.ndarray]:
    """The real frames of `output` for each sequence of a batch, which are compared with those of it alone."""
    compiled = ones(network, dim)
    x = np.random.default_rng(0).normal(size=(len(lengths), max(lengths), dim)).astype("float32")
    together = compiled.run({"data": x}, {"data": lengths})
    found = []
    for row, length in enumerate(lengths):
        alone = compiled.run({"data": x[row : row + 1, :length]}, {"data": [length]})
        for name in compiled_layers(network):
            np.testing.assert_allclose(
                frames_of(together, name, row), frames_of(alone, name, 0), atol=1e-5, err_msg=name
            )
        found.append(frames_of(together, "output", row))
    return found


def compiled_layers(network: Network) -> list[str]:
    return [name for name, options in network.items() if name == "output" or options.get("is_output_layer")]


CONV = {"class": "conv", "n_out": 1, "padding": "valid", "activation": None, "is_output_layer": True}
LONGER = {"class": "transposed_conv", "n_out": 1, "filter_size": [3], "strides": 2, "activation": None}
PAD = {"class": "pad", "axes": "T", "padding": 1}


def test_what_is_added_to_a_length_of_0_counts_from_there() -> None:
    """A convolution of 6 frames leaves max(n - 5, 0), and 5 more are 5 at least, not n."""
    network = {
        "conv": {**CONV, "from": "data", "filter_size": [6]},
        "padded": {
            "class": "pad",
            "from": "conv",
            "axes": "T",
            "padding": [2, 3],
            "value": 7.0,
            "is_output_layer": True,
        },
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "padded"},
    }
    compiled = ones(network)
    result = compiled.run({"data": np.zeros((3, 8, 1))}, {"data": [8, 2, 6]})
    assert [list(lengths) for lengths in result.layers["padded"].seq_lens.values()] == [[8, 5, 6]]
    assert result.layers["output"].value.ravel().tolist() == [35 + 3, 35, 35 + 1]  # 3, 0 and 1 frames of the bias
    alone_and_in_a_batch(network)


@pytest.mark.tensorflow
def test_as_many_frames_as_before_after_a_detour() -> None:
    """Frames that went through a convolution and were padded again are added to those from before, if all fit."""
    network = {
        "conv": {**CONV, "from": "data", "filter_size": [3]},
        "padded": {"class": "pad", "from": "conv", "axes": "T", "padding": [1, 1]},
        "output": {"class": "combine", "kind": "add", "from": ["padded", "data"]},
    }
    alone_and_in_a_batch(network, (5, 2, 3))
    compiled = ones(network)
    with pytest.raises(Exception, match=r"lengths of .* differ"):
        compiled.run({"data": np.zeros((2, 5, 1))}, {"data": [5, 1]})


@pytest.mark.parametrize(
    "steps",
    [
        [{**CONV, "filter_size": [4]}, {**PAD, "padding": 2}, {**CONV, "filter_size": [3]}],
        [{**CONV, "filter_size": [3], "strides": 2}] * 3,
        [{"class": "pool", "mode": "max", "pool_size": [3]}, PAD] * 2,
        [{"class": "slice", "axis": "T", "slice_start": 2}, {"class": "postfix_in_time", "postfix": 3.0}],
        [{"class": "slice", "axis": "T", "slice_end": -3}, {"class": "prefix_in_time", "prefix": 1.0, "repeat": 2}],
        [{"class": "shift_axis", "axis": "T", "amount": -3}, {**PAD, "padding": 2}],
        [{"class": "window", "window_size": 3, "padding": "valid"}, {"class": "merge_dims", "axes": "static"}],
        [
            {**CONV, "filter_size": [3]},
            {"class": "repeat", "axis": "T", "repetitions": 2},
            {**CONV, "filter_size": [4]},
        ],
        [{**LONGER, "remove_padding": 2}, PAD],
    ],
    ids=lambda steps: "-".join(step["class"] for step in steps),
)
def test_lengths_that_shrink_to_0_and_grow(steps: list[Network]) -> None:
    network: Network = {}
    for i, step in enumerate(steps):
        network[f"l{i}"] = {"from": f"l{i - 1}" if i else "data", **step, "is_output_layer": True}
    network["output"] = {"class": "copy", "from": f"l{len(steps) - 1}"}
    alone_and_in_a_batch(network)


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["reflect", "symmetric", "replication"])
@pytest.mark.parametrize("padding", [(3, 3), (0, 4), (7, 0), (1, 12)])
def test_more_frames_added_than_there_are(mode: str, padding: tuple[int, int]) -> None:
    """What is reflected is reflected again, as NumPy does with each sequence."""
    network = {"output": {"class": "pad", "mode": mode, "axes": "T", "padding": list(padding), "from": "data"}}
    lengths = (5, 1, 2, 3)
    x = np.random.default_rng(0).normal(size=(4, 5, 1)).astype("float32")
    for row, found in enumerate(alone_and_in_a_batch(network, lengths)):
        expected = np.pad(x[row, : lengths[row]], [padding, (0, 0)], mode=MODES[mode])  # type: ignore[call-overload]
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=f"output: mode {mode} repeats frames of data:time.*: sequence 1 has none"):
        ones(network).run({"data": x}, {"data": [5, 0, 1, 2]})


MODES = {"reflect": "reflect", "symmetric": "symmetric", "replication": "edge"}


@pytest.mark.tensorflow
@pytest.mark.parametrize("log_space", [False, True])
def test_a_window_that_has_no_frame_of_a_sequence(log_space: bool) -> None:
    """Its weights are 0 everywhere; alone they were no numbers."""
    network = {
        "output": {
            "class": "softmax_over_spatial", "axis": "T", "window_start": 2, "window_size": 2, "log_space": log_space,
            "from": "data",
        }
    }  # fmt: skip
    outside = -np.inf if log_space else 0.0
    found = alone_and_in_a_batch(network, (5, 2, 1, 0, 3))
    assert [weights.ravel().tolist() for weights in found[1:4]] == [[outside] * 2, [outside], []]
    assert found[4].ravel().tolist() == [outside, outside, 0 if log_space else 1]


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["argmax", "argmin", "max", "mean", "sum", "logsumexp"])
def test_reductions_over_no_frames(mode: str) -> None:
    alone_and_in_a_batch({"output": {"class": "reduce", "mode": mode, "axis": "T", "from": "data"}})


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("unit", ["gru", "nativelstm2"])
def test_the_last_state_after_no_frames_is_the_initial_one(unit: str, direction: int, optimize: bool) -> None:
    """A convolution leaves none of a sequence of two frames, beside others as alone."""
    network: dict[str, Any] = {
        "few": {"class": "conv", "filter_size": (3,), "padding": "valid", "n_out": 2, "from": "data"},
        "run": {"class": "rec", "unit": unit, "n_out": 3, "direction": direction, "from": "few", "initial_state": 0.5},
        "output": {"class": "get_last_hidden_state", "from": "run", "n_out": 3, "key": "h"},
    }
    net = rl.compile(network, {"data": {"dim": 2}}, "forward", optimize=optimize, behavior_version=21)
    long, short = net.run({"data": np.ones((2, 4, 2))}, {"data": [4, 2]}).layers["output"].value
    np.testing.assert_array_equal(short, [0.5, 0.5, 0.5])
    assert not np.allclose(long, short)
