"""Losses and errors of label sequences, one number a sequence: ctc and edit_distance (SEMANTICS 1.5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, Symbol
from returnn_lite.ir.ops.axes import ShiftFrames
from returnn_lite.ir.ops.elementwise import PrintValue
from returnn_lite.ir.ops.losses import Ctc, CtcBeamDecode, CtcGreedyDecode, EditDistance
from returnn_lite.ir.ops.masks import Compress
from returnn_lite.ir.ops.sources import ConstantArray
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.loss import Loss, LossTerms, check_axes, check_classes, required


@dataclass(frozen=True)
class Labels:
    """A sequence of labels and its time dim."""

    value: View
    time: Dim


def _times(b: LayerBuilder, output: View, target: View) -> tuple[Dim, Labels]:
    """The output's time dim, and the target with another one than that."""
    time, labels = output.type.default_time, target.type.default_time
    if time is None or labels is None:
        b.fail(f"the loss needs time dims: output {output.type}, target {target.type}")
    check_axes(b, output, target, own=(time, labels))
    if labels != time:
        return time, Labels(target, labels)
    other = b.copy_of_dim(labels)
    return time, Labels(b.relabel(target, labels, other), other)


def _label_count(b: LayerBuilder, time: Dim, error: View) -> View:
    """How many labels there are of each sequence that an error is of."""
    return b.expand(b.length(time, "float32"), *error.type.dims)


def _where(b: LayerBuilder, labels: Labels, kept: View, name: str) -> Labels:
    """The labels at which a condition holds, one behind the other."""
    fewer = Symbol(f"{b.name}:{name}", labels.time.kind, None, labels.time.over)
    return Labels(b.apply(Compress(labels.time, fewer), labels.value, kept), fewer)


def _plain(b: LayerBuilder, labels: Labels) -> View:
    """The labels as numbers."""
    return b.marked(b.as_index(b.cast(labels.value, "int32"), None), None, labels.time)


def _scores(b: LayerBuilder, output: View, logits: View | None, in_log_space: bool) -> tuple[View, Dim, int]:
    """What goes into the softmax over labels and the blank, with the dim of these and their number."""
    scores = logits if logits is not None else output
    if logits is None and not in_log_space:
        scores = b.unary("safe_log", output)
    classes = b.feature_of(scores)
    if classes.size is None:
        b.fail(f"the number of classes is not known: {classes}")
    return scores, classes, classes.size


@dataclass(frozen=True)
class CtcOptions:
    """What `ctc_opts` says. The names are those of RETURNN's two implementations."""

    ignore_longer_outputs_than_inputs: bool = False
    preprocess_collapse_repeated: bool = False
    ctc_merge_repeated: bool = True
    logits_normalize: bool = True
    grad_wrt_softmax_in: bool = True
    label_loop: bool = True
    zero_infinity: bool = False
    blank_index: int = -1


def _ctc_options(b: LayerBuilder, given: dict[str, Any]) -> CtcOptions:
    known = CtcOptions.__dataclass_fields__
    for name, value in given.items():
        if name not in known:
            b.fail(f"ctc_opts: there is no '{name}'", f"it has {', '.join(known)}", "loss_opts")
        if name == "blank_index":
            if isinstance(value, bool) or not isinstance(value, int):
                b.fail(f"ctc_opts: blank_index is a class, not {value!r}", "", "loss_opts")
        elif not isinstance(value, bool):
            b.fail(f"ctc_opts: {name} is true or false, not {value!r}", "", "loss_opts")
    if "label_loop" in given and "ctc_merge_repeated" in given:
        b.fail("ctc_opts: label_loop and ctc_merge_repeated say the same", "leave one out", "loss_opts")
    return CtcOptions(**given)


