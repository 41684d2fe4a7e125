"""Beam search: choice with its options, end and length, decide, and what a beam does to other outputs."""

from dataclasses import replace
from typing import Any

from ..case import Case, Formula, Net
from .golden import DECIDE, ENCODER, END, EQUAL, LINEAR, ONE_TOO_MANY, prob

CHOICE = {"class": "choice", "target": "classes", "beam_size": 3, "from": "output_prob", "initial_output": 0}
UNIT: Net = {
    "embed": {**LINEAR, "n_out": 3, "from": "prev:output"},
    "s": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 4, "from": ["embed", "base:mean"]},
    "scaled": {"class": "eval", "eval": "source(0) * 3.0", "from": "s"},
    "output_prob": prob("scaled"),
}
MEAN: Net = {"mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "encoder"}}


def search(
    name: str,
    choice: dict[str, Any] | None = None,
    *,
    unit: Net | None = None,
    end: Net | None = None,
    rec: dict[str, Any] | None = None,
    decide: dict[str, Any] | None = None,
    layers: tuple[str, ...] = ("output", "decision"),
    more: Net | None = None,
    **options: Any,
) -> Case:
    body = {**UNIT, "output": {**CHOICE, **(choice or {})}, **({"end": END} if end is None else end), **(unit or {})}
    loop = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 6, "unit": body, **(rec or {})}
    network = {**ENCODER, **MEAN, "output": loop, "decision": {**DECIDE["decision"], **(decide or {})}}
    network |= more or {}
    return Case(f"search.{name}", network, layers, optimize=(True, False), modes=("search",), **options)


NO_NORM = {"length_normalization": False}

EQUAL_DATA = {"data": (4, 4, 4), "frames": (4, 3, 1), "classes": (4, 3, 1)}

SCORES: Net = {"scores": {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True}}
FIRST: Net = {
    "prob_first": prob("s0"),
    "s0": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 4, "from": ["embed", "base:mean"]},
    "first": {**CHOICE, "beam_size": 2, "from": "prob_first"},
    "embed_first": {**LINEAR, "n_out": 3, "from": "first", "initial_output": 0},
    "s": {**UNIT["s"], "from": ["embed", "embed_first", "s0"]},
}
"""A choice before that of the output, whose label the second one's scores depend on."""
PREVIOUS: Net = {"s0": {**FIRST["s0"], "from": ["embed", "prev:embed_first", "base:mean"]}}
TWO_SOURCES: Net = {
    "output_prob": prob("scaled"),
    "other_prob": prob("s"),
    "embed_first": {**LINEAR, "n_out": 3, "from": "prev:first"},
    "embed_second": {**LINEAR, "n_out": 3, "from": "prev:second"},
    "embed": {"class": "copy", "from": ["embed_first", "embed_second"]},
    "first": {"class": "copy", "from": "labels/out_0", "initial_output": 0},
    "second": {"class": "copy", "from": "labels/out_1", "initial_output": 0},
    "labels": {
        "class": "choice",
        "from": ["output_prob", "other_prob"],
        "target": ["classes", "classes"],
        "beam_size": 4,
        "source_beam_sizes": [3, 2],
    },
    "output": {"class": "copy", "from": "first"},
    "second_out": {"class": "copy", "from": "second", "is_output_layer": True},
}


def two_choices(
    name: str,
    first: int,
    second: int,
    end: str = "output",
    more: Net | None = None,
    of_first: dict[str, Any] | None = None,
    **options: Any,
) -> Case:
    """Beams of two sizes in one step."""
    unit = {**FIRST, **(more or {}), "first": {**FIRST["first"], "beam_size": first, **options}}
    unit["first"] |= {"is_output_layer": True, **(of_first or {})}
    unit["end"] = {**END, "from": end}
    layers = ("output", "decision", "output/first")
    if not options.get("length_normalization", True):  # RETURNN divides by one more where no hypothesis ends
        layers = (*layers, "scores")
    return search(name, {"beam_size": second, **options}, unit=unit, layers=layers, more=SCORES)


SHARP: Net = {"output_prob": prob("sharp"), "sharp": {"class": "eval", "eval": "source(0) * 1e4", "from": "scaled"}}
"""All probability on one class, so that draws are no question of luck."""


