"""What comes after search: decide, and what reads the scores of hypotheses (SEMANTICS 3.9)."""

from __future__ import annotations

from returnn_lite.config.options import DimSpec, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.search import Choose, Decide, SplitBeam
from returnn_lite.ir.reachability import reachable
from returnn_lite.ir.views import View, view_of
from returnn_lite.layers.align import last_static
from returnn_lite.layers.base import Hypotheses, Layer, LayerBuilder
from returnn_lite.layers.constants import as_dim


class DecideLayer(Layer, names=("decide",)):
    """The best hypothesis of the source; the source itself where there is no search."""

    keeps_type_of = "from"
    source_count = (1, 1)

    length_normalization: bool = option(
        "scores are divided by the length; a hypothesis without labels is the worst", default=False
    )

    def build(self, b: LayerBuilder, x: View) -> View:
        found = b.surroundings.search.left_in(x)
        if found is None:
            return x
        return decided(b, x, found, self.length_normalization)


def decided(b: LayerBuilder, x: View, found: Hypotheses, length_normalization: bool) -> View:
    """x of the best hypothesis; dims whose lengths differ from hypothesis to hypothesis become those of the best."""
    labels = found.labels(x.type.time) if length_normalization else None
    return b.apply(Decide(found.beam, _of_others(b, found), labels), x, found.scores)


def _of_others(b: LayerBuilder, found: Hypotheses, *more: Dim) -> tuple[tuple[Dim, Dim], ...]:
    """Each dim whose length differs from hypothesis to hypothesis with a new one, whose lengths vary over `more` in
    place of the beam."""
    pairs = []
    for number, dim in enumerate(found.varying, 1):
        over = (*(other for other in dim.over if other is not found.beam), *more)
        pairs.append((dim, b.new_dim(f"time{number}" if number > 1 else "time", over=over)))
    return tuple(pairs)


def of_the_best(b: LayerBuilder, x: View, time: Dim | None = None) -> tuple[View, Dim | None]:
    """x, with its time, of the best hypothesis, if it is computed from a search; else both themselves."""
    found = b.surroundings.search.left_in(x)
    if found is None:
        return x, time
    times = _of_others(b, found)
    return b.apply(Decide(found.beam, times), x, found.scores), dict(times).get(time, time) if time else None


class DecideKeepBeam(Layer, names=("decide_keep_beam",)):
    """The source of all hypotheses. In RETURNN no later choice reorders it, so behind a loop there is no difference."""

    keeps_type_of = "from"
    source_count = (1, 1)

    def build(self, b: LayerBuilder, x: View) -> View:
        if b.loop is not None and b.mode.search:
            b.fail(
                "what a loop computes follows its hypotheses: there is no order of the beam that they would keep",
                "put it behind the loop, or leave it out",
                "class",
            )
        return x


class ChoiceGetBeamScores(Layer, names=("choice_get_beam_scores",)):
    """The scores of the hypotheses after search; in a loop, after the last choice of the step that the source needs."""

    source_count = (1, 1)

    def build(self, b: LayerBuilder, x: View) -> View:
        if b.loop is not None:
            return choice_before(b, x)[2]
        return searched(b, x).scores


class ChoiceGetSrcBeams(Layer, names=("choice_get_src_beams",)):
    """Which of the hypotheses before each one continues: in a loop since the last choice of the step that the source
    needs, after search since the last choice of the last step."""

    source_count = (1, 1)

    def build(self, b: LayerBuilder, x: View) -> View:
        pointers = choice_before(b, x)[1] if b.loop is not None else searched(b, x).pointers
        assert pointers is not None, "a search has pointers"
        return b.with_feature(b.as_index(pointers, None), None)


class SplitBatchBeam(Layer, names=("split_batch_beam",)):
    """The hypotheses of the source along a dim of their own, which has nothing to do with search any more."""

    source_count = (1, 1)

    beam_dim: DimSpec | None = option("the new dim, a Dim of the beam's size", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        if b.loop is not None:
            b.fail("the hypotheses of a loop are known when it has ended", "put it behind the loop", "class")
        found = searched(b, x)
        out = b.new_dim("beam", found.beam.size) if self.beam_dim is None else as_dim(b, self.beam_dim, "beam")
        if out.size != found.beam.size:
            b.fail(f"beam_dim is {out}, but there are {found.beam.size} hypotheses", "", "beam_dim")
        y = b.apply(SplitBeam(found.beam, out, _of_others(b, found, out)), x)
        return y if y.type.feature is not None else b.with_feature(y, last_static(y.type))


def searched(b: LayerBuilder, x: View) -> Hypotheses:
    """What search left of the loop that a value comes from."""
    found = b.surroundings.search.left_in(x)
    if found is None:
        b.fail(f"'{b.source_names[0]}' does not come from search", "Use it in search only (only_on_search: true).")
    return found


def choice_before(b: LayerBuilder, x: View) -> tuple[View, ...]:
    """Label, back-pointer and score of the last choice of this step that a value is computed from."""
    before = set(map(b.ir.producer, reachable([x.of], b.ir.operands_of)))
    choices = [node for node in (b.ir.body.nodes if b.ir.body is not None else []) if isinstance(node.op, Choose)]
    # Choices of a step are made one after the other.
    last = next((node for node in reversed(choices) if node in before), None)
    if last is None:
        b.fail(
            f"'{b.source_names[0]}' depends on no choice of this step that searches",
            "Use it in search only (only_on_search: true), and name a choice.",
            "from",
        )
    return tuple(map(view_of, last.outputs))


LAYERS = (DecideLayer, DecideKeepBeam, ChoiceGetBeamScores, ChoiceGetSrcBeams, SplitBatchBeam)
