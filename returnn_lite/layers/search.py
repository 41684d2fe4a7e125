"""Search: choice, decide and what reads their scores (SEMANTICS 3.8, 3.9)."""

from __future__ import annotations

from typing import Any, Literal

from returnn_lite.config.options import Callback, LayerRef, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim, DimKind, Symbol, TensorType
from returnn_lite.ir import Value
from returnn_lite.ir.ops.search import Choose, Decide, FirstBeam, ScoreRule
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.layers.base import Hypotheses, Layer, LayerBuilder, Outputs
from returnn_lite.layers.losses import logits_of

_LATER = "this comes with a later version; leave it out"


class Choice(Layer, names=("choice",)):
    """In search, extends the hypotheses by the best labels; without search, the label of the target."""

    outputs_labels = True
    source_count = (0, None)

    beam_size: int = option("how many hypotheses are kept", least=1)
    keep_beams: bool = option("every hypothesis keeps as many successors as the others", default=False)
    search: bool | UnspecifiedType = option("False takes the target even in search", default=Unspecified)
    add_to_beam_scores: bool | UnspecifiedType = option(
        "scores without search", default=Unspecified, unsupported=_LATER
    )
    input_type: Literal["prob", "log_prob", "logits", "regression"] = option("what the source is", default="prob")
    prob_scale: float = option("factor of the step's scores", default=1.0)
    base_beam_score_scale: float = option("factor of the scores before", default=1.0)
    random_sample_scale: float = option("scale of Gumbel noise on the scores", default=0.0)
    length_normalization: bool = option("hypotheses compare by their score per label", default=True)
    length_normalization_exponent: float = option("exponent of the length in it", default=1.0)
    custom_score_combine: Callback | None = option("function that combines scores", default=None, unsupported=_LATER)
    source_beam_sizes: list[int] | None = option("beams of several sources", default=None, unsupported=_LATER)
    scheduled_sampling: bool | float | dict[str, Any] = option("samples in training", default=False, unsupported=_LATER)
    cheating: bool | Literal["exclusive"] = option("keeps the target among the hypotheses", default=False)
    explicit_search_sources: list[LayerRef] | None = option("orders choices", default=None, unsupported=_LATER)

    def build(self, b: LayerBuilder, *sources: Value) -> Outputs:
        if not b.mode.search or self.search is False:
            return Outputs(self._gold(b))
        if b.loop is None:
            b.fail("search needs a loop around the choice", "Put it into the unit of a rec layer.")
        if self.input_type == "regression":
            return Outputs(sources[0])
        if self.cheating:
            b.fail(
                "cheating in search is not supported", "Search without it; in training it has no effect.", "cheating"
            )
        (source,) = sources if len(sources) == 1 else (b.fail("choices over several sources are not supported"),)
        return self._search(b, source)

    def _gold(self, b: LayerBuilder) -> Value:
        gold = b.surroundings.target(None)
        return b.annotate(gold, sparse=b.surroundings.class_dim(), feature=gold.type.feature, time=gold.type.time)

    def _search(self, b: LayerBuilder, source: Value) -> Outputs:
        beam = Symbol(f"{b.name}:beam", DimKind.BEAM, self.beam_size)
        scores = self._log_scores(b, source)
        classes = b.feature_of(scores)
        rule = ScoreRule(
            self.prob_scale,
            self.base_beam_score_scale,
            self.length_normalization,
            self.length_normalization_exponent,
            self.keep_beams,
            self.random_sample_scale,
            b.name if self.random_sample_scale else "",
        )
        with b.ir.at_outer():
            first = b.expand(b.apply(FirstBeam(beam, scores.type.dtype)), b.surroundings.batch)
        before = b.delay("score", TensorType((), scores.type.dtype), first)
        step = b.apply(StepIndex())
        ended = b.surroundings.ended_before()
        label, _, score = b.emit(Choose(classes, beam, rule), scores, before.now, ended, step)
        before.next = score
        b.surroundings.chosen(beam, self._reported(b, score, step))
        return Outputs(label, {"scores": score})

    def _reported(self, b: LayerBuilder, score: Value, step: Value) -> Value:
        """The score of a hypothesis as the end of search reports it: per label, with length normalisation."""
        if not self.length_normalization:
            return score
        steps = b.cast(b.add(step, 1), score.type.dtype)
        return b.binary("truediv", score, b.binary("pow", steps, self.length_normalization_exponent))

    def _log_scores(self, b: LayerBuilder, source: Value) -> Value:
        if self.input_type == "log_prob":
            return source
        logits = source if self.input_type == "logits" else logits_of(b, source)
        if logits is None:
            return b.unary("safe_log", source)
        return b.softmax(logits, b.feature_of(logits), log=True)


class DecideLayer(Layer, names=("decide",)):
    """The best hypothesis of the source; the source itself where there is no search."""

    keeps_type_of = "from"
    source_count = (1, 1)

    length_normalization: bool = option("scores are divided by the length", default=False)

    def build(self, b: LayerBuilder, x: Value) -> Value:
        found = b.surroundings.hypotheses(x)
        if found is None:
            return x
        return decided(b, x, found, self.length_normalization)


def decided(b: LayerBuilder, x: Value, found: Hypotheses, length_normalization: bool) -> Value:
    """x of the best hypothesis; the loop's dim becomes one with the lengths of the best."""
    times: tuple[tuple[Dim, Dim], ...] = ()
    if found.time.is_ragged:
        batch = tuple(dim for dim in found.time.over if dim is not found.beam)
        times = ((found.time, Symbol(f"{b.name}:time", DimKind.SPATIAL, None, batch)),)
    return b.apply(Decide(found.beam, times, length_normalization), x, found.scores)


class ChoiceGetBeamScores(Layer, names=("choice_get_beam_scores",)):
    """The scores of the hypotheses after search."""

    source_count = (1, 1)

    def build(self, b: LayerBuilder, x: Value) -> Value:
        found = b.surroundings.hypotheses(x)
        if found is None:
            b.fail(f"'{x.name}' does not come from search", "Use it in search only (only_on_search: true).")
        return found.scores


LAYERS = (Choice, DecideLayer, ChoiceGetBeamScores)
