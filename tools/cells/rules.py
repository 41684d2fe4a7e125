"""Where we differ from a recorded system on purpose: what is then not compared, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.cells.case import Case


@dataclass(frozen=True)
class Rule:
    """A documented difference. All else of the cases it is for has to be equal."""

    reason: str
    parts: frozenset[str]
    """Of `Deviations`: outputs, states, gradients."""
    is_for: Callable[[Case], bool]


def attends_beyond_the_end(case: Case) -> bool:
    changes = case.constructor.get("attention_type") in ("Recurrent", "SoftCoverage")
    last = {"w/context_last", "w/coverage_last"}.intersection(case.arrays)
    return changes and (bool(last) or "t < length" not in case.record.get("objective", ""))


def clips_in_a_block(case: Case) -> bool:
    blocks = ("LSTMBlockCell", "LSTMBlockFusedCell", "CudnnCompatibleLSTMCell")
    return any(one["class"] in blocks and (one.get("cell_clip") or 0.0) > 0.0 for one in cells_of(case.constructor))


def skips(case: Case) -> bool:
    return any(one.get("skip_connection") for one in cells_of(case.constructor))


def has_residual_layers(case: Case) -> bool:
    return case.system == "caffe2" and bool(case.constructor.get("residual_output_layers"))


def joins_blocks(case: Case) -> bool:
    grids = [one for one in cells_of(case.constructor) if one["class"] == "GridLSTMCell"]
    return any(not one.get("state_is_tuple", True) and len(one["num_frequency_blocks"]) > 1 for one in grids)


RULES = (
    Rule(
        "the objective has contexts that Caffe2 goes on computing beyond a sequence's length, from a held h",
        frozenset({"gradients"}),
        attends_beyond_the_end,
    ),
    Rule(
        "Caffe2's gradients of a stack with residual layers are wrong (finite differences disagree), and not recorded",
        frozenset({"gradients"}),
        has_residual_layers,
    ),
    Rule(
        "the gradient of the block LSTM goes through the clip as if there were none; ours is that of the clip",
        frozenset({"gradients"}),
        clips_in_a_block,
    ),
    Rule(
        "TensorFlow's skip_connection appends the source to the state, too, and so has no second step; our state is h",
        frozenset({"states"}),
        skips,
    ),
    Rule(
        "all blocks of a grid LSTM whose state is not a tuple read the state of the first; ours read their own",
        frozenset({"outputs", "states", "gradients"}),
        joins_blocks,
    ),
)


def rule_of(case: Case) -> Rule | None:
    """The rule for a case, if there is one."""
    return next((rule for rule in RULES if rule.is_for(case)), None)


def cells_of(value: object) -> Iterator[Mapping[str, Any]]:
    """All cells that a constructor names, those inside of others, too."""
    if isinstance(value, Mapping):
        if "class" in value:
            yield value
        for inside in value.values():
            yield from cells_of(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from cells_of(inside)
