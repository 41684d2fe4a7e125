"""Why a layer stays in its loop, and what to change so that it could leave, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from returnn_lite.explain.cycles import BodyDependencies, LayerRead

KNOWN_LENGTH = "the loop's length were known before it starts"
NEEDS_STEP_BEFORE = "needs the step before, in a way that has no form for whole sequences"
MOST = 12
"""The most names of a way that stand in parentheses."""
LONGEST = 3
"""The most names of a way that stand in the sentence; the rest of a longer one stands in parentheses."""


@dataclass(frozen=True)
class Reason:
    """`why` and `to_leave` in words; `way` are the layers of the cycle, or of the way to what keeps the layer;
    `cut` the reads without which it could leave."""

    why: str
    to_leave: str
    way: tuple[str, ...] = ()
    cut: tuple[LayerRead, ...] = ()


SHARED = Reason(
    "its steps share a loop with those of layers that can't leave",
    "it leaves when what it reads and what reads it in this loop does",
)


def reason_to_stay(body: BodyDependencies, path: str, vertex: int) -> Reason:
    """Why the layer with this path, whose value the vertex makes, is in the loop."""
    scope = body.scope
    choices = body.choices
    if vertex in choices:
        return Reason(
            "search chooses here: each step extends the hypotheses of the step before",
            "it can't leave: a choice runs step by step",
        )
    alias = path if body.owners[vertex] != path else None
    cycle = body.way([vertex], {vertex})
    is_behind = bool(choices) and vertex not in body.needed_by_search
    if cycle:
        return _of_cycle(body, _names(body, cycle, alias), vertex, scope, is_behind)
    to_choice = body.way([vertex], set(choices))
    if to_choice:
        names = _names(body, to_choice, alias)
        chosen = _short(names[-1], scope)
        cut = body.fewest_reads(vertex, choices)
        why = f"it needs {chosen}, which search chooses in each step{_in_full(names, scope)}"
        return Reason(why, _without(cut, scope, body.loop.ending is None), tuple(names), tuple(cut))
    return _of_the_end(body, vertex, scope) or SHARED


def _of_cycle(body: BodyDependencies, names: Sequence[str], vertex: int, scope: str, is_behind: bool) -> Reason:
    """`is_behind`: the search does not need the layer, which has a loop of its own behind it, of known length."""
    choices = [] if is_behind else body.choices
    cut = body.fewest_reads(vertex, [vertex, *choices])
    if set(names) == {names[0]} and not cut:
        return Reason(
            f"each of its steps {NEEDS_STEP_BEFORE}",
            "it can't leave: its class works step by step",
            tuple(names),
        )
    known_length = is_behind or body.loop.ending is None
    if len(set(names[1:])) == 1 and not cut:
        other = _short(names[1], scope)
        return Reason(
            f"it needs {other}, each of whose steps {NEEDS_STEP_BEFORE}",
            f"it can't leave before {other} does",
            tuple(names),
        )
    return Reason(_cycle_in_words(names, scope), _without(cut, scope, known_length), tuple(names), tuple(cut))


def _cycle_in_words(cycle: Sequence[str], scope: str) -> str:
    """`prev:att, which needs s`: the steps back are what makes a cycle; the whole of it follows if there is more."""
    ways = cycle[1:]
    if len(ways) <= LONGEST:
        return "it needs " + ", which needs ".join(_short(name, scope) for name in ways)
    shown = [*(name for name in ways[:-1] if name.startswith("prev:")), ways[-1]]
    return "it needs " + ", which needs ".join(_short(name, scope) for name in shown) + _in_full(cycle, scope)


def _in_full(names: Sequence[str], scope: str) -> str:
    """The way in parentheses, of a very long one the ends and the steps back with what is beside them."""
    if len(names) <= 2:
        return ""
    shown = [_short(name, scope) for name in names]
    if len(names) > MOST:
        back = [i for i, name in enumerate(names) if name.startswith("prev:")]
        kept = sorted(
            {i + d for i in back for d in (-1, 0, 1)} & set(range(len(names))) | {0, 1, len(names) - 2, len(names) - 1}
        )
        gaps = [("…", shown[j]) if j - i > 1 else (shown[j],) for i, j in pairwise(kept)]
        shown = [shown[0], *(name for gap in gaps for name in gap)]
    return f" ({' → '.join(shown)})"


def _of_the_end(body: BodyDependencies, vertex: int, scope: str) -> Reason | None:
    ending = body.loop.ending
    if ending is None:
        return None
    ended = body.producer.get(ending.ended)
    way = [] if ended is None else body.way([ended], {vertex})
    if way:
        names = body.names(way)
        needs = ", which needs ".join(_short(name, scope) for name in names) or "it"
        return Reason(f"it says when the loop ends: the end needs {needs}", f"it could leave if {KNOWN_LENGTH}")
    return Reason(
        "only the loop itself says how long it is, and each step gives another value",
        f"it could leave if {KNOWN_LENGTH}",
    )


def _without(cut: Sequence[LayerRead], scope: str, known_length: bool) -> str:
    """`it could leave if s did not read prev:att`."""
    conditions = [f"{_short(read.reader, scope)} did not read {_short(read.reference, scope)}" for read in cut]
    if not conditions:
        return "it can't leave: no change of what layers read would do"
    if not known_length:
        conditions.append(KNOWN_LENGTH)
    return "it could leave if " + " and ".join(
        [", ".join(conditions[:-1]), conditions[-1]] if conditions[1:] else conditions
    )


def _names(body: BodyDependencies, way: Sequence[int], alias: str | None) -> list[str]:
    """The names of a way, with the layer itself first, also where its value is that of another one; those of a cycle
    end with the layer, too."""
    names = body.names(way)
    is_alias = alias is not None and names[0] != alias
    if way[0] != way[-1]:
        return [alias, *names] if alias is not None and is_alias else names
    cycle = names if len(names) > 1 and names[-1] == names[0] else [*names, names[0]]
    if alias is None or not is_alias:
        return cycle
    return [alias, *cycle[:-1], alias] if cycle[-2] == f"prev:{alias}" else [alias, *cycle]


def _short(name: str, scope: str) -> str:
    before, _, path = name.rpartition("prev:")
    return f"{'prev:' if name.startswith('prev:') else before}{path.removeprefix(scope)}"
