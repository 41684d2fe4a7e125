"""Every way to choose the length of a loop (SEMANTICS 3.3), by loops that count their steps.

All loops are in one network, which runs with and without optimisation on batches with empty sequences
and on one that has nothing else. Of each row stands here how many steps a sequence must have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiled import LayerOutput
from returnn_lite.compiler import ModeName, Network, build, optimized
from returnn_lite.ir.batches import BatchError
from tests.loop.probing import decoder, linear
from tests.properties.running import run

EXTERN = {
    "data": {"dim": 2},
    "classes": {"dim": 5, "sparse": True},
}
BATCHES = {
    "usual": ((5, 1, 3), (2, 4, 1)),
    "some empty": ((5, 0, 3), (0, 4, 1)),
    "all empty": ((0, 0, 0), (0, 0, 0)),
    "one": ((4,), (3,)),
}
"""Lengths of the data, and of the target."""
SEEN = re.compile("loop[0-9]+(/late)?")
Steps = Callable[[int, int], int]


def at_frame(frames: int) -> int:
    """The first step at which the number of steps is not less than that of the frames."""
    return max(frames, 1)


ALL: tuple[ModeName, ...] = ("eval", "search")
EVAL, SEARCH = ALL[:1], ALL[1:]
FREE = {"from": []}
MORE = {"from": [], "max_seq_len": 99}
ROWS: dict[str, tuple[dict[str, Any], tuple[ModeName, ...], Steps]] = {
    # Known before: no `end`, and no max_seq_len, says anything in training.
    "source": ({"from": "data", "max_seq_len": 1}, EVAL, lambda n, k: n),
    "source, without end": ({"from": "data", "max_seq_len": 1, "no_end": True}, ALL, lambda n, k: n),
    "source before target": ({"from": "data", "target": "classes"}, EVAL, lambda n, k: n),
    "axis": ({"from": "data", "axis": "T", "max_seq_len": 1}, ALL, lambda n, k: n),
    "axis before size_target": ({"from": "data", "axis": "T", "size_target": "classes"}, ALL, lambda n, k: n),
    "size_target": ({**FREE, "size_target": "classes", "max_seq_len": 1}, ALL, lambda n, k: k),
    "size_target before target": ({**FREE, "size_target": "classes", "target": "data"}, ALL, lambda n, k: k),
    "target": ({**FREE, "target": "classes", "max_seq_len": 1}, EVAL, lambda n, k: k),
    # `end` says it: in search also beside a source or a target.
    "end": (MORE, ALL, lambda n, k: at_frame(n) - 1),
    "end, include_eos": ({**MORE, "include_eos": True}, ALL, lambda n, k: at_frame(n)),
    "end beside a source": ({**MORE, "from": "data"}, SEARCH, lambda n, k: at_frame(n) - 1),
    "end beside a target": ({**MORE, "target": "classes"}, SEARCH, lambda n, k: at_frame(n) - 1),
    "end of all at once": ({**MORE, "end": ":i"}, EVAL, lambda n, k: 2),
    "end of all at once, include_eos": ({**MORE, "end": ":i", "include_eos": True}, SEARCH, lambda n, k: 3),
    "never ends": ({**FREE, "max_seq_len": 4, "end": "never"}, SEARCH, lambda n, k: 4),
    "never ends, include_eos": ({**FREE, "max_seq_len": 4, "end": "never", "include_eos": True}, EVAL, lambda n, k: 4),
    "at most 2": ({**FREE, "max_seq_len": 2}, SEARCH, lambda n, k: min(at_frame(n) - 1, 2)),
    "at most 2, include_eos": ({**FREE, "max_seq_len": 2, "include_eos": True}, EVAL, lambda n, k: min(at_frame(n), 2)),
    "no step": ({**FREE, "max_seq_len": 0, "include_eos": True}, SEARCH, lambda n, k: 0),
    "at once": ({**MORE, "end": "always"}, SEARCH, lambda n, k: 0),
    "at once, include_eos": ({**MORE, "end": "always", "include_eos": True}, EVAL, lambda n, k: 1),
}
LIMITS: dict[str, Callable[[int], int]] = {
    "max_len_from('base:data')": lambda n: n,
    "max_len_from('base:wide') * 2": lambda n: 2 * n,
    "3 + max_len_from('base:data')": lambda n: 3 + n,
    "max_len_from('base:data') // 2": lambda n: n // 2,
    "max_len_from('base:data') / 2 + 0.6": lambda n: int(n / 2 + 0.6),
    "max_len_from('base:data') % 3": lambda n: n % 3,
    "max_len_from('base:data') - 2": lambda n: max(n - 2, 0),
    "max(max_len_from('base:data') - 2, 1)": lambda n: max(n - 2, 1),
    "tf.minimum(max_len_from('base:data'), 2)": lambda n: min(n, 2),
    "-max_len_from('base:data') + 6": lambda n: 6 - n,
}


def limited(most: Callable[[int], int]) -> Steps:
    return lambda n, k: most(n)


ROWS |= {text: ({**FREE, "max_seq_len": text, "end": "never"}, EVAL, limited(most)) for text, most in LIMITS.items()}


def loop(options: dict[str, Any]) -> dict[str, Any]:
    """It counts its steps; by default it ends at as many as the data has frames. `late` can leave it."""
    kind = options.get("end", "frames")
    unit: dict[str, Any] = {
        "one": {"class": "constant", "value": 1, "with_batch_dim": True},
        "output": {"class": "combine", "kind": "add", "from": ["prev:output", "one"], "initial_output": 0},
        "late": {"class": "eval", "eval": "source(0) * 10", "from": "prev:output", "is_output_layer": True},
        "end": {
            "frames": {"class": "compare", "kind": "greater_equal", "from": ["output", "base:n"]},
            ":i": {"class": "compare", "kind": "equal", "value": 2, "from": ":i"},
            "never": {"class": "compare", "kind": "less", "value": 0, "from": "output"},
            "always": {"class": "compare", "kind": "greater", "value": 0, "from": "output"},
        }[kind],
    }
    if options.get("no_end"):
        del unit["end"]
    return {"class": "rec", "unit": unit, **{k: v for k, v in options.items() if k not in ("end", "no_end")}}


@cache
def network(mode: ModeName) -> dict[str, Any]:
    layers: dict[str, Any] = {
        "n": {"class": "length", "from": "data"},
        "wide": {"class": "eval", "eval": "source(0) * 2", "from": "data"},
    }
    for i, (options, modes, _) in enumerate(ROWS.values()):
        if mode in modes:
            layers[f"loop{i}"] = {**loop(options), "is_output_layer": True}
    return layers


@cache
def compiled(mode: ModeName) -> Network:
    return rl.compile(network(mode), extern_data=EXTERN, mode=mode, behavior_version=21, optimize=True)


@cache
def results(mode: ModeName, how: str, batch: str) -> dict[str, list[list[int]]]:
    """The frames of all loops: optimised as TensorFlow runs them, or optimised or plain as NumPy does."""
    frames, labels = BATCHES[batch]
    feed = {"data": np.zeros((len(frames), 6, 2), "float32"), "classes": np.zeros((len(labels), 5), "int32")}
    lengths = {"data": np.array(frames), "classes": np.array(labels)}
    if how == "TensorFlow":
        found = compiled(mode).run(feed, lengths).layers
        return {name: sequences(x) for name, x in found.items() if SEEN.fullmatch(name)}
    built = build({"network": network(mode), "extern_data": EXTERN, "behavior_version": 21}, mode)
    values = run(built, optimized(built, how == "optimised"), feed, lengths)
    seen = {name.removeprefix("layer:"): x for name, x in values.items()}
    batch_dim = built.extern_data.batch
    return {
        name: np.moveaxis(x.array, x.axis(batch_dim), 0).tolist() for name, x in seen.items() if SEEN.fullmatch(name)
    }


def sequences(out: LayerOutput) -> list[list[int]]:
    """The real frames of each sequence."""
    (time,) = (dim for dim in out.dims if dim != "B")
    value = np.moveaxis(out.value, out.dims.index("B"), 0)
    lengths = np.broadcast_to(out.seq_lens[time], len(value))
    assert value.shape[1] == max(lengths), "the loop ends when all have ended"
    return [row[:length].tolist() for row, length in zip(value, lengths, strict=True)]


def padded(rows: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [0] * (longest - len(row)) for row in rows]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("how", ["TensorFlow", "optimised", "plain"])
@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, (_, modes, _) in ROWS.items() for mode in modes])
def test_number_of_steps(name: str, mode: ModeName, how: str) -> None:
    for batch, lengths in BATCHES.items():
        found = results(mode, how, batch)
        loop_name = f"loop{list(ROWS).index(name)}"
        wanted = [ROWS[name][2](frames, labels) for frames, labels in zip(*lengths, strict=True)]
        counted, late = ([list(range(a, a + k * steps, k)) for steps in wanted] for a, k in ((1, 1), (0, 10)))
        assert padded(found[loop_name]) == padded(counted)
        assert padded(found[f"{loop_name}/late"]) == padded(late)
        if how == "TensorFlow":  # what NumPy gives has zeros in the padding
            assert (found[loop_name], found[f"{loop_name}/late"]) == (counted, late)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("last", [4, 5])
def test_no_step_is_run_when_all_have_ended(last: int, optimize: bool) -> None:
    """Any step after the `last` one divides by zero; the longest sequence needs five."""
    fragile = {"class": "eval", "eval": f"source(0) + 1 // ({last} - source(1))", "from": ["prev:output", ":i"]}
    unit = {
        "one": {"class": "constant", "value": 0, "with_batch_dim": True},
        "fragile": fragile,
        "output": {"class": "combine", "kind": "add", "from": ["fragile", "one"], "initial_output": 0},
        "end": {"class": "compare", "kind": "greater_equal", "from": ["i", "base:n"]},
        "i": {"class": "eval", "eval": "source(0) + 1", "from": ":i"},
    }
    layers = {"n": {"class": "length", "from": "data"}, "output": {"class": "rec", **MORE, "unit": unit}}
    net = rl.compile(layers, extern_data=EXTERN, mode="eval", behavior_version=21, optimize=optimize)
    feed = {"data": np.zeros((3, 5, 2), "float32")}, {"data": [5, 1, 3]}
    if last == 4:
        with pytest.raises(BatchError, match="nteger division by zero"):
            net.run(*feed)
    else:
        assert [len(one) for one in sequences(net.run(*feed).layers["output"])] == [4, 0, 2]


@pytest.mark.parametrize(("place", "optimize"), [("labels", True), ("cycle", True), ("labels", False)])
def test_empty_sequences_teach_nothing(place: str, optimize: bool) -> None:
    """Beside others they change no loss and no gradient; alone both are zero."""
    config = decoder({"probe": linear("x")}, place)
    del config["network"]["decision"]
    net = rl.compile(config["network"], config["extern_data"], "train", behavior_version=21, optimize=optimize)
    for i, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(i).normal(size=net.params[name].shape))
    memory = np.random.default_rng(0).normal(size=(3, 4, 4))
    targets = np.random.default_rng(0).integers(0, 5, (3, 3))

    def learned(rows: list[int], labels: list[int]) -> dict[str, np.ndarray]:
        frames = [4] * len(rows)
        feed = {"data": memory[rows], "memory": memory[rows], "classes": targets[rows]}
        lengths = {"data": frames, "memory": frames, "classes": labels}
        return {"objective": np.asarray(net.run(feed, lengths).objective), **net.gradients(feed, lengths)}

    beside, without = learned([0, 1, 2], [3, 0, 2]), learned([0, 2], [3, 2])
    for name, value in beside.items():
        np.testing.assert_allclose(value, without[name], rtol=1e-4, atol=1e-6, err_msg=name)
        assert np.abs(value).max() > 1e-3 or name.startswith("memory/"), "of the inner frames this probe reads nothing"
    assert not any(value.any() for value in learned([0, 1], [0, 0]).values())
