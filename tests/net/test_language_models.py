"""kenlm: n-gram models that the host evaluates, on whole sequences, in loops, under masks and in search."""

from __future__ import annotations

import importlib
import itertools
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite import ConfigError
from returnn_lite.compiler import build
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.network import NetworkCompiler

pytest.importorskip("kenlm")

BOTH = pytest.mark.parametrize("optimize", [True, False])
Net = dict[str, Any]

UNIGRAMS = {
    "<unk>": (-2.0, 0.0),
    "<s>": (-99.0, -0.5),
    "</s>": (-1.1, 0.0),
    "a": (-0.6, -0.3),
    "b": (-0.9, -0.25),
    "ab": (-0.7, -0.2),
}
BIGRAMS = {
    ("<s>", "a"): (-0.4, -0.1),
    ("a", "b"): (-0.3, -0.15),
    ("b", "ab"): (-0.2, 0.0),
    ("ab", "</s>"): (-0.45, 0.0),
}
TRIGRAMS = {("<s>", "a", "b"): (-0.15, 0.0), ("a", "b", "ab"): (-0.35, 0.0)}
TABLES: Sequence[dict[Any, tuple[float, float]]] = ({(w,): n for w, n in UNIGRAMS.items()}, BIGRAMS, TRIGRAMS)
LABELS = ("</s>", "UNK", "a", "b", "a@@", "b@@", "ab")
EXTERN_DATA = {"data": {"dim": len(LABELS), "sparse": True}}
BPE = {"bpe_merge_symbol": "@@"}
LENGTHS = [5, 3]
X = np.array([[2, 3, 6, 0, 4], [4, 3, 2, 99, -7]])
"""Beyond the end of the second sequence there are no labels at all."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Net:
    """The options that name a small trigram model and its labels."""
    folder = tmp_path_factory.mktemp("lm")
    lines = ["\\data\\", *(f"ngram {order}={len(table)}" for order, table in enumerate(TABLES, 1))]
    for order, table in enumerate(TABLES, 1):
        lines += ["", f"\\{order}-grams:"]
        last = order == len(TABLES)
        lines += [f"{p}\t{' '.join(words)}" + ("" if last else f"\t{backoff}") for words, (p, backoff) in table.items()]
    (folder / "lm.arpa").write_text("\n".join([*lines, "", "\\end\\", ""]))
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return {"lm_file": str(folder / "lm.arpa"), "vocab_file": str(folder / "labels.txt")}


def log_probability(words: tuple[str, ...]) -> float:
    """That of the last word behind the others, log10, by the definition of backoff."""
    words = tuple(word if (word,) in TABLES[0] else "<unk>" for word in words)[-len(TABLES) :]
    if words in TABLES[len(words) - 1]:
        return TABLES[len(words) - 1][words][0]
    context = words[:-1]
    return TABLES[len(context) - 1].get(context, (0.0, 0.0))[1] + log_probability(words[1:])


def total(text: str) -> float:
    """The natural logarithm of a text's probability."""
    words = ("<s>", *text.split())
    return math.log(10) * sum(log_probability(words[: n + 1]) for n in range(1, len(words)))


def text_of(labels: Sequence[int], symbol: str) -> str:
    text = "".join(f"{LABELS[label]} " for label in labels)
    return text.replace(f"{symbol} ", "") if symbol else text


def expected(labels: Sequence[int], symbol: str = "", skipped: int = 0) -> list[float]:
    """The differences of the scores of all beginnings; the first labels `skipped`."""
    totals = [total(text_of(labels[skipped:n], symbol)) for n in range(len(labels) + 1)]
    return [after - before for before, after in itertools.pairwise(totals)]


def expected_dense(labels: Sequence[int], symbol: str = "", skipped: int = 0) -> list[list[float]]:
    """For each beginning the scores of all continuations, the incomplete word with its symbol."""
    rows = []
    for n in range(1, len(labels) + 1):
        text = text_of(labels[skipped:n], symbol)
        before = total(text if text == "" or text.endswith(" ") else text + symbol)
        rows.append([total(text + label) - before for label in LABELS])
    return rows


def probe(files: Net, source: str, **options: Any) -> Net:
    return {"class": "kenlm", "from": source, **files, **options}


def compiled(network: Net, optimize: bool = True, mode: str = "forward") -> rl.Network:
    return rl.compile(network, extern_data=EXTERN_DATA, mode=mode, behavior_version=21, optimize=optimize)