def drawn(name: str, scheduled_sampling: Any, unit: Net) -> Case:
    """Labels drawn from the model while the loop has the target's length."""
    case = search(name, {"scheduled_sampling": scheduled_sampling}, unit=unit, layers=("output",))
    return replace(case, modes=("train", "eval"))


def risk(name: str, choice: dict[str, Any] | None = None, rec: dict[str, Any] | None = None, **opts: Any) -> Case:
    """Minimum-risk training: the expected number of errors of the hypotheses, by their scores."""
    opts = {"loss": {"class": "edit_distance"}, "loss_kind": "error", **opts}
    choice = {"search": True, **NO_NORM, **(choice or {})}
    more = {
        "risk": {"class": "copy", "from": "output", "target": "classes", "loss": "expected_loss", "loss_opts": opts}
    }
    unit = {"output_prob": {**prob("scaled"), "loss": None}}
    case = search(name, choice, unit=unit, rec=rec, more=more, layers=("output",), lengths=EQUAL)
    network = {key: layer for key, layer in case.network.items() if key != "decision"}
    return replace(case, network=network, modes=("train",))


WEIGHTED = "scores_in * 0.7 + scores_base * 0.9 - 0.1 * tf.cast(t, tf.float32)"
MOST: Net = {
    "lengths": {"class": "length", "from": "data:frames"},
    "most": {"class": "reduce", "mode": "max", "axis": "B", "from": "lengths"},
}
AT_LEAST = "scores_in * 2.0 + tf.maximum(scores_base, -3.0)"
AVERAGE = "scores_in + scores_base + 0.3 * tf.reduce_mean(scores_base, axis=1, keepdims=True)"
ENDED = "scores_in + tf.where(end_flags[:, :, None], scores_base * 0.8, scores_base)"
JOINED = """(lambda same, base: scores_in + tf.where(
    base >= tf.reduce_max(tf.where(same, base[:, None], -1e30), -1),
    tf.reduce_logsumexp(tf.where(same, base[:, None], -1e30), -1),
    -float("inf"),
)[:, :, None])(
    *(lambda label: (tf.equal(label[:, :, None], label[:, None]), scores_base[:, :, 0]))(
        tf.reshape(layer.explicit_search_sources[0].output.placeholder, (batch_dim, -1))[:, :base_beam_in]
    )
)"""
"""Of the hypotheses with one label before, the best has the probability of all."""


REVIVED = "where there are more places than hypotheses, a function makes some of none in RETURNN; here none"
FINAL = (
    "RETURNN goes on combining the scores of a sequence whose hypotheses have all ended while others of the batch have "
    "not; here they are those that it has alone"
)


def combined(text: str, name: str, choice: dict[str, Any] | None = None, *forms: bool, differs: str = "") -> list[Case]:
    """Scores combined by an expression and by a function, normalised by length and not."""
    return [
        search(
            f"custom_score_combine.{name}.{'function' if as_function else 'expression'}{'' if norm else '.sums'}",
            {"custom_score_combine": Formula(text, as_function), "length_normalization": norm, **(choice or {})},
            layers=("output", "decision") if norm else ("output", "decision", "scores"),
            more=SCORES,
            differs=differs or ("" if norm else FINAL),
        )
        for as_function in forms or (False, True)
        for norm in (True, False)
    ]


