"""Choice: the label of a step, from search, from the target, or drawn (SEMANTICS 3.8)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from returnn_lite.config.options import Expression, LayerRef, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir.ops.reduction import ArgReduce, TopK
from returnn_lite.ir.ops.search import Choose, ScoreRule
from returnn_lite.ir.ops.sources import RandomDraw, StepIndex
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder, Mode, Outputs
from returnn_lite.layers.score_function import combined_by_expression, function_on_arrays, scores_behind_end


class Choice(Layer, names=("choice",)):
    """In search, extends the hypotheses by the best labels; without search, the label of the target.

    With several sources it chooses a label for each, which are the parts `out_0`, `out_1`, ...; the output is the
    first.
    """

    source_count = (0, None)

    beam_size: int = option("how many hypotheses are kept", least=1)
    keep_beams: bool = option("every hypothesis keeps as many successors as the others", default=False)
    search: bool | UnspecifiedType = option(
        "True searches in training, too; False takes the target even in search", default=Unspecified
    )
    add_to_beam_scores: bool | UnspecifiedType = option(
        "with search: False, the target's log probability counts in the scores of the hypotheses", default=Unspecified
    )
    input_type: Literal["prob", "log_prob", "logits", "regression"] = option("what the source is", default="prob")
    prob_scale: float = option("factor of the step's scores", default=1.0)
    base_beam_score_scale: float = option("factor of the scores before", default=1.0)
    random_sample_scale: float = option("scale of Gumbel noise on the scores", default=0.0)
    length_normalization: bool = option("hypotheses compare by their score per label", default=True)
    length_normalization_exponent: float = option("exponent of the length in it", default=1.0)
    custom_score_combine: Expression | None = option(
        "how scores combine: an expression of scores_in, scores_base, t and end_flags, or a function of a Python "
        "config, which gets these as arrays of all hypotheses; in place of prob_scale and the like",
        default=None,
    )
    source_beam_sizes: list[int] | None = option(
        "of several sources, how many of the best labels of each are combined; by default beam_size", default=None
    )
    scheduled_sampling: bool | dict[str, Any] = option(
        "without search, labels drawn from the source's distribution; gold_mixin_prob: how often the target's instead",
        default=False,
    )
    cheating: bool | Literal["exclusive"] = option(
        "the last hypothesis of the beam is the target; exclusive: only that one", default=False
    )
    explicit_search_sources: list[LayerRef] | dict[str, LayerRef] | None = option(
        "layers that this choice comes after, where it does not depend on an earlier one of the step", default=None
    )

    def reads_sources(self, mode: Mode) -> bool:
        """False where the label is that of the target, and nothing else is made of the sources."""
        return self._follows(mode) or self._draws(mode) or self._scores_gold(mode)

    def gives_labels(self) -> bool:
        return self.input_type != "regression"

    def keeps_target(self) -> bool:
        return bool(self.cheating)

    def searches(self, mode: Mode) -> bool:
        return self.gives_labels() and self._follows(mode)

    def _follows(self, mode: Mode) -> bool:
        """Whether the output is what the source says: in search, unless options say otherwise."""
        return self.search is True or (mode.search and self.search is not False)

    def _draws(self, mode: Mode) -> bool:
        return not mode.search and self.scheduled_sampling is not False

    def _scores_gold(self, mode: Mode) -> bool:
        return mode.search and self.add_to_beam_scores is True

    def build(self, b: LayerBuilder, *sources: View) -> Outputs:
        if self._follows(b.mode):
            return self._searched(b, sources) if self.gives_labels() else Outputs(self._sources(b, sources)[0][1])
        if self._draws(b.mode):
            return self._outputs([self._drawn(b, source, k) for k, source in self._sources(b, sources)])
        gold = [self._gold(b, k) for k in range(max(1, len(b.source_names)))]
        if self._scores_gold(b.mode):
            self._score_gold(b, sources, gold)
        return self._outputs(gold)

    def _outputs(self, labels: Sequence[View]) -> Outputs:
        parts: Mapping[str, View] = {}
        if len(labels) > 1:
            parts = {f"out_{k}": label for k, label in enumerate(labels)}
        return Outputs(labels[0], parts)

    def _sources(self, b: LayerBuilder, sources: Sequence[View]) -> list[tuple[int, View]]:
        if not sources:
            b.fail("there is nothing to choose from", "Give the scores of the labels as 'from'.", "from")
        if b.surroundings.target.is_given and self.gives_labels():
            for k, source in enumerate(sources):
                have, want = b.feature_of(source), b.surroundings.target.class_dim(k)
                if None not in (have.size, want.size) and have.size != want.size:
                    b.fail(
                        f"'{b.source_names[k]}' has scores of {have.size} classes, but the target has {want.size}",
                        "Give the layer of the scores the size of the target, or give another target.",
                        "target",
                    )
        return list(enumerate(sources))

    # Without search

    def _gold(self, b: LayerBuilder, k: int) -> View:
        gold = b.surroundings.target.gold_label(k)
        if not self.gives_labels():
            return gold
        classes = b.surroundings.target.class_dim(k)
        return b.as_index(gold, classes)

    def _drawn(self, b: LayerBuilder, source: View, k: int) -> View:
        """A label drawn from the source's distribution, without a gradient (Gumbel's maximum); sometimes the gold one.

        Each step and sequence has draws of its own, which depend on nothing but the seed, the step and the name.
        """
        if not self.gives_labels():
            b.fail("of a regression nothing is drawn", "Leave it out.", "scheduled_sampling")
        scores = b.stop_gradient(self._log_scores(b, source))
        classes = b.feature_of(scores)
        dims = (*(dim for dim in scores.type.dims if dim is not classes), b.batch, classes)
        # Below 1, so that the second logarithm has no pole.
        draw = RandomDraw("uniform", 1e-20, 1.0, tuple(dict.fromkeys(dims)), f"{b.name}:draw{k}", fresh=True)
        noise = b.unary("neg", b.unary("log", b.unary("neg", b.unary("log", b.apply(draw)))))
        label = b.apply(ArgReduce("max", classes), b.add(scores, noise))
        label = b.with_feature(b.as_index(label, b.surroundings.target.class_dim(k)), None)
        probability = self._gold_probability(b)
        if not probability:
            return label
        rest = tuple(dim for dim in draw.dims if dim is not classes)
        coin = b.apply(RandomDraw("uniform", 0.0, 1.0, rest, f"{b.name}:gold{k}", fresh=True))
        gold = self._gold(b, k)
        return b.select(b.binary("less", coin, probability), b.cast(gold, "int32"), label)

    def _gold_probability(self, b: LayerBuilder) -> float:
        given = self.scheduled_sampling
        if isinstance(given, dict):
            unknown = sorted(set(given) - {"gold_mixin_prob"})
            if unknown:
                b.fail(f"there is no '{unknown[0]}'", "It has gold_mixin_prob.", "scheduled_sampling")
            given = given.get("gold_mixin_prob", 0.0)
        probability = 0.0 if isinstance(given, bool) else given
        if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability <= 1:
            b.fail(f"expected a probability, got {probability!r}", "Give a number from 0 to 1.", "scheduled_sampling")
        return float(probability)

    def _score_gold(self, b: LayerBuilder, sources: Sequence[View], gold: Sequence[View]) -> None:
        """Adds the log probability of the target to the scores of the hypotheses; those that have ended keep theirs."""
        if b.loop is None:
            b.fail("scores need a loop around the choice", "Put it into the unit of a rec layer.", "add_to_beam_scores")
        if self.custom_score_combine is not None:
            b.fail(
                "of a choice that does not search, the scores are those of the target",
                "Leave it out.",
                "custom_score_combine",
            )
        if self.length_normalization:
            b.fail(
                "scores of a choice that does not search are not normalised by length",
                "Set length_normalization: False here, as in the choice that searches.",
                "add_to_beam_scores",
            )
        hypotheses = b.surroundings.search.hypotheses()
        score = hypotheses.before([source for _, source in self._sources(b, sources)])
        ended = hypotheses.ended_before()
        for k, source in self._sources(b, sources):
            log_p = self._log_scores(b, source)
            own = b.gather(log_p, gold[k], b.feature_of(log_p), clip=True)
            score = b.add(score, b.select(ended, 0.0, b.mul(own, self.prob_scale)))
        hypotheses.scored(score)

    # Search

    def _searched(self, b: LayerBuilder, sources: Sequence[View]) -> Outputs:
        if b.loop is None:
            b.fail("search needs a loop around the choice", "Put it into the unit of a rec layer.")
        if b.ir.clock:
            b.fail("a choice under a mask can't order hypotheses", "Put it beside the masked_computation.")
        scores = [self._log_scores(b, source) for _, source in self._sources(b, sources)]
        if len(scores) == 1:
            label, score = self._extended(b, scores[0], sources)
            return Outputs(label, {"scores": score})
        if self.cheating:
            b.fail("several sources can't keep the target among the hypotheses", "Leave it out.", "cheating")
        combined, chosen = self._combined(b, scores)
        label, score = self._extended(b, combined, sources)
        outputs = self._outputs(self._taken_apart(b, label, chosen))
        return Outputs(outputs.value, {**outputs.parts, "scores": score})

    def _extended(self, b: LayerBuilder, scores: View, sources: Sequence[View]) -> tuple[View, View]:
        """The label of each hypothesis and its score."""
        beam = Symbol(f"{b.name}:beam", DimKind.BEAM, self.beam_size)
        cheating = "exclusive" if self.cheating == "exclusive" else "replace" if self.cheating else ""
        rule = ScoreRule(
            self.prob_scale,
            self.base_beam_score_scale,
            self.keep_beams,
            self.random_sample_scale,
            b.name if self.random_sample_scale else "",
            cheating,
        )
        step = b.apply(StepIndex())
        explicit = self.explicit_search_sources or ()
        named = explicit.items() if isinstance(explicit, dict) else enumerate(explicit)
        after: dict[int | str, View] = {key: b.layer(reference) for key, reference in named}
        hypotheses = b.surroundings.search.hypotheses()
        first = hypotheses.before([*sources, *after.values()])
        right = [b.cast(self._gold(b, 0), "int32")] if cheating else []
        ended = hypotheses.ended_before()
        before = self._grown(b, first, ended, step)
        classes = b.feature_of(scores)
        choose, read = Choose(classes, beam, rule), []
        if self.custom_score_combine is not None:
            self._check_no_scales(b)
            if isinstance(self.custom_score_combine, str):
                scores = combined_by_expression(b, self.custom_score_combine, scores, before, ended, step)
                choose = replace(choose, rule=replace(rule, combined=True))
            else:
                combine = function_on_arrays(b, self.custom_score_combine, classes, after, first)
                choose, read = replace(choose, combine=combine), list(after.values())
        label, _, score = b.emit(choose, scores, before, ended, step, *right, *read)
        hypotheses.chosen(beam, label, score, self._reported(b, score, step))
        return label, score

    def _check_no_scales(self, b: LayerBuilder) -> None:
        """How scores combine is said once."""
        for name, default in (("prob_scale", 1.0), ("base_beam_score_scale", 1.0), ("random_sample_scale", 0.0)):
            if getattr(self, name) != default:
                b.fail(f"custom_score_combine is in place of {name}", "Leave out one of them.", name)

    def _combined(self, b: LayerBuilder, scores: Sequence[View]) -> tuple[View, list[tuple[Dim, View]]]:
        """The sums of the best scores of each source as one dim of classes; and of each source the labels of these."""
        sizes = self.source_beam_sizes or [self.beam_size] * len(scores)
        if len(sizes) != len(scores):
            b.fail(f"{len(scores)} sources, but {len(sizes)} sizes", "Give one for each source.", "source_beam_sizes")
        ended = b.surroundings.search.hypotheses().ended_before()
        total: View | None = None
        chosen: list[tuple[Dim, View]] = []
        for k, (log_p, size) in enumerate(zip(scores, sizes, strict=True)):
            classes = b.feature_of(log_p)
            kept = b.new_feature(size, f"source{k}")
            best, labels = b.emit(TopK(classes, kept), scores_behind_end(b, log_p, ended))
            chosen.append((kept, labels))
            total = best if total is None else b.add(total, best)
        assert total is not None
        dims = [dim for dim, _ in chosen]
        combinations = b.new_feature(math.prod(dim.size or 1 for dim in dims), "combinations")
        return b.with_feature(b.merge_dims(total, dims, combinations), combinations), chosen

    def _taken_apart(self, b: LayerBuilder, label: View, chosen: Sequence[tuple[Dim, View]]) -> list[View]:
        """From the number of a combination to the label of each source."""
        rest = b.as_index(label, None)
        labels: list[View] = []
        for dim, of_source in reversed(chosen):
            size = dim.size or 1
            own = b.gather(of_source, b.binary("mod", rest, size), dim, clip=True)
            labels.append(own)
            rest = b.binary("floordiv", rest, size)
        return labels[::-1]

    def _grown(self, b: LayerBuilder, score: View, ended: View, step: View) -> View:
        """The scores before step t; with length normalisation those of hypotheses that have ended times ((t+1)/t) **
        exponent, so that pruning compares scores per label."""
        if not self.length_normalization:
            return score
        dtype = score.type.dtype
        now, before = b.cast(b.add(step, 1), dtype), b.cast(b.binary("maximum", step, 1), dtype)
        growth = b.binary("pow", b.binary("truediv", now, before), self.length_normalization_exponent)
        return b.select(ended, b.mul(score, growth), score)

    def _reported(self, b: LayerBuilder, score: View, step: View) -> View:
        """The score of a hypothesis as the end of search reports it: per label, with length normalisation."""
        if not self.length_normalization:
            return score
        steps = b.cast(b.add(step, 1), score.type.dtype)
        return b.binary("truediv", score, b.binary("pow", steps, self.length_normalization_exponent))

    def _log_scores(self, b: LayerBuilder, source: View) -> View:
        if self.input_type == "log_prob":
            return source
        logits = source if self.input_type == "logits" else b.logits_of(source)
        if logits is None:
            return b.unary("safe_log", source)
        return b.softmax(logits, b.feature_of(logits), log=True)


LAYERS = (Choice,)
