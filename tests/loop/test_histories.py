"""Layers that see the steps so far: attention to them, positions, windows, sums, and the step before."""

from __future__ import annotations

from typing import Any

import pytest

import returnn_lite as rl
from tests.loop.probing import Layers, add, assert_same, check, decoder, everywhere, linear, over_inner_frames, refused

HEADS = {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 4, "from": "x"}
CAUSAL = {**HEADS, "attention_left_only": True}
POSITIONS = {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "x"}


def merged(size: int, window: str = "window") -> dict[str, Any]:
    return {"class": "merge_dims", "axes": [f"dim:{size}", "F"], "from": window}


@everywhere
def test_self_attention(place: str) -> None:
    check({"probe": CAUSAL}, place, history=True)


@pytest.mark.parametrize("place", ["labels", "masked", "masked cycle"])
@pytest.mark.parametrize("fixed", [False, True])
def test_self_attention_with_relative_positions(fixed: bool, place: str) -> None:
    """Under a mask, distances are counted in executed steps."""
    probe = {"shift": {**POSITIONS, "fixed": fixed}, "probe": {**CAUSAL, "key_shift": "shift"}}
    assert_same(decoder(probe, place), ["train", "search"])


def test_self_attention_that_looks_ahead() -> None:
    """Where it can leave its loop it has all frames; else there is an error that names the cycle."""
    whole_sequence_only({"probe": HEADS})


@over_inner_frames
def test_self_attention_over_inner_frames(place: str) -> None:
    check({"probe": HEADS}, place, inner=True)


@pytest.mark.parametrize("place", ["labels", "masked cycle"])
def test_dropout_of_attention_weights(place: str) -> None:
    """The draws of a step are those of its place in the loop, also under a mask."""
    assert_same(decoder({"probe": {**CAUSAL, "attention_dropout": 0.3}}, place), ["train"])


@everywhere
@pytest.mark.parametrize("over", ["dot", "max"])
def test_cum_concat(over: str, place: str) -> None:
    """Generalised attention to the steps so far, from its parts; or any other reduction of them."""
    history = rl.Dim("history", rl.DimKind.SPATIAL, None)
    frames = {"class": "cum_concat", "out_spatial_dim": history, "from": "x"}
    if over == "max":
        check(
            {"k": frames, "probe": {"class": "reduce", "mode": "max", "axis": history, "from": "k"}},
            place,
            history=True,
        )
        return
    attention = {
        "energy": {"class": "dot", "from": ["k", "x"], "reduce": "F"},
        "weights": {"class": "softmax_over_spatial", "axis": history, "from": "energy"},
        "probe": {"class": "dot", "from": ["weights", "k"], "reduce": history},
    }
    check({"k": frames, **attention}, place, history=True)


@everywhere
@pytest.mark.parametrize("adds", [True, False])
def test_positional_encoding(adds: bool, place: str) -> None:
    alone = {"class": "positional_encoding", "n_out": 4, "from": "x"}
    added = {"probe": {"class": "positional_encoding", "add_to_input": True, "from": "x"}}
    check(added if adds else {"p": alone, "probe": add("p", "x")}, place)


@pytest.mark.parametrize("place", ["labels", "cycle", "masked"])
def test_relative_positional_encoding(place: str) -> None:
    mean = {"class": "reduce", "mode": "mean", "axis": "T", "from": "positions"}
    probe = {"positions": {**POSITIONS, "n_out": 4}, "m": mean, "probe": add("m", "x")}
    assert_same(decoder(probe, place), ["train", "search"])


def test_relative_positional_encoding_of_inner_frames() -> None:
    """It is the same for all sequences, but each reduces as many of its rows as it has frames."""
    probe = {"positions": POSITIONS, "probe": {"class": "reduce", "mode": "mean", "axis": "T", "from": "positions"}}
    assert_same(decoder(probe, "labels", inner=True), ["train"])


@everywhere
@pytest.mark.parametrize("options", [{"window_right": 0}, {"window_left": 2}], ids=str)
def test_window(options: dict[str, int], place: str) -> None:
    check({"window": {"class": "window", "window_size": 3, "from": "x", **options}, "probe": merged(3)}, place)


def test_window_that_looks_ahead() -> None:
    whole_sequence_only({"window": {"class": "window", "window_size": 3, "from": "x"}, "probe": merged(3)})


def whole_sequence_only(probe: Layers) -> None:
    """It leaves the loop in training; in a cycle, and in search, it is refused."""
    assert_same(decoder(probe, "labels"), ["train"])
    refused(probe, "cycle", "needs all steps of the loop at once, but it is part of the cycle")
    refused(probe, "labels", "needs all steps of the loop at once", mode="search")


@over_inner_frames
def test_window_over_inner_frames(place: str) -> None:
    check({"window": {"class": "window", "window_size": 3, "from": "x"}, "probe": merged(3)}, place, inner=True)


@everywhere
@pytest.mark.parametrize("initial", [None, 0.5])
def test_cumsum(initial: float | None, place: str) -> None:
    options = {} if initial is None else {"initial_output": initial}
    check({"y": {"class": "cumsum", "from": "x", **options}, "probe": add("y", "prev:y")}, place)


@over_inner_frames
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum_over_inner_frames(reverse: bool, place: str) -> None:
    check({"probe": {"class": "cumsum", "axis": "T", "reverse": reverse, "from": "x"}}, place, inner=True)


@everywhere
def test_this_step_and_the_one_before(place: str) -> None:
    probe = {"y": linear("x", initial_output=0.5), "z": add("x", "prev:x"), "probe": linear("y", "prev:y", "z")}
    check(probe, place)


@over_inner_frames
def test_inner_frames_of_this_step_and_the_one_before(place: str) -> None:
    check({"probe": add("x", "prev:x")}, place, inner=True)


@everywhere
def test_step_index(place: str) -> None:
    """Under a mask the executed steps are counted."""
    check({"i": {"class": "cast", "dtype": "float32", "from": ":i"}, "probe": add("x", "i")}, place)
