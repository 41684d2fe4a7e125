"""The table of a comparison, as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PLACES = ("outside", "loop", "cycle")
SEVERITY = ("equal", "no reference", "refused", "off", "failed")

HEAD = """\
Compared with RETURNN
=====================

Written by ``python -m tools.oracle.compare --table docs/oracle.rst``; do not edit. The same network dict, parameters
and data in RETURNN and here, with our optimiser on and off. A number is the largest deviation of any output, loss,
length or gradient (relative for values above one); up to 1e-4 counts as equal. *outside*: on whole sequences; *loop*:
in the body of a ``rec`` layer that it can leave; *cycle*: where it cannot, because the next step needs it. A cell
stands for all modes of the case (train, eval, search). ``-``: RETURNN itself cannot run it. A star points to the
notes below the table.

"""


@dataclass(frozen=True)
class Outcome:
    """What became of one case in one mode: the largest deviation and where it is, or why there is none.

    `kind` is "equal", "off" (too far apart), "refused" (a ConfigError), "failed" (any other exception) or "no
    reference" (RETURNN itself cannot run it). `differs` says why we differ on purpose.
    """

    case: str
    mode: str
    kind: str
    deviation: float = 0.0
    where: str = ""
    differs: str = ""

    @property
    def row(self) -> str:
        base, _, place = self.case.rpartition(".")
        return base if place in PLACES else self.case

    @property
    def place(self) -> str:
        place = self.case.rpartition(".")[2]
        return place if place in PLACES else "outside"


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    worst = max(outcomes, key=lambda x: (SEVERITY.index(x.kind), x.deviation))
    if worst.kind == "no reference":
        measured = [x for x in outcomes if x.kind == "equal"]
        return f"{max(x.deviation for x in measured):.0e}" if measured else "\\-"
    if worst.kind == "equal":
        return f"{worst.deviation:.0e}"
    return (f"{worst.deviation:.0e}" if worst.kind == "off" else worst.kind) + " \\*"


def _notes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for place in PLACES:
        bad = [x for x in outcomes if x.place == place and x.kind not in {"equal", "no reference"}]
        for text in dict.fromkeys(x.differs or f"{x.kind}: {x.where}" for x in bad):
            modes = ", ".join(x.mode for x in bad if (x.differs or f"{x.kind}: {x.where}") == text)
            line = " ".join(text.split()).replace("*", "\\*").replace("`", "'").replace("|", "\\|").replace("_", "\\_")
            yield f"- ``{bad[0].case}`` ({modes}): {line}"


def table_text(families: Sequence[tuple[str, str, Sequence[Outcome]]]) -> str:
    """The page: for each family its title, what it is about, and its outcomes."""
    lines = [HEAD]
    everything = [x for _, _, outcomes in families for x in outcomes]
    counts = [f"{sum(x.kind == kind for x in everything)} {kind}" for kind in SEVERITY]
    purpose = sum(x.kind == "off" and bool(x.differs) for x in everything)
    lines.append(f"Cases by mode: {', '.join(counts)}; of those that are off, {purpose} on purpose.\n\n")
    for title, about, outcomes in families:
        lines.append(f"{title}\n{'-' * len(title)}\n\n{about}\n\n")
        lines.append('.. csv-table::\n   :header: "case", "outside", "loop", "cycle"\n\n')
        for row in dict.fromkeys(x.row for x in outcomes):
            own = [x for x in outcomes if x.row == row]
            cells = [_cell([x for x in own if x.place == place]) for place in PLACES]
            lines.append("   " + ", ".join(f'"{cell}"' for cell in [f"``{row}``", *cells]) + "\n")
        lines.append("\n")
        rows = dict.fromkeys(x.row for x in outcomes)
        notes = [note for row in rows for note in _notes([x for x in outcomes if x.row == row])]
        if notes:
            lines.append("\n".join(notes) + "\n\n")
    return "".join(lines).rstrip() + "\n"
