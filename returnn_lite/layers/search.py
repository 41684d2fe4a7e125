"""What comes after search: decide, and what reads the scores of hypotheses (SEMANTICS 3.9)."""

from __future__ import annotations

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir import Value
from returnn_lite.ir.ops.search import Decide
from returnn_lite.layers.base import Hypotheses, Layer, LayerBuilder


class DecideLayer(Layer, names=("decide",)):
    """The best hypothesis of the source; the source itself where there is no search."""

    keeps_type_of = "from"
    source_count = (1, 1)

    length_normalization: bool = option(
        "scores are divided by the length; a hypothesis without labels is the worst", default=False
    )

    def build(self, b: LayerBuilder, x: Value) -> Value:
        found = b.surroundings.hypotheses(x)
        if found is None:
            return x
        return decided(b, x, found, self.length_normalization)


def decided(b: LayerBuilder, x: Value, found: Hypotheses, length_normalization: bool) -> Value:
    """x of the best hypothesis; the loop's dim becomes one with the lengths of the best."""
    times: tuple[tuple[Dim, Dim], ...] = ()
    if found.time.is_ragged and found.own_lengths:
        batch = tuple(dim for dim in found.time.over if dim is not found.beam)
        times = ((found.time, Symbol(f"{b.name}:time", DimKind.SPATIAL, None, batch)),)
    return b.apply(Decide(found.beam, times, length_normalization and bool(times)), x, found.scores)


class ChoiceGetBeamScores(Layer, names=("choice_get_beam_scores",)):
    """The scores of the hypotheses after search."""

    source_count = (1, 1)

    def build(self, b: LayerBuilder, x: Value) -> Value:
        found = b.surroundings.hypotheses(x)
        if found is None:
            b.fail(f"'{x.name}' does not come from search", "Use it in search only (only_on_search: true).")
        return found.scores


LAYERS = (DecideLayer, ChoiceGetBeamScores)
