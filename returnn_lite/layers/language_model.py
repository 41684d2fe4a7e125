"""Language models that are no networks."""

from __future__ import annotations

from returnn_lite.config.label_file import LabelFileError, read_labels
from returnn_lite.config.options import AxisSpec, Unspecified, UnspecifiedType, option
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.elementwise import PrintValue
from returnn_lite.ir.ops.language_model import LabelTexts, NgramModel, NgramScoreStep
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.loop_axis import axis_or_loop

HIGHEST_ORDER = 10
"""Of the n-gram models that can be used; KenLM itself is built for 6 unless one says otherwise."""


class KenLm(Layer, names=("kenlm",)):
    """The log probability of each label behind those before it, by an n-gram model of KenLM (natural logarithm).

    The probability of a sequence is the sum; its end is scored only if there is a label ``</s>``. Needs the package
    kenlm when the network runs.
    """

    source_count = (1, 1)

    lm_file: str = option("the model, in any format that KenLM reads (ARPA, binary)")
    vocab_file: str | None = option("the text of the source's labels, one a line or a Python dict", default=None)
    vocab_unknown_label: str | None = option("the label of unknown text; the vocabulary must have it", default="UNK")
    bpe_merge_symbol: str | None = option(
        "ends labels that the next one continues ('@@'); such a word is scored as it is, and again when it goes on",
        default=None,
    )
    axis: AxisSpec | UnspecifiedType = option(
        "the axis of the labels; default the time axis, or the loop", default=Unspecified
    )
    input_step_offset: int = option("the first step whose label counts", default=0, least=0)
    dense_output: bool = option("whether to score all labels that can follow, not the source's", default=False)
    debug: bool = option("prints the scores", default=False)

    def build(self, b: LayerBuilder, x: View) -> View:
        classes = self._classes(b, x)
        model = NgramModel(self.lm_file, self._labels(b, classes), self._merge_symbol(b))
        over = axis_or_loop(b, "T" if self.axis is Unspecified else self.axis, x)
        inputs = (x, *self._counts(b, over if over in x.type else None))
        state = b.new_dim("state", HIGHEST_ORDER)
        dense = classes if self.dense_output else None
        start = b.constant_outside(0, "int32", (state,))
        scores, _ = b.recurrence(NgramScoreStep(model, state, dense), x, start, *inputs[1:], over=over)
        if self.debug:
            scores = b.apply(PrintValue(f"{b.name} scores", 99), scores)
            b.ir.require_computed(scores)
        return scores if dense is None else b.as_features(scores, dense)

    def _classes(self, b: LayerBuilder, x: View) -> Dim:
        if x.type.sparse is None:
            b.fail(f"'{x.name}' is {x.type}, but labels are scored", "give class indices", "from")
        return x.type.sparse

    def _labels(self, b: LayerBuilder, classes: Dim) -> LabelTexts:
        if self.vocab_file is None:
            b.fail("the texts of the labels are not known", "give vocab_file", "vocab_file")
        try:
            labels = read_labels(self.vocab_file)
        except LabelFileError as error:
            b.fail(str(error), "", "vocab_file")
        if len(labels) != classes.size:
            b.fail(f"'{self.vocab_file}' has {len(labels)} labels, but the source has {classes}", "", "vocab_file")
        unknown = self.vocab_unknown_label
        if unknown is not None and unknown not in labels:
            hint = "name one that it has, or null"
            b.fail(f"'{self.vocab_file}' has no label {unknown!r}", hint, "vocab_unknown_label")
        return LabelTexts(labels)

    def _merge_symbol(self, b: LayerBuilder) -> str:
        symbol = self.bpe_merge_symbol or ""
        if " " in symbol:
            b.fail(f"{symbol!r} has a space, but words are cut at spaces", "", "bpe_merge_symbol")
        return symbol

    def _counts(self, b: LayerBuilder, time: Dim | None) -> tuple[View, ...]:
        """Whether the step's label counts, if some do not."""
        if not self.input_step_offset:
            return ()
        step = b.iota(time) if time is not None else b.apply(StepIndex())
        return (b.binary("greater_equal", step, self.input_step_offset),)


LAYERS = (KenLm,)