class CtcLoss(Loss, names=("ctc",)):
    """Connectionist temporal classification with the last class as blank; the error is the edit distance of the
    best path in training, else of the best labels that beam search finds."""

    target_collapse_repeated: bool = option("merges repeated labels of the target", default=False)
    auto_clip_target_len: bool = option("cuts targets to one label less than there are frames", default=False)
    output_in_log_space: bool = option("the output is log probabilities", default=False)
    beam_width: int = option("of the search for the error in evaluation; 1 takes the best path", default=100, least=1)
    ctc_opts: dict[str, Any] | None = option(
        "ignore_longer_outputs_than_inputs, zero_infinity: a target that does not fit counts 0; "
        "preprocess_collapse_repeated: as target_collapse_repeated; ctc_merge_repeated, label_loop: False if each "
        "label has one frame; logits_normalize: False takes the output as scores without a softmax; "
        "grad_wrt_softmax_in: False if the gradient is without that of a softmax, True if with it; blank_index: the "
        "class of the blank",
        default=None,
    )
    use_native: bool = option("which implementation; the result is the same", default=False)
    use_viterbi: bool = option("the best path instead of all", default=False)

    @classmethod
    def more_classes(cls, options: Mapping[str, Any]) -> int:
        return 1

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        target = required(b, target)
        scores, classes, size = _scores(b, output, logits, self.output_in_log_space)
        # Where the blank is a given class, the target's labels may be numbered with it.
        wanted = target.type.sparse
        numbered = "blank_index" in (self.ctc_opts or {}) and wanted is not None and wanted.size == size
        check_classes(b, output, target, blanks=0 if numbered else 1)
        time, labels = _times(b, scores, target)
        given = labels.time
        options = _ctc_options(b, self.ctc_opts or {})
        if not -size <= options.blank_index < size:
            b.fail(f"ctc_opts: there is no class {options.blank_index} of {size}", "", "loss_opts")
        blank = options.blank_index % size
        if self.auto_clip_target_len:
            # Of n + 1 frames one may be a blank somewhere.
            fits = b.binary("less", b.add(b.iota(labels.time), 1), b.length(time))
            labels = _where(b, labels, b.expand(fits, labels.time), "clipped")
        op = Ctc(
            time,
            classes,
            labels.time,
            blank,
            self.target_collapse_repeated or options.preprocess_collapse_repeated,
            options.ignore_longer_outputs_than_inputs or options.zero_infinity,
            options.ctc_merge_repeated and options.label_loop,
            self.use_viterbi,
        )
        value = _ctc_value(b, op, options, scores, labels.value)
        best_time = Symbol(f"{b.name}:best", time.kind, None, labels.time.over)
        decode = CtcGreedyDecode(time, classes, blank, best_time)
        if not b.mode.train and self.beam_width > 1:
            decode = CtcBeamDecode(time, classes, blank, best_time, self.beam_width)
        best = b.apply(decode, scores)
        right = _collapsed(b, labels) if self.target_collapse_repeated else labels
        error = b.apply(EditDistance(best_time, right.time), best, right.value)
        return LossTerms(value, b.cast(error, "float32"), _label_count(b, given, error))


def _collapsed(b: LayerBuilder, labels: Labels) -> Labels:
    """Without the labels that equal the one before."""
    plain = _plain(b, labels)
    before = b.apply(ShiftFrames(labels.time, labels.time, 1, -1), plain)
    return _where(b, labels, b.binary("not_equal", plain, before), "merged")


def _ctc_value(b: LayerBuilder, op: Ctc, options: CtcOptions, scores: View, target: View) -> View:
    """The loss. The kernel divides by the sum over all classes in each frame: what is added takes that back, in the
    value (if the scores shall not be normalised) and in the gradient (as far as that is asked for)."""
    value = b.apply(op, scores, target)
    if options.logits_normalize and options.grad_wrt_softmax_in:
        return value
    totals = b.reduce("sum", b.reduce("logsumexp", scores, op.classes), op.time)
    if options.logits_normalize:
        changed = b.sub(value, b.sub(totals, b.stop_gradient(totals)))
    else:
        changed = b.sub(value, totals)
        if options.grad_wrt_softmax_in:
            # The softmax of scores that are log probabilities already.
            sums = b.reduce("sum", b.reduce("sum", b.unary("exp", scores), op.classes), op.time)
            changed = b.add(changed, b.sub(sums, b.stop_gradient(sums)))
    if not op.zero_infinity:
        return changed
    fits = b.unary("is_finite", b.apply(dataclasses.replace(op, zero_infinity=False), scores, target))
    return b.select(fits, changed, 0.0)


