"""Beam search at its edges: ties, hypotheses that have ended, loops without a step, and how long a search may be."""

from ..case import Case, Net
from .golden import ATTENTION, END, EQUAL, ONE_TOO_MANY, decoder
from .search import EQUAL_DATA, NO_NORM, SCORES, search

FLAT: Net = {"scaled": {"class": "eval", "eval": "source(0) * 0.0", "from": "s"}}
# All labels have the same probability, whatever the parameters.
EVEN: Net = {**FLAT, "output_prob": {"class": "softmax", "n_out": 5, "with_bias": False, "from": "scaled"}}
SUMS = {"layers": ("output", "decision", "scores"), "more": SCORES}
NO_STEP: Net = {"end": {"class": "compare", "kind": "greater_equal", "from": "output", "value": 0}}
EMPTY = {"data": (6, 4, 5), "frames": (4, 0, 2), "classes": (4, 0, 2)}
ALL_EMPTY = {"data": (6, 4, 5), "frames": (0, 0, 0), "classes": (0, 0, 0)}
LIMITS = {
    "sum": "max_len_from('base:encoder') + 2",
    "difference": "max_len_from('base:encoder') - 1",
    "quotient": "max_len_from('base:encoder') // 2 + 1",
    "least": "tf.minimum(max_len_from('base:encoder'), 3)",
    "most": "tf.maximum(max_len_from('base:encoder'), 5)",
}


def ties(name: str, choice: dict, unit: Net | None = None, **options) -> Case:
    """All labels have one score, so that their order decides."""
    return search(f"ties.{name}", {**NO_NORM, **choice}, unit={**EVEN, **(unit or {})}, **SUMS, **options)


def at(value: int) -> Net:
    return {"end": {**END, "value": value}}


def empty(name: str, lengths: dict, **options) -> Case:
    """A decoder with an attention that is trained on sequences without labels."""
    return decoder(f"golden.empty.{name}", ATTENTION, modes=("train", "eval"), lengths=lengths, **options)


CASES = [
    *[ties(f"beam_{size}", {"beam_size": size}) for size in (2, 4, 8)],
    *[ties(f"end_at_{value}", {"beam_size": 4}, at(value)) for value in (1, 4)],
    ties("keep_beams", {"beam_size": 3, "keep_beams": True}),
    ties("normalised", {"beam_size": 4, "length_normalization": True}, at(1), rec={"include_eos": True}),
    *[
        search(f"end_at_{value}.beam_8{suffix}", {"beam_size": 8, **choice}, unit=at(value), **SUMS)
        for value in (1, 4)
        for suffix, choice in ((".sums", NO_NORM),)
    ],
    search("end_at_2.include_eos.sums", NO_NORM, unit=at(2), rec={"include_eos": True}, **SUMS),
    search("never_ends.include_eos", unit=at(-1), rec={"include_eos": True}),
    search("keep_beams.sums", {"keep_beams": True, **NO_NORM}, **SUMS),
    search("keep_beams.end_at_2", {"keep_beams": True, "beam_size": 5}, unit=at(2)),
    search("length_normalization_exponent_2", {"length_normalization_exponent": 2.0}),
    search(
        "length_normalization_exponent.end_at_2", {"length_normalization_exponent": 0.5, "beam_size": 5}, unit=at(2)
    ),
    *[
        search(f"size_target.{name}.equal_lengths", choice, rec={"size_target": "classes"}, lengths=EQUAL)
        for name, choice in (("sums", NO_NORM), ("beam_8", {"beam_size": 8}), ("keep_beams", {"keep_beams": True}))
    ],
    *[search(f"max_seq_len_{name}", rec={"max_seq_len": text}, lengths=EQUAL_DATA) for name, text in LIMITS.items()],
    search(
        "length_of_hypotheses",
        layers=("output", "length", "longer"),
        more={
            "length": {"class": "length", "from": "output", "is_output_layer": True},
            "postfix": {"class": "postfix_in_time", "from": "output", "postfix": 1},
            "longer": {"class": "length", "from": "postfix", "is_output_layer": True},
        },
    ),
    search("no_step.max_seq_len_0", rec={"max_seq_len": 0}),
    search("no_step.ends_at_once", end=NO_STEP),
    search("no_step.ends_at_once.include_eos", end=NO_STEP, rec={"include_eos": True}),
    search("no_step.empty_frames", end={}, rec={"from": "data:frames"}, lengths=ALL_EMPTY),
    search("no_step.some_empty_frames", end={}, rec={"from": "data:frames"}, lengths=EMPTY, differs=ONE_TOO_MANY),
    empty("some", EMPTY),
    empty("all", ALL_EMPTY),
]
