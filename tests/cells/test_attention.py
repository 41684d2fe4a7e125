"""Cells with attention after their formulas, on single sequences: the encoder's frames are as many as it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

DATA = {"data": {"dim": 3}, "encoder": {"dim": 4}, "keys": {"dim": 2, "same_dim_tags_as": {"T": "encoder"}}}
LENGTHS = {"data": [5, 0, 3], "encoder": [2, 3, 4]}
RNG = np.random.default_rng(5)
VALUES = {
    "data": RNG.normal(size=(3, 5, 3)),
    "encoder": RNG.normal(size=(3, 4, 4)),
    "keys": RNG.normal(size=(3, 4, 2)),
}
WAYS = {"rec": (False, True), "plain": (False, False), "rnn_cell": (True, True), "rnn_cell plain": (True, False)}
"""Whether each step is a layer in a loop, and whether it is optimised."""
Arrays = Mapping[str, np.ndarray]


def from_a_loop(unit: Any) -> Any:
    """The unit in a loop, with the encoder and its keys around it."""
    if isinstance(unit, list):
        return [from_a_loop(one) for one in unit]
    if not isinstance(unit, dict):
        return unit
    names = ("encoder", "keys")
    return {name: f"base:{value}" if name in names else from_a_loop(value) for name, value in unit.items()}


def network(unit: Any, states: tuple[str, ...], in_loop: bool, **options: Any) -> dict[str, Any]:
    """The unit over the data, with its states; in a loop these are those after each step."""
    unit = from_a_loop(unit) if in_loop else unit
    layer = {"class": "rnn_cell", "from": "data:source"} if in_loop else {"class": "rec", "from": "data"}
    layers: dict[str, Any] = {"output": {**layer, "unit": unit, **options}}
    for key in states:
        shown = {"class": "get_last_hidden_state", "key": key, "from": "output", "is_output_layer": True}
        layers[key.replace("/", "_")] = shown
    return {"output": {"class": "rec", "from": "data", "unit": layers}} if in_loop else layers


def compiled(unit: Any, states: tuple[str, ...], way: str, **options: Any) -> rl.Network:
    in_loop, optimize = WAYS[way]
    layers = network(unit, states, in_loop, **options)
    net = rl.compile(layers, DATA, "eval", behavior_version=21, optimize=optimize)
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
    return net


def parameters(net: rl.Network) -> dict[str, np.ndarray]:
    """By name below the unit."""
    return {name.rpartition("rec/")[2]: np.asarray(p, "float64") for name, p in net.params.items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def lstm(p: Arrays, x: np.ndarray, seen: np.ndarray, c: np.ndarray, forget_bias: float) -> tuple[np.ndarray, ...]:
    """The next h and c; `seen` is what W_re is multiplied with."""
    j, i, f, o = np.split(x @ p["W"] + seen @ p["W_re"] + p["b"], 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * np.tanh(j)
    return sigmoid(o) * np.tanh(c), c


def energies(p: Arrays, kind: str, e: np.ndarray, keys: np.ndarray | None, h: np.ndarray, s: Arrays) -> np.ndarray:
    """Of the frames e [S, E]."""
    if kind == "dot":
        return e @ (h @ p["query/W"] + p["query/b"] if "query/W" in p else h)
    total = (e @ p["keys/W"] + p["keys/b"] if keys is None else keys) + h @ p["query/W"] + p["query/b"]
    if kind == "recurrent":
        total = total + s["context"] @ p["previous_context/W"] + p["previous_context/b"]
    if kind == "soft_coverage":
        total = total + s["coverage"][:, None] * (e @ p["coverage/W"] + p["coverage/b"])
    return np.tanh(total) @ p["v"]


def attended(p: Arrays, kind: str, e: np.ndarray, keys: np.ndarray | None, h: np.ndarray, s: Arrays) -> Arrays:
    """The context and the coverage after a step."""
    energy = energies(p, kind, e, keys, h, s)
    weights = np.exp(energy - energy.max())
    weights /= weights.sum()
    return {"context": weights @ e, "coverage": s["coverage"] + weights}


def expected(p: Arrays, b: int, kind: str, size: int, forget_bias: float = 0.0, given: bool = False) -> list[Arrays]:
    """The states of the LSTM with attention after each step of a sequence."""
    count = LENGTHS["encoder"][b]
    e, keys = VALUES["encoder"][b, :count], VALUES["keys"][b, :count] if given else None
    state = {"h": np.zeros(size), "c": np.zeros(size), "context": np.zeros(4), "coverage": np.zeros(count)}
    found = []
    for x in VALUES["data"][b, : LENGTHS["data"][b]]:
        h, c = lstm(p, x, np.concatenate([state["h"], state["context"]]), state["c"], forget_bias)
        state = {"h": h, "c": c, **attended(p, kind, e, keys, h, state)}
        found.append(state)
    return found


def run(net: rl.Network) -> dict[str, np.ndarray]:
    """Layers by name, those of a loop without its own; batch and time first."""
    layers = net.run(VALUES, {**LENGTHS, "keys": LENGTHS["encoder"]}).layers
    time, found = layers["output"].dims[1], {}
    for name, layer in layers.items():
        axis = layer.dims.index(time) if time in layer.dims else 1
        found[name.removeprefix("output/")] = np.moveaxis(layer.value, axis, 1)
    return found


UNITS: dict[str, dict[str, Any]] = {
    "regular": {},
    "forget bias": {"forget_bias": 1.5},
    "size of keys": {"key_size": 7},
    "given keys": {"keys": "data:keys"},
    "recurrent": {"kind": "recurrent"},
    "recurrent with given keys": {"kind": "recurrent", "keys": "data:keys"},
    "dot": {"kind": "dot"},
    "dot of the same size": {"kind": "dot", "units": 4},
    "soft coverage": {"kind": "soft_coverage"},
    "soft coverage with given keys": {"kind": "soft_coverage", "keys": "data:keys"},
}


IN_ALL_WAYS = ("regular", "soft coverage with given keys")
CASES = [(name, way) for name in UNITS for way in (WAYS if name in IN_ALL_WAYS else ("rec", "rnn_cell"))]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_formulas(name: str, way: str) -> None:
    unit = {"class": "lstm_attention", "encoder": "data:encoder", "units": 5, **UNITS[name]}
    kind, size = unit.get("kind", "regular"), unit["units"]
    states = ("h", "c", "context", *(("coverage",) if kind == "soft_coverage" else ()))
    net = compiled(unit, states, way)
    found, p = run(net), parameters(net)
    for b, length in enumerate(LENGTHS["data"]):
        steps = expected(p, b, kind, size, unit.get("forget_bias", 0.0), "keys" in unit)
        for t, step in enumerate(steps):
            np.testing.assert_allclose(found["output"][b, t], step["h"], rtol=1e-5, atol=2e-6)
        for key in states:
            if WAYS[way][0]:
                for t, step in enumerate(steps):
                    np.testing.assert_allclose(found[key][b, t, : step[key].size], step[key], rtol=1e-5, atol=2e-6)
            elif length:
                last = steps[-1][key]
                np.testing.assert_allclose(found[key][b, : last.size], last, rtol=1e-5, atol=2e-6)
            else:
                assert not found[key][b].any()


def test_the_output_with_the_context() -> None:
    unit = {"class": "lstm_attention", "encoder": "data:encoder", "with_context": True}
    found = run(compiled(unit, ("h", "context"), "rnn_cell", n_out=9))
    np.testing.assert_array_equal(found["output"], np.concatenate([found["h"], found["context"]], -1))
    whole = run(compiled(unit, ("h", "context"), "rec", n_out=9))
    np.testing.assert_allclose(whole["output"], found["output"], rtol=1e-5, atol=2e-6)
    assert whole["h"].shape == (3, 5)


@pytest.mark.parametrize("way", WAYS)
def test_any_cell_sees_the_context_beside_its_source(way: str) -> None:
    unit = {"class": "attention", "encoder": "data:encoder", "cell": {"class": "basicrnn", "units": 2}}
    net = compiled(unit, ("context", "cell/h"), way)
    found, p = run(net), parameters(net)
    kernel, bias = (p[f"cell/basic_rnn_cell/{name}"] for name in ("kernel", "bias"))
    for b, count in enumerate(LENGTHS["encoder"]):
        e, state = VALUES["encoder"][b, :count], {"context": np.zeros(4), "coverage": np.zeros(count)}
        h = np.zeros(2)
        for t, x in enumerate(VALUES["data"][b, : LENGTHS["data"][b]]):
            h = np.tanh(np.concatenate([x, state["context"], h]) @ kernel + bias)
            state = {**attended(p, "regular", e, None, h, state)}
            np.testing.assert_allclose(found["output"][b, t], h, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_cell_that_can_sees_it_beside_h(way: str) -> None:
    """The LSTM so is that of lstm_attention."""
    lstm = {"class": "nativelstm2", "units": 5, "forget_bias": 1.0}
    around = {"class": "caffe2.AttentionCell", "attention_type": "Recurrent", "cell": lstm, "encoder": "data:encoder"}
    one = {"class": "lstm_attention", "units": 5, "forget_bias": 1.0, "kind": "recurrent", "encoder": "data:encoder"}
    net, other = compiled(around, ("cell/c", "context"), way), compiled(one, ("c", "context"), way)
    values = parameters(other)
    for name in net.params:
        net.params[name].assign(values[name.rpartition("rec/")[2].removeprefix("cell/")])
    found, expected = run(net), run(other)
    for name, key in (("output", "output"), ("cell_c", "c"), ("context", "context")):
        np.testing.assert_allclose(found[name], expected[key], rtol=1e-5, atol=2e-6)


def test_the_multiplicative_lstm_with_attention() -> None:
    short: Any = {"class": "MILSTMWithAttentionCell", "encoder": "data:encoder"}
    whole: Any = {"class": "attention", "context": "recurrent", "cell": {"class": "milstm"}, "encoder": "data:encoder"}
    nets = [compiled(unit, (), "rec", n_out=4) for unit in (short, whole)]
    assert parameters(nets[0])["cell/W_re"].shape == (8, 16)
    np.testing.assert_array_equal(*(run(net)["output"] for net in nets))


CELLS: dict[str, dict[str, Any]] = {
    "stack": {"cell": ["lstm", {"class": "residual", "cell": {"class": "gru", "units": 4}}]},
    "in itself": {"cell": {"class": "attention", "cell": "gru", "kind": "dot", "encoder": "data:encoder"}},
    "with soft coverage": {"cell": {"class": "gru"}, "kind": "soft_coverage"},
    "beside h of TensorFlow's LSTM": {"cell": {"class": "basiclstm"}, "context": "recurrent"},
}


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_nested_units_are_the_same_in_all_ways(name: str, around: bool) -> None:
    unit: Any = {"class": "attention", "encoder": "data:encoder", **CELLS[name]}
    unit = ["gru", {"class": "residual", "cell": unit}] if around else unit
    found = [run(compiled(unit, (), way, n_out=4))["output"] for way in ("rec", "plain")]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=2e-6)
    alone = run_alone(unit)
    for b, length in enumerate(LENGTHS["data"]):
        np.testing.assert_allclose(found[0][b, :length], alone[b], rtol=1e-5, atol=2e-6)


def run_alone(unit: Any) -> list[np.ndarray]:
    """The outputs of the sequences one by one."""
    net = compiled(unit, (), "rec", n_out=4)
    found = []
    for b, length in enumerate(LENGTHS["data"]):
        lengths = {"data": [length], "encoder": [LENGTHS["encoder"][b]], "keys": [LENGTHS["encoder"][b]]}
        values = {key: values[b : b + 1, : lengths[key][0]] for key, values in VALUES.items()}
        found.append(net.run(values, lengths).layers["output"].value[0])
    return found


def test_parameters() -> None:
    shapes = {
        "W": (3, 20),
        "W_re": (9, 20),
        "b": (20,),
        "keys/W": (4, 6),
        "keys/b": (6,),
        "query/W": (5, 6),
        "query/b": (6,),
        "v": (6,),
    }
    unit = {"class": "attention_lstm", "encoder": "data:encoder", "units": 5, "key_size": 6}
    further = {
        "regular": {},
        "recurrent": {"previous_context/W": (4, 6), "previous_context/b": (6,)},
        "soft_coverage": {"coverage/W": (4, 6), "coverage/b": (6,)},
    }
    for kind, own in further.items():
        found = parameters(compiled({**unit, "kind": kind}, (), "rec"))
        assert {name: p.shape for name, p in found.items()} == {**shapes, **own}
    dot = parameters(
        compiled({"class": "lstm_attention", "encoder": "data:encoder", "units": 4, "kind": "dot"}, (), "rec")
    )
    assert set(dot) == {"W", "W_re", "b"}


@pytest.mark.parametrize("way", WAYS)
def test_attention_to_the_own_source(way: str) -> None:
    """Each step sees all frames of the sequence that the cell runs over."""
    unit = {"class": "lstm_attention", "encoder": "data", "units": 3, "kind": "soft_coverage"}
    net = compiled(unit, ("coverage",), way)
    found, p = run(net), parameters(net)
    for b, length in enumerate(LENGTHS["data"]):
        e = VALUES["data"][b, :length]
        state = {"h": np.zeros(3), "c": np.zeros(3), "context": np.zeros(3), "coverage": np.zeros(length)}
        for t, x in enumerate(e):
            h, c = lstm(p, x, np.concatenate([state["h"], state["context"]]), state["c"], 0.0)
            state = {"h": h, "c": c, **attended(p, "soft_coverage", e, None, h, state)}
            np.testing.assert_allclose(found["output"][b, t], h, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("optimize", [True, False])
def test_initial_states(optimize: bool) -> None:
    """A decoder goes on where another one ended; the context may be learned."""
    unit = {"class": "lstm_attention", "encoder": "data:encoder", "units": 5, "kind": "soft_coverage"}
    start = {"h": "first", "c": "first", "coverage": "sums"}
    layers = {
        "first": {"class": "rec", "from": "data", "unit": unit},
        "sums": {"class": "get_last_hidden_state", "from": "first", "key": "coverage"},
        "output": {"class": "rec", "from": "data", "unit": unit, "initial_state": {**start, "context": "var"}},
    }
    net = rl.compile(layers, DATA, "eval", behavior_version=21, optimize=optimize)
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
    before = {name.removeprefix("first/rec/"): p for name, p in net.params.items() if name.startswith("first")}
    p = {name.removeprefix("output/rec/"): np.asarray(q, "float64") for name, q in net.params.items()}
    found = run(net)["output"]
    for b, count in enumerate(LENGTHS["encoder"]):
        e = VALUES["encoder"][b, :count]
        state = {"h": np.zeros(5), "c": np.zeros(5), "coverage": np.zeros(count)}
        if LENGTHS["data"][b]:
            state = dict(expected({n: np.asarray(q, "float64") for n, q in before.items()}, b, "soft_coverage", 5)[-1])
        state["context"] = p["initial_context"]
        for t, x in enumerate(VALUES["data"][b, : LENGTHS["data"][b]]):
            h, c = lstm(p, x, np.concatenate([state["h"], state["context"]]), state["c"], 0.0)
            state = {"h": h, "c": c, **attended(p, "soft_coverage", e, None, h, state)}
            np.testing.assert_allclose(found[b, t], h, rtol=1e-5, atol=2e-6)


IN_STEPS = {"from around": "base:frames", "of the step": "e"}


@pytest.mark.parametrize("encoder", IN_STEPS.values(), ids=IN_STEPS)
def test_coverage_of_the_frames_that_it_runs_over_in_each_step(encoder: str) -> None:
    """The numbers for each frame begin anew in each step of the loop around, where these frames may be made there."""
    unit = {"class": "attention", "cell": "gru", "encoder": encoder, "kind": "soft_coverage"}
    step = {
        "e": {"class": "combine", "kind": "add", "from": ["base:frames", "data:source"]},
        "r": {"class": "rec", "unit": unit, "n_out": 3, "from": "e", "direction": -1},
        "output": {"class": "reduce", "mode": "sum", "axis": "T", "from": "r"},
    }
    layers = {
        "frames": {"class": "linear", "n_out": 3, "from": "data"},
        "output": {"class": "rec", "from": "data", "unit": step},
    }
    # The same for one step: its source and encoder are computed outside.
    e = {"class": "combine", "kind": "add", "from": ["frames", "first"]}
    first = {"class": "gather", "from": "data", "position": 1, "axis": "T"}
    of_one = {**unit, "encoder": encoder.removeprefix("base:")}
    single = {
        **layers,
        "first": first,
        "e": e,
        "r": {**step["r"], "unit": of_one},
        "output": {**step["output"], "from": "r"},
    }
    found = []
    for network, optimize in ((layers, True), (layers, False), (single, True)):
        net = rl.compile(network, {"data": {"dim": 3}}, "eval", behavior_version=21, dtype="float64", optimize=optimize)
        for name in net.params:
            seed = sum(map(ord, name.replace("output/rec/r/", "r/")))
            net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        found.append(net.run({"data": VALUES["data"]}, {"data": [5, 2, 3]}).layers["output"].value)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found[0][:, 1], found[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("optimize", [True, False])
def test_inside_of_other_cells_the_frames_of_the_layer_are_seen_whole(optimize: bool) -> None:
    """A stack over the frames that its second cell attends to is two layers."""
    attending = {"class": "lstm_attention", "encoder": "data", "units": 3, "kind": "soft_coverage"}
    first = {"class": "rec", "unit": {"class": "rnn", "units": 4}, "from": "data"}
    stacked = {"class": "rec", "unit": [first["unit"], attending], "from": "data"}
    found = []
    for layers in ({"output": stacked}, {"first": first, "output": {**first, "unit": attending, "from": "first"}}):
        net = rl.compile(layers, DATA, "eval", behavior_version=21, dtype="float64", optimize=optimize)
        for name in net.params:
            seed = sum(map(ord, name.replace("output/rec/0/", "first/rec/").replace("output/rec/1/", "output/rec/")))
            net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        found.append(net.run({"data": VALUES["data"]}, {"data": LENGTHS["data"]}).layers["output"].value)
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-9)
