"""What is made of hypotheses has a length for each of them; a decision takes the best one's, a split keeps all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build, optimized
from returnn_lite.net.network import BuiltNetwork
from tests.properties.running import part_of, run, sequence_of
from tests.reference.named import Named

Layers = dict[str, Any]
Labels = Sequence[int]
CLASSES = {"classes": {"dim": 4, "sparse": True, "available_for_inference": False}}
EXTERN = {"data": {"dim": 3}, **CLASSES}
LENGTHS = {"data": np.array([4, 2, 5]), "classes": np.array([3, 4, 1])}
FEED = {
    "data": np.random.default_rng(3).normal(size=(3, 5, 3)) * 2,
    "classes": np.array([[1, 2, 0, 3], [2, 0, 1, 1], [3, 3, 3, 3]]),
}


def search(source: str | None) -> Layers:
    """A search over frames, or one in which each hypothesis ends by itself."""
    read = "data:source" if source else "base:mean"
    unit: Layers = {
        "p": {"class": "softmax", "from": ["prev:embed", read], "target": "classes"},
        "embed": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "output"},
        "output": {"class": "choice", "from": "p", "beam_size": 3, "target": "classes", "initial_output": 0},
    }
    if source is None:
        unit["end"] = {"class": "compare", "from": "output", "value": 0}
    return {
        "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"},
        "r": {"class": "rec", "from": source or [], "max_seq_len": 5, "unit": unit},
    }


def masked(source: str, name: str, **mask: Any) -> Layers:
    return {
        f"{name}_mask": {"class": "compare", "from": source, **mask},
        name: {
            "class": "masked_computation",
            "from": source,
            "mask": f"{name}_mask",
            "unit": {"class": "copy", "from": "data"},
        },
    }


MADE: dict[str, tuple[Layers, Callable[[Labels], Labels]]] = {
    "the hypothesis itself": ({"k": {"class": "copy", "from": "r"}}, lambda r: r),
    "masked frames": (masked("r", "k", kind="greater", value=1), lambda r: [x for x in r if x > 1]),
    "masked twice": (
        {**masked("r", "k0", kind="greater", value=1), **masked("k0", "k", kind="less", value=3)},
        lambda r: [x for x in r if 1 < x < 3],
    ),
    "masked and longer": (
        {
            **masked("r", "k0", kind="greater", value=1),
            "k": {"class": "prefix_in_time", "from": "k0", "prefix": 3},
        },
        lambda r: [3, *(x for x in r if x > 1)],
    ),
    "a postfix": ({"k": {"class": "postfix_in_time", "from": "r", "postfix": 1}}, lambda r: [*r, 1]),
    "padding": (
        {"k": {"class": "pad", "axes": "T", "padding": [1, 2], "from": "r", "value": 0}},
        lambda r: [0, *r, 0, 0],
    ),
    "repeated by label": (
        {"k": {"class": "repeat", "from": "r", "repetitions": "r", "axis": "T"}},
        lambda r: [x for x in r for _ in range(x)],
    ),
    "repeated": (
        {"k": {"class": "repeat", "from": "r", "repetitions": 2, "axis": "T"}},
        lambda r: [x for x in r for _ in range(2)],
    ),
    "a slice": ({"k": {"class": "slice", "axis": "T", "slice_start": 1, "from": "r"}}, lambda r: r[1:]),
    "as many as the largest label": (
        {
            "most": {"class": "reduce", "mode": "max", "axis": "T", "from": "r"},
            "k": {"class": "slice_nd", "from": "r", "start": 0, "size": "most"},
        },
        lambda r: [*r, 0, 0, 0][: max(r, default=0)],
    ),
    "twice in a row": ({"k": {"class": "concat", "from": [["r", "T"], ["r", "T"]]}}, lambda r: [*r, *r]),
}  # fmt: skip


def results(network: Layers, optimize: bool) -> tuple[BuiltNetwork, Any, dict[str, Named]]:
    built = build({"network": network, "extern_data": EXTERN, "behavior_version": 21}, "search")
    graph = optimized(built, optimize)
    return built, graph, run(built, graph, FEED, LENGTHS)


def seen(layer: Layers) -> Layers:
    return {**layer, "is_output_layer": True}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("source", ["data", None])
@pytest.mark.parametrize("made", list(MADE))
def test_the_best_hypothesis(made: str, source: str | None, optimize: bool) -> None:
    """Its frames, as many as it has itself; a count of them before and after the decision, and of all hypotheses."""
    layers, meaning = MADE[made]
    network = {
        **search(source),
        **layers,
        "best": seen({"class": "decide", "from": "r"}),
        "best_length": seen({"class": "length", "axis": "T", "from": "best"}),
        "output": seen({"class": "decide", "from": "k"}),
        "length": seen({"class": "length", "axis": "T", "from": "output"}),
        "sum": seen({"class": "reduce", "mode": "sum", "axis": "T", "from": "output"}),
        "lengths": {"class": "length", "axis": "T", "from": "k"},
        "decided_length": seen({"class": "decide", "from": "lengths"}),
        "split": seen({"class": "split_batch_beam", "from": "k"}),
        "split_lengths": seen({"class": "length", "axis": "T", "from": "split"}),
    }
    built, graph, found = results(network, optimize)
    for sequence in range(3):
        best = found["layer:best"].array[sequence][: found["layer:best_length"].array[sequence]].tolist()
        expected = list(meaning(best))
        length = found["layer:length"].array[sequence]
        assert found["layer:output"].array[sequence][:length].tolist() == expected
        assert found["layer:decided_length"].array[sequence] == length
        assert found["layer:sum"].array[sequence] == sum(expected)
        every = found["layer:split_lengths"].over(_batch_first(found["layer:split_lengths"]))[sequence]
        assert np.atleast_1d(every)[0] == length, "the first hypothesis is the best"
        alone = run(built, graph, *sequence_of(FEED, LENGTHS, sequence))
        for name in ("layer:output", "layer:split", "layer:split_lengths", "layer:sum"):
            one = alone[name]
            whole = part_of(found[name], sequence, one)
            np.testing.assert_array_equal(whole, part_of(Named(one.over(found[name].dims), found[name].dims), 0, one))


def _batch_first(value: Named) -> tuple[Any, ...]:
    return tuple(sorted(value.dims, key=lambda dim: dim.name != "B"))


@pytest.mark.parametrize("made", ["masked and longer", "a postfix", "repeated by label"])
def test_errors_of_the_best_hypothesis(made: str) -> None:
    """In TensorFlow: the edit distance of what is made of the best, and its lengths."""
    layers, meaning = MADE[made]
    decided = {"class": "decide", "from": "k", "loss": "edit_distance", "target": "classes"}
    network = {**search(None), **layers, "best": seen({"class": "decide", "from": "r"}), "output": decided}
    errors = []
    for optimize in (True, False):
        net = rl.compile(network, EXTERN, "search", behavior_version=21, optimize=optimize)
        generator = np.random.default_rng(1)
        for name in sorted(net.params):
            net.params[name].assign(generator.normal(size=net.params[name].shape))
        out = net.run(FEED, seq_lens=LENGTHS)
        best, output = out.layers["best"], out.layers["output"]
        (lengths,), (own,) = best.seq_lens.values(), output.seq_lens.values()
        total = 0
        for sequence in range(3):
            expected = list(meaning(best.value[sequence][: lengths[sequence]].tolist()))
            assert output.value[sequence][: own[sequence]].tolist() == expected
            total += distance(expected, FEED["classes"][sequence][: LENGTHS["classes"][sequence]].tolist())
        errors.append(out.losses["output"].error)
        assert errors[-1] == total


def distance(a: list[int], b: list[int]) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize("optimize", [True, False])
def test_scores_per_label_of_what_is_decided_about(optimize: bool) -> None:
    """As RETURNN, by the lengths of the source: here those of its masked frames."""
    network = {
        **search(None),
        **masked("r", "k", kind="greater", value=1),
        "k_lengths": {"class": "length", "axis": "T", "from": "k"},
        "lengths": seen({"class": "split_batch_beam", "from": "k_lengths"}),
        "all_scores": {"class": "choice_get_beam_scores", "from": "r"},
        "scores": seen({"class": "split_batch_beam", "from": "all_scores"}),
        "all_labels": seen({"class": "split_batch_beam", "from": "k"}),
        "output": {"class": "decide", "from": "k", "length_normalization": True},
    }
    _, _, found = results(network, optimize)
    scores, lengths = (found[name].over(_batch_first(found[name])) for name in ("layer:scores", "layer:lengths"))
    best = np.where(lengths > 0, scores / np.maximum(lengths, 1), -np.inf).argmax(1)
    labels = found["layer:all_labels"]
    beam = next(dim for dim in labels.dims if dim.size == 3)
    time = next(dim for dim in labels.dims if dim.is_dynamic and dim.name != "B")
    for sequence in range(3):
        own = labels.over(tuple(sorted(labels.dims, key=[labels.dims[0], beam, time].index)))[sequence][best[sequence]]
        length = lengths[sequence, best[sequence]]
        assert found["layer:output"].array[sequence][:length].tolist() == own[:length].tolist()
