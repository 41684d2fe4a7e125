"""`streams`: which sequences go on with the states of the batch before, and with what the others begin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

Net = dict[str, Any]
DATA: Net = {
    "data": {"dim": 3},
    "stream": {"shape": (), "dtype": "int32"},
    "frames": {"shape": (None,), "dtype": "int32"},
    "first": {"shape": (4,), "dim": 4, "time_dim_axis": None},
}
RANDOM = np.random.default_rng(1)
BATCHES = RANDOM.normal(size=(3, 2, 4, 3))
FIRST = RANDOM.normal(size=(2, 4))
GRU: Net = {"class": "gru", "units": 4}
UNITS: dict[str, Any] = {
    "fused": {"unit": GRU},
    "steps": {"unit": {"class": "residual", "cell": {"class": "milstm", "units": 3}}},
    "stack": {"unit": [{"class": "lstm", "units": 3}, GRU]},
    "numbers": {"unit": GRU, "initial_state": 0.5},
    "learned": {"unit": {"class": "lstm", "units": 4}, "initial_state": "var"},
    "a layer": {"unit": GRU, "initial_state": {"h": "data:first"}},
}


def compiled(layers: Net) -> Any:
    net = rl.compile(layers, DATA, "eval", behavior_version=21, dtype="float64")
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
    return net


def batch(net: Any, number: int, streams: list[int]) -> np.ndarray:
    feed = {"data": BATCHES[number], "stream": streams, "first": FIRST}
    found: np.ndarray = net.run(feed, {"data": [4, 4]}).layers["output"].value
    return found


@pytest.mark.parametrize("name", UNITS)
def test_a_stream_that_goes_on_is_one_sequence(name: str) -> None:
    """That in the first place has three pieces, in the second place another one begins with the third batch."""
    layer = {"class": "rec", "from": "data", **UNITS[name]}
    net = compiled({"output": {**layer, "stateful": True, "streams": "data:stream"}})
    plain = compiled({"output": layer})
    found = [batch(net, number, streams) for number, streams in enumerate([[0, 7], [0, 7], [0, 0]])]
    ends = {(0, 0): 3, (1, 0): 2, (1, 2): 3}
    for (place, first), end in ends.items():
        whole = np.concatenate(BATCHES[first:end, place])[None]
        feed = {"data": whole, "first": FIRST[place : place + 1]}
        expected = plain.run(feed, {"data": [whole.shape[1]]}).layers["output"].value[0]
        joined = np.concatenate([found[number][place] for number in range(first, end)])
        np.testing.assert_allclose(joined, expected, rtol=1e-9, atol=1e-9)


def test_both_directions_begin_anew() -> None:
    layer = {"class": "rec", "from": "data", "unit": GRU, "direction": "both", "stateful": True}
    net = compiled({"output": {**layer, "streams": "data:stream"}})
    first, again, other = (batch(net, 0, streams) for streams in ([1, 1], [1, 1], [1, 2]))
    np.testing.assert_allclose(other[1], first[1])
    for place, direction in ((0, slice(4)), (0, slice(4, 8)), (1, slice(4)), (1, slice(4, 8))):
        assert np.abs(again[place, :, direction] - first[place, :, direction]).max() > 0.01
    assert np.abs(other[0] - again[0]).max() > 0.001


def test_numbers_of_a_layer() -> None:
    """What has the number at each frame is asked for the first one."""
    first = {"class": "gather", "from": "data:frames", "position": 0, "axis": "T"}
    layer = {"class": "rec", "from": "data", "unit": GRU, "stateful": True, "streams": "number"}
    net = compiled({"number": first, "output": layer})
    frames = np.repeat([[3], [4]], 2, 1)
    feed = {"data": BATCHES[0], "frames": frames}
    lengths = {"data": [4, 4], "frames": [2, 2]}
    one, two, three = (
        net.run({**feed, "frames": frames + np.array([[0], [more]])}, lengths).layers["output"].value
        for more in (0, 0, 1)
    )
    np.testing.assert_allclose(three[1], one[1])
    assert np.abs(two[1] - one[1]).max() > 0.01


OUTSIDE: Net = {"class": "rec", "from": "data", "unit": GRU, "stateful": True, "streams": "data:stream"}
LOOP: Net = {"output": {"class": "copy", "from": "data:source"}}
REFUSED: dict[str, tuple[Net, str]] = {
    "no states": ({**OUTSIDE, "stateful": False}, r"output\.streams: .*Give 'stateful: true'"),
    "frames": (
        {**OUTSIDE, "streams": "data:frames"},
        r"output\.streams: 'data:frames' has no number for each sequence",
    ),
    "floats": ({**OUTSIDE, "streams": "data:first"}, "has no number for each sequence"),
    "no layer": ({**OUTSIDE, "streams": "stream"}, r"output\.streams: there is no layer 'stream'"),
    "two states": (
        {**OUTSIDE, "initial_state": "keep_over_epoch"},
        r"output\.initial_state: a stream does not begin with the state of the batch before",
    ),
    "a network": ({"class": "rec", "from": "data", "unit": LOOP, "streams": "data:stream"}, "streams is for units"),
    "a step": (
        {"class": "rec", "from": "data", "unit": {"output": {**OUTSIDE, "from": "data:source"}}},
        "one step of a loop has no streams",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    layer, message = REFUSED[name]
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}, "eval")