def frames(network: Net, optimize: bool) -> list[list[Any]]:
    """The real frames of the output."""
    out = compiled(network, optimize).run({"data": X}, {"data": LENGTHS}).layers["output"]
    value = np.moveaxis(np.asarray(out.value), out.dims.index("B"), 0)
    return [row[:length].tolist() for row, length in zip(value, LENGTHS, strict=True)]


def loop(unit: Net, **options: Any) -> Net:
    return {"output": {"class": "rec", "from": "data", "unit": unit, **options}}


def assert_scores(found: list[list[Any]], wanted: Any, *arguments: Any) -> None:
    for row, labels, length in zip(found, X, LENGTHS, strict=True):
        np.testing.assert_allclose(row, wanted(labels[:length].tolist(), *arguments), rtol=1e-5, atol=1e-5)


PLACES = pytest.mark.parametrize("place", ["whole", "loop", "cycle"])


def placed(place: str, files: Net, **options: Any) -> Net:
    """The layer on whole sequences, in a loop that it can leave, and in a cycle that keeps it."""
    if place == "whole":
        return {"output": probe(files, "data", **options)}
    if place == "loop":
        return loop({"output": probe(files, "data:source", **options)})
    feedback = {
        "zero": {"class": "eval", "from": "prev:flat", "eval": "tf.cast(source(0) * 0.0, 'int32')"},
        "label": {"class": "combine", "kind": "add", "from": ["data:source", "zero"]},
    }
    flat = {"class": "reduce", "mode": "sum", "axis": "F", "from": "output"}
    if not options.get("dense_output"):
        flat = {"class": "copy", "from": "output"}
    return loop({**feedback, "output": probe(files, "label", **options), "flat": flat})


@BOTH
@PLACES
def test_scores_of_words(files: Net, place: str, optimize: bool) -> None:
    assert_scores(frames(placed(place, files), optimize), expected)


@BOTH
@PLACES
def test_incomplete_words_are_scored_as_they_are(files: Net, place: str, optimize: bool) -> None:
    assert_scores(frames(placed(place, files, **BPE), optimize), expected, "@@")


@BOTH
@PLACES
@pytest.mark.parametrize("symbol", ["", "@@"])
def test_scores_of_all_labels(files: Net, place: str, symbol: str, optimize: bool) -> None:
    options = {"bpe_merge_symbol": symbol or None, "dense_output": True, "input_step_offset": 1}
    assert_scores(frames(placed(place, files, **options), optimize), expected_dense, symbol, 1)


@BOTH
@PLACES
def test_labels_of_the_first_steps_do_not_count(files: Net, place: str, optimize: bool) -> None:
    assert_scores(frames(placed(place, files, input_step_offset=2, **BPE), optimize), expected, "@@", 2)


RETURNN = {
    "words": ({}, [[-0.9210, -0.3454, -0.8059, -1.0362, -4.6052], [-5.7565, -2.0723, -1.9572]]),
    "pieces": (BPE, [[-0.9210, -0.3454, -0.8059, -1.0362, -1.3816], [-0.9210, -1.8421, -1.8421]]),
    "offset": ({**BPE, "input_step_offset": 2}, [[0.0, 0.0, -2.7631, -1.0362, -1.3816], [0.0, 0.0, -0.9210]]),
    "dense": (
        {**BPE, "input_step_offset": 1, "dense_output": True},
        [
            [
                [-3.6841, -5.7565, -0.9210, -3.2236, -5.7565, -5.7565, -2.7631],
                [-3.1085, -5.1808, -1.9572, -2.6480, -5.1808, -5.1808, -0.4605],
                [-1.0362, -5.0657, -1.8421, -2.5328, -5.0657, -5.0657, -2.0723],
                [-2.5328, -4.6052, -1.3816, -2.0723, -4.6052, -4.6052, -1.6118],
                [0.0, 0.0, 0.0, 2.9934, 0.0, 0.0, 0.0],
            ],
            [
                [-3.6841, -5.7565, -0.9210, -3.2236, -5.7565, -5.7565, -2.7631],
                [-3.1085, -5.1808, -1.9572, -2.6480, -5.1808, -5.1808, -0.4605],
                [-3.2236, -5.2959, -2.0723, -0.6908, -5.2959, -5.2959, -2.3026],
            ],
        ],
    ),
}
"""What RETURNN 1.20261022.211313 computes (its extern folder: the sources of kenlm 0.3.0): options, real frames."""


