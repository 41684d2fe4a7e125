"""Meanings of the primitives of losses and error measures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from returnn_lite.ir import Op
from returnn_lite.ir.ops.losses import (
    Ctc,
    CtcBeamDecode,
    CtcGreedyDecode,
    EditDistance,
    FrameCount,
    OptimalCompletions,
    SigmoidCrossEntropy,
    SparseCrossEntropy,
)
from tests.reference.edit_distances import next_row
from tests.reference.named import Array, Lengths, Named, real, union
from tests.reference.rule import Rule
from tests.reference.sequences import per_sequence


def log_softmax(x: Array) -> Array:
    """x - log(sum(exp(x))) over the last axis."""
    return np.asarray(x - np.logaddexp.reduce(x, -1)[..., None])


def sparse_cross_entropy(op: SparseCrossEntropy, lengths: Lengths, logits: Named, target: Named) -> Named:
    """-log p of the target."""
    dims = tuple(dim for dim in union([logits, target]) if dim != op.classes)
    log_p = log_softmax(logits.full((*dims, op.classes), lengths))
    labels = np.clip(target.full(dims, lengths), 0, log_p.shape[-1] - 1)
    return Named(-np.take_along_axis(log_p, labels[..., None].astype(int), -1)[..., 0], dims)


def sigmoid_cross_entropy(op: SigmoidCrossEntropy, lengths: Lengths, logits: Named, target: Named) -> Named:
    """-t log s(x) - (1 - t) log s(-x), the first term weighted."""
    dims = union([logits, target])
    x, t = logits.over(dims), target.over(dims)
    return Named(op.positive_weight * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x), dims)


def ctc(op: Ctc, lengths: Lengths, logits: Named, target: Named) -> Named:
    """The forward algorithm (Graves et al. 2006, section 4.1), in logarithms."""

    def of_one(frames: Array, labels: Array) -> float:
        if op.collapse_repeated:
            labels = np.array([x for i, x in enumerate(labels) if i == 0 or x != labels[i - 1]], int)
        loss = -_log_probability(op, log_softmax(frames), labels)
        return 0.0 if op.zero_infinity and np.isinf(loss) else loss

    return per_sequence(lengths, [(logits, (op.time, op.classes)), (target, (op.labels,))], [()], of_one)[0]


def _log_probability(op: Ctc, log_p: Array, labels: Array) -> float:
    blank = op.blank
    combined = np.maximum.reduce if op.best_path else np.logaddexp.reduce
    states = [blank]
    for label in labels:
        states += [int(label), blank]
    # Before the first frame the paths stand in front of the first state.
    scores = np.array([0.0] + [-np.inf] * len(states))
    for t, frame in enumerate(log_p):
        new = np.full(len(states) + 1, -np.inf)
        for s, state in enumerate(states, 1):
            sources = [scores[s], scores[s - 1]] if op.merge_repeated or state == blank else [scores[s - 1]]
            if s > 2 and state != blank and (state != states[s - 3] or not op.merge_repeated):
                sources.append(scores[s - 2])
            if t == 0 and s == 2:
                sources.append(scores[0])
            new[s] = combined(sources) + frame[state]
        scores = new
    if not len(log_p):
        return 0.0 if not len(labels) else -np.inf
    return float(combined(scores[-2:]))


def ctc_greedy_decode(op: CtcGreedyDecode, lengths: Lengths, logits: Named) -> Named:
    """The best classes, repetitions merged, then without blanks."""

    def of_one(frames: Array) -> Array:
        best = [int(np.argmax(frame)) for frame in frames]
        merged = [x for i, x in enumerate(best) if i == 0 or x != best[i - 1]]
        return np.array([x for x in merged if x != op.blank], "int32")

    return per_sequence(lengths, [(logits, (op.time, op.classes))], [(op.out,)], of_one)[0]


def ctc_beam_decode(op: CtcBeamDecode, lengths: Lengths, logits: Named) -> Named:
    """Prefix search (Graves 2012, section 7.5): of each prefix the probability that it ends in a blank, and not."""

    def of_one(frames: Array) -> Array:
        beam: dict[tuple[int, ...], Array] = {(): np.array([0.0, -np.inf])}
        for frame in frames.astype("float64"):
            log_p = frame - np.logaddexp.reduce(frame)
            new: dict[tuple[int, ...], Array] = {}
            for prefix, ends in beam.items():
                for label, p in enumerate(log_p):
                    if label == op.blank:
                        _add(new, prefix, 0, np.logaddexp(*ends) + p)
                        continue
                    same = bool(prefix) and label == prefix[-1]
                    _add(new, (*prefix, label), 1, (ends[0] if same else np.logaddexp(*ends)) + p)
                    if same:
                        _add(new, prefix, 1, ends[1] + p)
            best = sorted(new, key=lambda prefix: -np.logaddexp(*new[prefix]))
            beam = {prefix: new[prefix] for prefix in best[: op.width]}
        return np.array(max(beam, key=lambda prefix: np.logaddexp(*beam[prefix])), "int32")

    return per_sequence(lengths, [(logits, (op.time, op.classes))], [(op.out,)], of_one)[0]


def _add(scores: dict[tuple[int, ...], Array], prefix: tuple[int, ...], end: int, value: float) -> None:
    ends = scores.setdefault(prefix, np.array([-np.inf, -np.inf]))
    ends[end] = np.logaddexp(ends[end], value)


def edit_distance(op: EditDistance, lengths: Lengths, a: Named, b: Named) -> Named:
    """Levenshtein (1966), by the table."""
    return per_sequence(lengths, [(a, (op.a_time,)), (b, (op.b_time,))], [()], _distance)[0]


def _distance(a: Array, b: Array) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + int(x != y))
    return row[-1]


def optimal_completions(op: OptimalCompletions, lengths: Lengths, row: Named, reference: Named) -> tuple[Named, ...]:
    """The least entry of the row after each class."""
    classes = range(op.classes.size or 0)

    def of_one(before: Array, right: Array) -> Array:
        return np.array([next_row(op.blank, np.array(label), right, before).min() for label in classes])

    return per_sequence(lengths, [(row, (op.row,)), (reference, (op.labels,))], [(op.classes,)], of_one)


def frame_count(op: FrameCount, lengths: Lengths, x: Named) -> Named:
    """How many entries are real."""
    return Named(np.array(float(real(x, lengths).array.sum())), ())


RULES: Mapping[type[Op], Rule] = {
    SparseCrossEntropy: sparse_cross_entropy,
    SigmoidCrossEntropy: sigmoid_cross_entropy,
    Ctc: ctc,
    CtcGreedyDecode: ctc_greedy_decode,
    CtcBeamDecode: ctc_beam_decode,
    EditDistance: edit_distance,
    FrameCount: frame_count,
    OptimalCompletions: optimal_completions,
}