class EditDistanceLoss(Loss, names=("edit_distance",)):
    """No loss value; the error is the Levenshtein distance to the target, counted in labels of the target."""

    debug_print: bool = option("prints the sequences", default=False)
    label_map: dict[Any, Any] | None = option(
        "for each label what it counts as, in the output and the target; null: it does not count", default=None
    )
    ctc_decode: bool = option("the output is that of ctc, decoded by beam search", default=False)
    output_in_log_space: bool = option("with ctc_decode: the output is log probabilities", default=False)

    @classmethod
    def more_classes(cls, options: Mapping[str, Any]) -> int:
        return int(bool(options.get("ctc_decode")))

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        target = required(b, target)
        if self.output_in_log_space and not self.ctc_decode:
            b.fail("output_in_log_space is for ctc_decode", "leave it out", "loss_opts")
        if self.ctc_decode and output.type.sparse is not None:
            b.fail(f"ctc_decode needs the scores of labels and blank, not {output.type}", "leave it out", "loss_opts")
        if not self.ctc_decode and output.type.sparse is None:
            b.fail(f"the edit distance needs labels, not {output.type}", "Take the argmax first, or set ctc_decode.")
        if self.label_map is None:  # which may bring labels of two kinds together
            check_classes(b, output, target, blanks=int(self.ctc_decode))
        time, right = _times(b, output, target)
        given = right.time
        found = self._decoded(b, output, logits, right) if self.ctc_decode else Labels(output, time)
        if self.label_map is not None:
            table = self._table(b, self.label_map, found, right)
            found, right = _mapped(b, found, table, "found"), _mapped(b, right, table, "right")
        if self.debug_print:
            for name, labels in (("output", found), ("target", right)):
                b.ir.require_computed(b.apply(PrintValue(f"{b.name} {name}", 10), labels.value))
        error = b.apply(EditDistance(found.time, right.time), found.value, right.value)
        return LossTerms(None, b.cast(error, "float32"), _label_count(b, given, error))

    def _decoded(self, b: LayerBuilder, output: View, logits: View | None, right: Labels) -> Labels:
        scores, classes, size = _scores(b, output, logits, self.output_in_log_space)
        time = scores.type.default_time
        assert time is not None
        best = Symbol(f"{b.name}:best", time.kind, None, right.time.over)
        return Labels(b.apply(CtcBeamDecode(time, classes, size - 1, best, 100), scores), best)

    def _table(self, b: LayerBuilder, label_map: dict[Any, Any], *sequences: Labels) -> tuple[int, ...]:
        """What each label counts as; -1 if it does not."""
        sizes = [labels.value.type.sparse.size or 0 for labels in sequences if labels.value.type.sparse is not None]
        # JSON and YAML have texts for keys.
        given = {int(x) if isinstance(x, str) and x.isdecimal() else x: into for x, into in label_map.items()}
        # The blank is no label, and there is none in what is decoded.
        wanted = range(max(sizes, default=0) - int(self.ctc_decode))
        missing = [label for label in wanted if label not in given]
        if missing:
            b.fail(f"label_map does not say what label {missing[0]} counts as", "Map it to itself.", "loss_opts")
        for label, into in given.items():
            if into is not None and (isinstance(into, bool) or not isinstance(into, int) or into < 0):
                b.fail(f"label_map: {label!r} counts as a label or null, not {into!r}", "", "loss_opts")
            if label not in wanted:
                b.fail(f"label_map: there is no label {label!r}", f"there are {len(wanted)}", "loss_opts")
        return tuple(-1 if given[label] is None else given[label] for label in wanted)


def _mapped(b: LayerBuilder, labels: Labels, table: tuple[int, ...], name: str) -> Labels:
    entries = b.new_feature(len(table), "label_map")
    mapped = b.gather(b.apply(ConstantArray(table, (entries,), "int32")), _plain(b, labels), entries)
    mapped = b.marked(mapped, None, labels.time)
    result = Labels(mapped, labels.time)
    return _where(b, result, b.binary("not_equal", mapped, -1), name) if -1 in table else result


SEQUENCE_LOSSES: tuple[type[Loss], ...] = (CtcLoss, EditDistanceLoss)