@BOTH
@PLACES
@pytest.mark.parametrize("name", RETURNN)
def test_numbers_are_those_of_returnn(files: Net, name: str, place: str, optimize: bool) -> None:
    options, numbers = RETURNN[name]
    for row, wanted in zip(frames(placed(place, files, **options), optimize), numbers, strict=True):
        np.testing.assert_allclose(row, wanted, atol=1e-4)


@BOTH
def test_under_a_mask_only_its_labels_count(files: Net, optimize: bool) -> None:
    """Masked: the labels but "b"; the score is held in between."""
    unit = {
        "mask": {"class": "compare", "from": "data:source", "kind": "not_equal", "value": 3},
        "y": {
            "class": "masked_computation",
            "mask": "mask",
            "from": "data:source",
            "unit": probe(files, "data", input_step_offset=1),
        },
        "output": {"class": "copy", "from": "y"},
    }
    for row, labels, length in zip(frames(loop(unit), optimize), X, LENGTHS, strict=True):
        own = [label for label in labels[:length].tolist() if label != 3]
        scores, wanted = iter(expected(own, skipped=1)), []
        for label in labels[:length]:
            wanted.append(wanted[-1] if label == 3 else next(scores))
        np.testing.assert_allclose(row, wanted, rtol=1e-5, atol=1e-5)


PIECES: Net = {"class": "split_dims", "from": "data", "axis": "T", "dims": [-1, 2]}
"""Two labels in a row; behind the last of a sequence with an odd number of them, a label 0."""


@BOTH
@pytest.mark.parametrize("place", ["whole", "loop"])
def test_each_line_along_another_axis_is_a_text_of_its_own(files: Net, place: str, optimize: bool) -> None:
    line = probe(files, "data:source" if place == "loop" else "pieces", axis="static:0", **BPE)
    network = loop({"output": line}, **{"from": "pieces"}) if place == "loop" else {"output": line}
    out = compiled({"pieces": PIECES, **network}, optimize).run({"data": X}, {"data": LENGTHS}).layers["output"]
    value = np.moveaxis(out.value, [out.dims.index("B"), out.dims.index("pieces:split1")], [0, 2])
    assert value.shape == (2, 3, 2)
    for row, labels, length in zip(value, X, LENGTHS, strict=True):
        known = [*labels[:length].tolist(), *([0] * (length % 2))]
        for piece, pair in zip(row, _pairs(known), strict=False):
            np.testing.assert_allclose(piece, expected(pair, "@@"), rtol=1e-5, atol=1e-5)


def _pairs(labels: Sequence[int]) -> list[list[int]]:
    return [list(labels[i : i + 2]) for i in range(0, len(labels), 2)]


@BOTH
@PLACES
def test_the_time_axis_is_the_default(files: Net, place: str, optimize: bool) -> None:
    assert_scores(frames(placed(place, files, axis="T"), optimize), expected)


def test_an_axis_that_is_not_there(files: Net) -> None:
    assert "network.output.axis: " in message({"output": probe(files, "data", axis="static:0")})


