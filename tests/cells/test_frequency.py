"""LSTMs over the frequency axis: their formulas on single sequences, in all ways; parameters, states and sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

Params = Mapping[str, np.ndarray]
Options = Mapping[str, Any]
FEATURES = 7
DATA = {"data": {"dim": FEATURES}}
LENGTHS = [4, 2]
SOURCE = np.random.default_rng(5).normal(size=(2, 4, FEATURES))
WAYS = [(False, True), (False, False), (True, True)]
"""Whether in a loop, and whether optimised."""


def outputs_of(unit: Any, *, in_loop: bool = False, optimize: bool = True) -> tuple[np.ndarray, Params]:
    """The output of a unit and its parameters, which are drawn by the order of their names."""
    layer = {"class": "rec", "from": "data", "unit": unit}
    if in_loop:
        step = {"class": "rnn_cell", "from": "data:source", "unit": unit}
        layer = {"class": "rec", "from": "data", "unit": {"output": step}}
    net = rl.compile({"output": layer}, DATA, "eval", behavior_version=21, optimize=optimize)
    scope, values = "output/rec/output/rec/" if in_loop else "output/rec/", {}
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        values[name.removeprefix(scope)] = net.params[name].numpy().astype("float64")
    return net.run({"data": SOURCE}, {"data": LENGTHS}).layers["output"].value, values


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def clipped(x: np.ndarray, options: Options) -> np.ndarray:
    limit = options.get("cell_clip")
    return x if limit is None else np.clip(x, -limit, limit)


def time_frequency(p: Params, x: np.ndarray, options: Options) -> np.ndarray:
    """The outputs of a time-frequency LSTM for one sequence."""
    n, size, skip = options["units"], options["feature_size"], options.get("frequency_skip", 1)
    steps = (FEATURES - size) // skip + 1
    bias = options.get("forget_bias", 1.0)
    zero = np.zeros(n)
    peephole = {gate: p.get(f"W_{gate}_diag", zero) for gate in "IFO"}
    c, m = [zero] * steps, [zero] * steps
    outputs = []
    for frame in x:
        below = zero
        for k in range(steps):
            seen = np.concatenate([frame[k * skip : k * skip + size], m[k], below])
            i, j, f, o = np.split(seen @ p["W"] + p["B"], 4)
            gated = sigmoid(f + bias + peephole["F"] * c[k]) * c[k] + sigmoid(i + peephole["I"] * c[k]) * np.tanh(j)
            c[k] = clipped(gated, options)
            m[k] = below = sigmoid(o + peephole["O"] * c[k]) * np.tanh(c[k])
        outputs.append(np.concatenate(m))
    return np.stack(outputs)


def grid_block(p: Params, folder: str, inputs: Sequence[np.ndarray], states: dict[str, Any], options: Options) -> list:
    """The outputs of one block in one frame, in time and along frequency for each window; changes the states."""
    coupled, shared = options.get("couple_input_forget_gates"), options.get("share_time_frequency_weights")
    names = {"f": "freq", "t": "freq" if shared else "time"}
    cf = mf = zero = np.zeros(options["units"])
    outputs = []
    for k, window in enumerate(inputs):
        ct, mt = states[folder][k]
        seen = np.concatenate([window, mt, mf])
        new: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        gates = {}
        for one, old in (("f", cf), ("t", ct)):
            own = "f" if shared else one
            parts = np.split(seen @ p[f"{folder}W_{own}"] + p[f"{folder}B_{own}"], 3 if coupled else 4)
            i, j, *f, o = parts

            def peep(gate: str, a: np.ndarray, b: np.ndarray, one: str = one) -> np.ndarray:
                name = f"{folder}W_{gate}_diag_{names[one]}"
                return p.get(f"{name}f", zero) * a + p.get(f"{name}t", zero) * b

            i = sigmoid(i + peep("I", cf, ct))
            forget = 1 - i if coupled else sigmoid(f[0] + options.get("forget_bias", 1.0) + peep("F", cf, ct))
            new[one] = clipped(forget * old + i * np.tanh(j), options)
            gates[one] = (o, peep)
        cf, ct = new["f"], new["t"]
        mf, mt = (sigmoid(o + peep("O", cf, ct)) * np.tanh(new[one]) for one, (o, peep) in gates.items())
        states[folder][k] = ct, mt
        outputs += [mt, mf]
    return outputs


def spans_of(options: Options) -> list[tuple[int, int]]:
    starts = options.get("start_freqindex_list") or [0]
    return list(zip(starts, options["num_frequency_blocks"], strict=True))


def fresh_states(options: Options, folders: Sequence[str]) -> dict[str, Any]:
    zero = np.zeros(options["units"])
    counts = options["num_frequency_blocks"]
    return {f"{folder}{b}/": [(zero, zero)] * count for folder in folders for b, count in enumerate(counts)}


def windows_of(frame: np.ndarray, start: int, count: int, options: Options) -> list[np.ndarray]:
    size, skip = options["feature_size"], options.get("frequency_skip", 1)
    return [frame[start + k * skip : start + k * skip + size] for k in range(count)]


def grid(p: Params, x: np.ndarray, options: Options) -> np.ndarray:
    """The outputs of a grid LSTM for one sequence."""
    states, outputs = fresh_states(options, [""]), []
    for frame in x:
        found = []
        for b, (start, count) in enumerate(spans_of(options)):
            found += grid_block(p, f"{b}/", windows_of(frame, start, count, options), states, options)
        outputs.append(np.concatenate(found))
    return np.stack(outputs)


def bidirectional(p: Params, x: np.ndarray, options: Options) -> np.ndarray:
    """The outputs of a bidirectional grid LSTM for one sequence."""
    offset = options.get("backward_slice_offset", 0)
    states, outputs = fresh_states(options, ["fwd/", "bwd/"]), []
    for frame in x:
        found = []
        for b, (start, count) in enumerate(spans_of(options)):
            found += grid_block(p, f"fwd/{b}/", windows_of(frame, start, count, options), states, options)
        padded = np.pad(frame, (max(-offset, 0), max(offset, 0)))
        for b, (start, count) in enumerate(spans_of(options)):
            downwards = windows_of(padded, start + max(offset, 0), count, options)[::-1]
            found += grid_block(p, f"bwd/{b}/", downwards, states, options)
        outputs.append(np.concatenate(found))
    return np.stack(outputs)


ONE_BLOCK = {"units": 2, "feature_size": 3, "frequency_skip": 2, "num_frequency_blocks": [3]}
BLOCKS = {
    "units": 2,
    "feature_size": 2,
    "num_frequency_blocks": [3, 2],
    "start_freqindex_list": [0, 3],
    "end_freqindex_list": [4, 6],
}
Formula = Callable[[Params, np.ndarray, Options], np.ndarray]
FORMULAS: dict[str, tuple[Formula, dict[str, Any]]] = {
    "time_frequency_lstm": (time_frequency, {"units": 2, "feature_size": 3}),
    "time_frequency_lstm one step": (time_frequency, {"units": 2, "feature_size": 7}),
    "time_frequency_lstm features left": (time_frequency, {"units": 2, "feature_size": 4, "frequency_skip": 2}),
    "time_frequency_lstm all": (
        time_frequency,
        {"units": 2, "feature_size": 3, "frequency_skip": 2, "peephole": True, "cell_clip": 0.3, "forget_bias": 0.2},
    ),
    "grid_lstm": (grid, ONE_BLOCK),
    "grid_lstm one step": (grid, {**ONE_BLOCK, "feature_size": 7, "num_frequency_blocks": [1]}),
    "grid_lstm peepholes": (grid, {**ONE_BLOCK, "peephole": True, "forget_bias": 0.3}),
    "grid_lstm coupled": (grid, {**ONE_BLOCK, "couple_input_forget_gates": True, "cell_clip": 0.3}),
    "grid_lstm shared": (grid, {**ONE_BLOCK, "share_time_frequency_weights": True, "cell_clip": 0.3}),
    "grid_lstm blocks shared peepholes coupled": (
        grid,
        {**BLOCKS, "peephole": True, "share_time_frequency_weights": True, "couple_input_forget_gates": True},
    ),
    "grid_lstm blocks clipped": (grid, {**BLOCKS, "peephole": True, "cell_clip": 0.4, "forget_bias": -0.5}),
    "bidirectional_grid_lstm": (bidirectional, ONE_BLOCK),
    "bidirectional_grid_lstm later": (bidirectional, {**ONE_BLOCK, "backward_slice_offset": 2}),
    "bidirectional_grid_lstm before": (bidirectional, {**ONE_BLOCK, "backward_slice_offset": -1}),
    "bidirectional_grid_lstm blocks later": (bidirectional, {**BLOCKS, "backward_slice_offset": 2, "peephole": True}),
    "bidirectional_grid_lstm blocks before": (
        bidirectional,
        {**BLOCKS, "backward_slice_offset": -2, "couple_input_forget_gates": True, "cell_clip": 0.5},
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    """Each way has the numbers of single sequences, so padding changes nothing."""
    formula, options = FORMULAS[name]
    for in_loop, optimize in WAYS if " " not in name else WAYS[:1]:
        output, params = outputs_of({"class": name.split()[0], **options}, in_loop=in_loop, optimize=optimize)
        for row, length in enumerate(LENGTHS):
            wanted = formula(params, SOURCE[row, :length], options)
            np.testing.assert_allclose(output[row, :length], wanted, rtol=1e-5, atol=1e-6)


def shapes_of(unit: Any, **options: Any) -> dict[str, tuple[int, ...]]:
    net = rl.compile(
        {"output": {"class": "rec", "from": "data", "unit": unit, **options}}, DATA, "eval", behavior_version=21
    )
    return {name.removeprefix("output/rec/"): tuple(value.shape) for name, value in net.params.items()}


def test_parameters() -> None:
    unit = {"class": "TimeFreqLSTMCell", "num_units": 2, "feature_size": 3, "use_peepholes": True, "num_unit_shards": 3}
    assert shapes_of(unit) == {"W": (7, 8), "B": (8,), "W_I_diag": (2,), "W_F_diag": (2,), "W_O_diag": (2,)}
    blocks = {"class": "GridLSTMCell", **BLOCKS, "couple_input_forget_gates": True, "use_peepholes": True}
    shapes = shapes_of(blocks)
    peepholes = {f"W_{gate}_diag_{one}{seen}": (2,) for gate in "IO" for one in ("freq", "time") for seen in "ft"}
    block = {"W_f": (6, 6), "B_f": (6,), "W_t": (6, 6), "B_t": (6,), **peepholes}
    assert shapes == {f"{b}/{name}": shape for b in (0, 1) for name, shape in block.items()}
    shared = {**ONE_BLOCK, "share_time_frequency_weights": True, "use_peepholes": True}
    names = ["0/W_f", "0/B_f", *(f"0/W_{gate}_diag_freq{seen}" for gate in "IFO" for seen in "ft")]
    assert set(shapes_of({"class": "grid_lstm", **shared})) == set(names)
    both = shapes_of({"class": "BidirectionalGridLSTMCell", **shared})
    assert set(both) == {f"{direction}/{name}" for direction in ("fwd", "bwd") for name in names}


def test_what_new_parameters_are() -> None:
    unit = {"class": "time_frequency_lstm", "units": 50, "feature_size": 3, "peephole": True}
    net = rl.compile({"output": {"class": "rec", "from": "data", "unit": unit}}, DATA, "eval", behavior_version=21)
    limits = {"W": np.sqrt(6 / (103 + 200)), "W_I_diag": np.sqrt(3 / 50), "B": 0.0}
    for name, limit in limits.items():
        largest = np.abs(net.params[f"output/rec/{name}"].numpy()).max()
        assert 0.9 * limit <= largest <= limit, name


def test_units_follow_from_the_output() -> None:
    without_units = {name: value for name, value in ONE_BLOCK.items() if name != "units"}
    assert shapes_of({"class": "grid_lstm", **without_units}, n_out=24)["0/W_f"] == (11, 16)
    assert shapes_of({"class": "bidirectional_grid_lstm", **without_units}, n_out=24)["bwd/0/W_f"] == (7, 8)
    assert shapes_of({"class": "time_frequency_lstm", "feature_size": 3}, n_out=10)["W"] == (7, 8)


def test_states_have_steps_along_frequency() -> None:
    layers: dict[str, Any] = {
        "rnn": {"class": "rec", "from": "data", "unit": {"class": "grid_lstm", **ONE_BLOCK}},
        "output": {"class": "get_last_hidden_state", "from": "rnn", "key": "0/c"},
        "again": {
            "class": "rec",
            "from": "data",
            "unit": {"class": "grid_lstm", **ONE_BLOCK},
            "initial_state": "rnn",
            "reuse_params": "rnn",
            "is_output_layer": True,
        },
    }
    net = rl.compile(layers, DATA, "eval", behavior_version=21)
    results = net.run({"data": SOURCE}, {"data": LENGTHS}).layers
    assert results["output"].value.shape == (2, 3, 2)
    whole = np.concatenate([SOURCE[:1], SOURCE[:1]], axis=1)
    twice = rl.compile({"output": {**layers["rnn"]}}, DATA, "eval", behavior_version=21)
    for name, variable in twice.params.items():
        variable.assign(net.params[name.replace("output/", "rnn/")])
    expected = twice.run({"data": whole}, {"data": [8]}).layers["output"].value[:, 4:]
    np.testing.assert_allclose(results["again"].value[:1], expected, rtol=1e-5, atol=1e-6)


def test_in_a_stack() -> None:
    """Of a cell below, the size of the output follows from its source."""
    unit = [{"class": "time_frequency_lstm", "units": 2, "feature_size": 3}, {"class": "grid_lstm", **ONE_BLOCK}]
    unit[1] = {**unit[1], "feature_size": 6, "frequency_skip": 2}
    for in_loop, optimize in WAYS:
        output, params = outputs_of(unit, in_loop=in_loop, optimize=optimize)
        below = {name.removeprefix("0/"): value for name, value in params.items() if name.startswith("0/")}
        above = {name.removeprefix("1/"): value for name, value in params.items() if name.startswith("1/")}
        middle = time_frequency(below, SOURCE[0], unit[0])
        assert middle.shape == (4, 10)
        np.testing.assert_allclose(output[0], grid(above, middle, unit[1]), rtol=1e-5, atol=1e-6)


def test_under_a_mask() -> None:
    """The frames that a mask leaves out are no frames of the cell."""
    unit = {"class": "bidirectional_grid_lstm", **ONE_BLOCK}
    loop = {
        "first": {"class": "gather", "from": "data:source", "axis": "F", "position": 0},
        "mask": {"class": "compare", "from": "first", "value": 0.0, "kind": "greater"},
        "output": {
            "class": "masked_computation",
            "mask": "mask",
            "from": "data:source",
            "unit": {"class": "rnn_cell", "from": "data", "unit": unit},
        },
    }
    net = rl.compile({"output": {"class": "rec", "from": "data", "unit": loop}}, DATA, "eval", behavior_version=21)
    params: dict[str, np.ndarray] = {}
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
        params[name.rpartition("rec/")[2]] = net.params[name].numpy().astype("float64")
    source = np.random.default_rng(9).normal(size=(1, 6, FEATURES))
    source[0, :, 0] = [1, -1, 1, 1, -1, 1]
    output = net.run({"data": source}, {"data": [6]}).layers["output"].value[0]
    kept = source[0, :, 0] > 0
    np.testing.assert_allclose(output[kept], bidirectional(params, source[0][kept], unit), rtol=1e-5, atol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "window": ({"class": "time_frequency_lstm", "units": 2, "feature_size": 8}, "8 features, but the source only 7"),
    "n_out": (
        {"class": "time_frequency_lstm", "units": 2, "feature_size": 3, "n_out": 9},
        "the unit has 10 features, but n_out is 9",
    ),
    "units": ({"class": "time_frequency_lstm", "feature_size": 3, "n_out": 9}, "5 steps along frequency do not make 9"),
    "no size": ({"class": "time_frequency_lstm", "feature_size": 3}, "n_out"),
    "feature_size": ({"class": "time_frequency_lstm", "units": 2}, "'feature_size' is missing"),
    "count": (
        {"class": "grid_lstm", **ONE_BLOCK, "num_frequency_blocks": [2]},
        "num_frequency_blocks says 2 windows, but 3 fit into 7 features",
    ),
    "no blocks": (
        {"class": "grid_lstm", "units": 2, "feature_size": 3},
        "'num_frequency_blocks' is missing",
    ),
    "lists": (
        {"class": "grid_lstm", **BLOCKS, "end_freqindex_list": [4]},
        "start_freqindex_list and end_freqindex_list need an entry for each of 2 blocks",
    ),
    "beyond": (
        {"class": "grid_lstm", **BLOCKS, "start_freqindex_list": [0, 5], "end_freqindex_list": [4, 8]},
        "a block has the features 5 to 8, but the source has 7",
    ),
    "grid n_out": ({"class": "grid_lstm", **ONE_BLOCK, "n_out": 10}, "the unit has 12 features, but n_out is 10"),
    "odd": (
        {"class": "grid_lstm", "feature_size": 3, "frequency_skip": 2, "num_frequency_blocks": [3], "n_out": 10},
        "6 outputs do not make 10 features",
    ),
    "tuples": (
        {"class": "bidirectional_grid_lstm", **ONE_BLOCK, "state_is_tuple": True},
        "'state_is_tuple' is not an option",
    ),
    "initializer": ({"class": "grid_lstm", **ONE_BLOCK, "initializer": 0.1}, "'initializer' is not an option"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    size = {"n_out": unit["n_out"]} if "n_out" in unit else {}
    layer = {"class": "rec", "from": "data", "unit": {k: v for k, v in unit.items() if k != "n_out"}, **size}
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}, "eval")


def test_labels_have_no_frequencies() -> None:
    for unit in ({"class": "time_frequency_lstm", "units": 2, "feature_size": 3}, {"class": "grid_lstm", **ONE_BLOCK}):
        layer = {"class": "rec", "from": "data", "unit": unit, "n_out": 12}
        data = {"data": {"dim": 7, "sparse": True}}
        with pytest.raises(rl.ConfigError, match="the source needs a static feature dim, the frequencies"):
            rl.check({"network": {"output": layer}, "extern_data": data, "behavior_version": 21}, "eval")


SIZES: dict[str, tuple[Any, int]] = {
    "frequencies": ({"class": "timefreqlstm", "units": 2, "feature_size": 1}, 6),
    "wrapped": ({"class": "residual", "cell": {"class": "timefreqlstm", "units": 1, "feature_size": 1}}, 3),
    "projected": (
        {"class": "inputprojection", "projection": 4, "cell": {"class": "timefreqlstm", "units": 2, "feature_size": 1}},
        8,
    ),
    "stacked": ([{"class": "gru", "units": 5}, {"class": "timefreqlstm", "units": 2, "feature_size": 1}], 10),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_size_follows_from_the_source(name: str) -> None:
    """Without n_out, and where a layer is read before it is built."""
    unit, size = SIZES[name]
    step = {
        "output": {"class": "rnn_cell", "unit": unit, "from": "data:source"},
        "before": {"class": "copy", "from": "prev:output"},
    }
    for layer in ({"class": "rec", "unit": unit, "from": "data"}, {"class": "rec", "unit": step, "from": "data"}):
        config = {"network": {"output": layer}, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}
        dims = rl.check(config, "eval").outputs["layer:output"].type.dims
        assert [dim.size for dim in dims if dim.size is not None] == [size]