CASES = [
    *combined(WEIGHTED, "weighted"),
    *combined(AT_LEAST, "at_least"),
    *combined(WEIGHTED, "beam_8", {"beam_size": 8}),
    *combined(AT_LEAST, "revived", {"beam_size": 8}, differs=REVIVED),
    *combined(AVERAGE, "average", {}, True),
    *combined(ENDED, "ended", {}, True),
    *combined(JOINED, "joined", {"beam_size": 6, "explicit_search_sources": ["prev:output"]}, True),
    *combined(WEIGHTED, "keep_beams", {"keep_beams": True}),
    risk("risk.custom_score_combine", {"custom_score_combine": Formula(WEIGHTED)}, norm_scores=True),
    risk("risk.custom_score_combine.function", {"custom_score_combine": Formula(WEIGHTED, True)}, norm_scores=True),
    risk("risk", norm_scores=True),
    risk("risk.no_gradient_of_norm", norm_scores=True, norm_scores_stop_gradient=True),
    risk("risk.gradient_of_norm", norm_scores=True, norm_scores_stop_gradient=False),
    risk("risk.not_normalised", norm_scores=False),
    risk("risk.sum", norm_scores=True, divide_beam_size=False),
    risk("risk.less_average", norm_scores=True, subtract_average_loss=True),
    risk("risk.average_in_gradient", norm_scores=True, loss_correction_grad_only=True),
    risk(
        "risk.average_in_gradient.not_normalised",
        norm_scores=False,
        loss_correction_grad_only=True,
        use_normalized_loss=True,
    ),
    risk("risk.average", norm_scores=True, subtract_average_loss=False),
    risk("risk.cheating", {"cheating": "exclusive"}, norm_scores=True),
    risk("risk.beam_8", {"beam_size": 8}),
    risk("risk.per_label", {"length_normalization": True}, rec={"include_eos": True}),
    drawn("drawn", True, SHARP),
    drawn("drawn.never_gold", {"gold_mixin_prob": 0.0}, SHARP),
    drawn("drawn.always_gold", {"gold_mixin_prob": 1.0}, {}),
    *[two_choices(f"two_choices.{a}_{b}", a, b) for a, b in ((3, 3), (2, 4), (4, 2), (1, 3), (3, 1))],
    *[two_choices(f"two_choices.{a}_{b}.sums", a, b, length_normalization=False) for a, b in ((3, 3), (2, 4), (4, 2))],
    two_choices("two_choices.end_between", 2, 4, end="first", length_normalization=False),
    search(
        "two_sources",
        end={"end": {**END, "from": "output"}},
        unit=TWO_SOURCES,
        layers=("output", "decision", "output/second_out"),
    ),
    search(
        "two_sources.sums",
        end={"end": {**END, "from": "output"}},
        unit={**TWO_SOURCES, "labels": {**TWO_SOURCES["labels"], "length_normalization": False}},
        layers=("output", "decision", "output/second_out", "scores"),
        more=SCORES,
    ),
    two_choices("two_choices.previous", 2, 3, more=PREVIOUS),
    two_choices("two_choices.ordered", 2, 3, more=PREVIOUS, of_first={"explicit_search_sources": ["prev:output"]}),
    two_choices("two_choices.gold", 2, 3, length_normalization=False, of_first={"search": False}),
    two_choices(
        "two_choices.gold.scored",
        2,
        3,
        length_normalization=False,
        of_first={"search": False, "add_to_beam_scores": True},
    ),
    *[search(f"beam_{size}", {"beam_size": size}) for size in (1, 2, 3, 5, 8, 12)],
    *[search(f"beam_{size}.not_normalised", {"beam_size": size, **NO_NORM}) for size in (1, 3, 5, 8)],
    search("length_normalization_exponent", {"length_normalization_exponent": 0.5}),
    search("prob_scale", {"prob_scale": 0.5}),
    search("base_beam_score_scale", {"base_beam_score_scale": 0.5, **NO_NORM}),
    search("keep_beams", {"keep_beams": True}),
    search("add_to_beam_scores_off", {"add_to_beam_scores": False}),
    search("cheating", {"cheating": True}, lengths=EQUAL),
    *[search(f"cheating.beam_{size}", {"cheating": True, "beam_size": size}, lengths=EQUAL) for size in (1, 2, 8)],
    search("cheating.not_normalised", {"cheating": True, **NO_NORM}, lengths=EQUAL),
    search("cheating.unequal_lengths", {"cheating": True}, differs=ONE_TOO_MANY),
    search("cheating_exclusive", {"cheating": "exclusive"}, lengths=EQUAL),
    search(
        "input_log_prob",
        {"input_type": "log_prob"},
        unit={"output_prob": {**LINEAR, "activation": "log_softmax", "n_out": 5, "from": "scaled"}},
    ),
    search("input_logits", {"input_type": "logits"}, unit={"output_prob": {**LINEAR, "n_out": 5, "from": "scaled"}}),
    search("include_eos", rec={"include_eos": True}),
    search("include_eos.not_normalised", NO_NORM, rec={"include_eos": True}),
    search("max_seq_len_2", rec={"max_seq_len": 2}),
    search(
        "max_seq_len_expression",
        rec={"max_seq_len": "max_len_from('base:encoder')"},
        differs="the limit is that of each sequence, in RETURNN that of the longest",
    ),
    search(
        "max_seq_len_expression.equal_lengths", rec={"max_seq_len": "max_len_from('base:encoder')"}, lengths=EQUAL_DATA
    ),
    search("max_seq_len_expression_scaled", rec={"max_seq_len": "max_len_from('base:encoder') * 2"}),
    search("max_seq_len_via", rec={"max_seq_len": None, "max_seq_len_via": "most"}, more=MOST),
    search("end_at_2", unit={"end": {**END, "value": 2}}),
    search("end_at_2.not_normalised", NO_NORM, unit={"end": {**END, "value": 2}}),
    search("never_ends", unit={"end": {**END, "value": -1}}),
    search("decide_normalised", NO_NORM, decide={"length_normalization": True}),
    search(
        "output_layer", unit={"s": {**UNIT["s"], "is_output_layer": True}}, layers=("output", "decision", "output/s")
    ),
    search("size_target", rec={"size_target": "classes"}, differs=ONE_TOO_MANY),
    search("size_target.equal_lengths", rec={"size_target": "classes"}, lengths=EQUAL),
    search("known_length", end={}, rec={"from": "data:frames"}, differs=ONE_TOO_MANY),
    search("known_length.equal_lengths", end={}, rec={"from": "data:frames"}, lengths=EQUAL),
    search("known_length.not_normalised", NO_NORM, end={}, rec={"from": "data:frames"}, lengths=EQUAL),
    search("known_length.beam_8", {"beam_size": 8}, end={}, rec={"from": "data:frames"}, lengths=EQUAL),
    search("end_with_source", rec={"from": "data:frames"}),
    search(
        "long_equal_scores",
        {"beam_size": 4},
        unit={"scaled": {"class": "eval", "eval": "source(0) * 0.0", "from": "s"}},
    ),
    search(
        "prev_prev",
        unit={
            "embed2": {**LINEAR, "n_out": 3, "from": "prev:embed"},
            "s": {**UNIT["s"], "from": ["embed", "embed2", "base:mean"]},
            "embed": {**UNIT["embed"], "initial_output": 0},
        },
    ),
    search(
        "cumulated",
        unit={"acc": {"class": "cumsum", "from": "embed"}, "s": {**UNIT["s"], "from": ["acc", "base:mean"]}},
    ),
    search("lstm_unit", unit={"s": {"class": "rec", "unit": "lstm", "n_out": 4, "from": ["embed", "base:mean"]}}),
    search(
        "beam_scores",
        layers=("output", "scores"),
        more=SCORES,
        differs="of hypotheses that max_seq_len cuts off RETURNN counts one step more, in the mean of all of the batch",
    ),
    search("beam_scores.not_normalised", NO_NORM, layers=("output", "scores"), more=SCORES),
    search("beam_scores.include_eos", rec={"include_eos": True}, layers=("output", "scores"), more=SCORES),
    search(
        "beam_scores.ended",
        unit={
            "end_0": END,
            "end_4": {**END, "value": 4},
            "end": {"class": "combine", "kind": "logical_or", "from": ["end_0", "end_4"]},
        },
        rec={"max_seq_len": 30},
        layers=("output", "scores"),
        more=SCORES,
    ),
    search(
        "src_beams",
        unit={
            "back": {"class": "choice_get_src_beams", "from": "output", "is_output_layer": True},
            "score": {"class": "choice_get_beam_scores", "from": "output", "is_output_layer": True},
        },
        rec={"include_eos": True},
        layers=("output", "output/back", "output/score", "order", "kept", "split"),
        more={
            **SCORES,
            "order": {"class": "choice_get_src_beams", "from": "output", "is_output_layer": True},
            "kept": {"class": "decide_keep_beam", "from": "scores", "is_output_layer": True},
            "split": {"class": "split_batch_beam", "from": "scores", "is_output_layer": True},
        },
    ),
    search("gru", unit={"s": {**UNIT["s"], "unit": "gru"}}),
]