@BOTH
@PLACES
def test_debug_prints_the_scores(files: Net, place: str, optimize: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """All of them, even if nothing needs them, and they stay what they are."""
    frames(placed(place, files), optimize)
    assert capfd.readouterr().err.count("output scores") == 0
    assert_scores(frames(placed(place, files, debug=True), optimize), expected)
    printed = capfd.readouterr().err
    times = 1 if place == "whole" or (place == "loop" and optimize) else max(LENGTHS)
    assert printed.count("output scores [") == times
    assert f"{expected(X[0].tolist())[-1]:.4f}"[:6] in printed
    unread = {"lm": probe(files, "data", debug=True, is_output_layer=True), "output": {"class": "copy", "from": "data"}}
    compiled(unread, optimize).run({"data": X}, {"data": LENGTHS})
    assert capfd.readouterr().err.count("lm scores") == 1


# Search

SEARCH: Net = {
    "logits": {"class": "linear", "activation": None, "from": "prev:embed", "n_out": len(LABELS)},
    "prob": {"class": "activation", "activation": "log_softmax", "from": "logits"},
    "embed": {"class": "linear", "activation": "tanh", "from": "output", "n_out": 3, "initial_output": 0},
    "end": {"class": "compare", "from": "output", "value": 0},
}


def decoder(files: Net, **options: Any) -> Net:
    """A decoder whose scores are those of a label model plus the language model's."""
    choice = {
        "class": "choice",
        "from": "both",
        "input_type": "log_prob",
        "target": "data",
        "beam_size": 4,
        "initial_output": 0,
        "length_normalization": False,
    }
    lm = probe(files, "prev:output", dense_output=True, input_step_offset=1, is_output_layer=True, **options)
    both = {"class": "combine", "kind": "add", "from": ["prob", "lm"]}
    again = probe(files, "output", is_output_layer=True, **options)
    unit = {**SEARCH, "lm": lm, "both": both, "output": choice, "again": again}
    scores = {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True}
    rec = {"class": "rec", "from": [], "target": "data", "unit": unit, "max_seq_len": 6, "include_eos": True}
    return {"output": rec, "scores": scores}


@pytest.mark.parametrize("symbol", [None, "@@"])
def test_every_hypothesis_of_a_search_has_its_own_state(files: Net, symbol: str | None) -> None:
    """The best four of all sequences up to the end, each scored from its beginning by the definition; and optimised
    as not."""
    outs = []
    for optimize in (True, False):
        net = compiled(decoder(files, bpe_merge_symbol=symbol), optimize, "search")
        generator = np.random.default_rng(3)
        for name in sorted(net.params):
            net.params[name].assign(generator.normal(size=net.params[name].shape))
        outs.append(net.run({"data": X}, {"data": LENGTHS}))
    first, second = outs
    for layer in ("output", "output/lm", "output/again", "scores"):
        a, b = first.layers[layer], second.layers[layer]
        np.testing.assert_allclose(a.value, b.value, rtol=1e-5, atol=1e-5, err_msg=layer)
    labels, again = first.layers["output"], first.layers["output/again"]
    assert labels.dims == again.dims
    (lengths,) = labels.seq_lens.values()
    value = np.asarray(labels.value)
    time = next(i for i, size in enumerate(value.shape) if size == np.max(lengths))
    rows = np.moveaxis(value, time, -1).reshape(-1, value.shape[time])
    found = np.moveaxis(np.asarray(again.value), time, -1).reshape(rows.shape)
    assert len({tuple(row) for row in rows.tolist()}) > 2
    for row, scores, length in zip(rows, found, np.ravel(lengths), strict=True):
        np.testing.assert_allclose(scores[:length], expected(row[:length].tolist(), symbol or ""), rtol=1e-4, atol=1e-5)


# Mistakes


def message(network: Net) -> str:
    with pytest.raises(ConfigError) as caught:
        compiled(network)
    return str(caught.value)


def test_mistakes_in_the_options(files: Net, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("a\nb\n")
    few = {**files, "vocab_file": str(tmp_path / "few.txt")}
    assert "has 2 labels, but the source has" in message({"output": probe(few, "data")})
    missing = {**files, "vocab_file": str(tmp_path / "no.txt")}
    assert f"'{tmp_path / 'no.txt'}' does not exist" in message({"output": probe(missing, "data")})
    assert "has no label '<unk>'" in message({"output": probe(files, "data", vocab_unknown_label="<unk>")})
    assert "the texts of the labels are not known" in message({"output": probe(files, "data", vocab_file=None)})
    assert "words are cut at spaces" in message({"output": probe(files, "data", bpe_merge_symbol="@ @")})
    floats = {"f": {"class": "cast", "from": "data", "dtype": "float32"}, "output": probe(files, "f")}
    assert "but labels are scored" in message(floats)


def test_a_model_that_cannot_be_read(files: Net, tmp_path: Path) -> None:
    missing = tmp_path / "no.arpa"
    with pytest.raises(ValueError, match=f"language model '{missing}' cannot be read: No such file"):
        frames({"output": probe({**files, "lm_file": str(missing)}, "data")}, True)
    broken = tmp_path / "broken.arpa"
    broken.write_text("not a language model\n")
    with pytest.raises(ValueError, match=f"language model '{broken}' cannot be read"):
        frames({"output": probe({**files, "lm_file": str(broken)}, "data")}, True)


def test_without_the_package_only_running_is_an_error(
    files: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.arpa"
    other.write_text(Path(files["lm_file"]).read_text())
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ImportError):
        importlib.import_module("kenlm")
    network = {"output": probe({**files, "lm_file": str(other)}, "data")}
    config = {"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}
    assert "layer:output" in build(config, "forward").graph.outputs
    with pytest.raises(EngineError, match="needs the package kenlm"):
        NetworkCompiler(config)("forward", ["output"])
    with pytest.raises(ValueError, match=re.escape("needs the package kenlm. Install it: pip install 'returnn_lite[")):
        compiled(network)
