"""The backend and the reference interpreter score labels alike: step by step, at once, and from a state in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from returnn_lite.dims import Dim, DimKind, Symbol, TensorType
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.ops.language_model import LabelTexts, NgramModel, NgramScoreStep
from returnn_lite.ir.ops.recurrence import Recurrence
from tests.tf.cases import LENGTHS, B, T
from tests.tf.test_reference import assert_same

pytest.importorskip("kenlm")

TEXTS = ("</s>", "a", "b", "a@@", "b@@", "ab", "a b")
V = Symbol("V", DimKind.FEATURE, len(TEXTS))
STATE = Symbol("state", DimKind.SPATIAL, 10)
ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.5\t<unk>\t0
-99\t<s>\t-0.4
-1.0\t</s>\t0
-0.5\ta\t-0.2
-0.7\tb\t-0.3

\\2-grams:
-0.3\t<s> a
-0.2\ta b
-0.6\tb a

\\end\\
"""


@pytest.mark.parametrize("dense", [None, V])
@pytest.mark.parametrize("merge_symbol", ["", "@@"])
@pytest.mark.parametrize("masked", [False, True])
def test_scores(dense: Dim | None, merge_symbol: str, masked: bool, tmp_path: Path) -> None:
    """Two steps one after the other, then all frames from the state behind them."""
    (tmp_path / "lm.arpa").write_text(ARPA)
    model = NgramModel(str(tmp_path / "lm.arpa"), LabelTexts(TEXTS), merge_symbol)
    b = Builder()
    first = b.input("first", TensorType((B,), "int32", V))
    labels = b.input("labels", TensorType((B, T), "int32", V))
    counts = [b.input("counts", TensorType((B, T), "bool"))] if masked else []
    start = b.constant(0, "int32", (STATE,))
    one, state = b.emit(NgramScoreStep(model, STATE, dense), first, start)
    two, state = b.emit(NgramScoreStep(model, STATE, dense), first, state)
    rest, _ = b.emit(Recurrence(NgramScoreStep(model, STATE, dense), T), labels, state, *counts)
    graph = b.graph({"one": one, "two": two, "rest": rest})
    batch, steps = len(LENGTHS[T]), max(LENGTHS[T])
    for seed in range(3):
        generator = np.random.default_rng(seed)
        feeds = {
            "first": generator.integers(0, len(TEXTS), [batch]),
            "labels": generator.integers(0, len(TEXTS), [batch, steps]),
        }
        if masked:
            feeds["counts"] = generator.random([batch, steps]) < 0.6
        assert_same(graph, feeds, {T: LENGTHS[T]}, batch)
