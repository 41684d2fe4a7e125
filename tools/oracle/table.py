"""The table of a comparison, as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PLACES = ("outside", "loop", "cycle")
MODES = ("train", "eval", "search")
KINDS = ("equal", "no reference", "not measured", "refused", "off", "failed")

HEAD = """\
Compared with RETURNN
=====================

Written by ``python -m tools.oracle.compare --table docs/oracle.rst`` ({versions}); do not edit. The same network dict,
parameters and data in RETURNN and here, with our optimiser on and off. A number is the largest deviation of any output,
length, loss, error, score or gradient, relative for values above one; up to 1e-4 counts as equal. *outside*: on whole
sequences; *loop*: in the body of a ``rec`` layer that it can leave; *cycle*: where it cannot, because the next step
needs it. *train*, *eval* and *search* are the modes. Numbers are those of equal cases; *differs* counts those that
differ on purpose, with the reasons below each table, and *open* those that should agree and do not. What RETURNN itself
cannot run is listed, too: there is nothing to compare with.

"""


@dataclass(frozen=True)
class Outcome:
    """What became of one case in one mode: the largest deviation and where it is, or why there is none.

    `kind` is "equal", "off" (too far apart), "refused" (a ConfigError), "failed" (any other exception), "no reference"
    (RETURNN itself cannot run it) or "not measured". `differs` says why we differ on purpose.
    """

    case: str
    mode: str
    kind: str
    deviation: float = 0.0
    where: str = ""
    differs: str = ""

    @property
    def row(self) -> str:
        """The layer, or what else the case is about: the first part of its name."""
        return self.case.partition(".")[0]

    @property
    def place(self) -> str:
        """Where the layer stands; whole networks count as loops, losses and the rest as outside."""
        place = self.case.rpartition(".")[2]
        return place if place in PLACES else "loop" if self.row in {"golden", "search"} else "outside"

    @property
    def agrees(self) -> bool:
        return self.kind == "equal"

    @property
    def on_purpose(self) -> bool:
        return self.kind in {"off", "refused"} and bool(self.differs)

    @property
    def open(self) -> bool:
        return self.kind in {"off", "refused", "failed"} and not self.on_purpose


def cases(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(x.case for x in outcomes))


def _largest(outcomes: Sequence[Outcome]) -> str:
    agreeing = [x.deviation for x in outcomes if x.agrees]
    return f"{max(agreeing):.0e}" if agreeing else "\\-" if outcomes else ""


def _row(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    places = [_largest([x for x in outcomes if x.place == place]) for place in PLACES]
    modes = [_largest([x for x in outcomes if x.mode == mode]) for mode in MODES]
    counts = [len(cases([x for x in outcomes if x.on_purpose])), len(cases([x for x in outcomes if x.open]))]
    return [f"``{name}``", str(len(cases(outcomes))), *places, *modes, *(str(count or "") for count in counts)]


def _escaped(text: str) -> str:
    plain = " ".join(text.split()).replace("\\", "")
    for special in "*|_":
        plain = plain.replace(special, f"\\{special}")
    return plain.replace("`", "'")


def _notes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Each reason once, with the cases that have it; then what is open, and what RETURNN cannot run."""
    for title, chosen in (
        ("Differs on purpose", [x for x in outcomes if x.on_purpose]),
        ("Open", [x for x in outcomes if x.open]),
    ):
        reasons: dict[str, list[Outcome]] = {}
        for x in chosen:
            reasons.setdefault(x.differs if x.on_purpose else f"{x.kind}: {x.where[:200]}", []).append(x)
        for reason, having in reasons.items():
            yield f"- {title}: {_escaped(reason)}. In " + ", ".join(f"``{name}``" for name in cases(having)) + "."
    for kind, text in (("no reference", "RETURNN cannot run"), ("not measured", "Not measured yet")):
        names = cases([x for x in outcomes if x.kind == kind])
        whole = [name for name in names if all(x.kind == kind for x in outcomes if x.case == name)]
        if whole:
            yield f"- {text}: " + ", ".join(f"``{name}``" for name in whole) + "."


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Counts of cases, and the largest deviation of those that agree."""
    purpose, unsolved = (cases([x for x in outcomes if getattr(x, what)]) for what in ("on_purpose", "open"))
    agreeing = [name for name in cases([x for x in outcomes if x.agrees]) if name not in {*purpose, *unsolved}]
    return {
        "cases": len(cases(outcomes)),
        "equal": len(agreeing),
        "on purpose": len(purpose),
        "open": len(unsolved),
        "largest deviation": max((x.deviation for x in outcomes if x.agrees), default=0.0),
    }


def table_text(families: Sequence[tuple[str, str, Sequence[Outcome]]], versions: Mapping[str, str]) -> str:
    """The page: for each family its title, what it is about, and a row for each of its layers."""
    lines = [HEAD.format(versions=", ".join(f"{name} {version}" for name, version in versions.items()))]
    counts = summary([x for _, _, outcomes in families for x in outcomes])
    lines.append(
        f"{counts['cases']} cases: {counts['equal']} equal in all modes, {counts['on purpose']} differ on purpose, "
        f"{counts['open']} open; the rest RETURNN cannot run, or is not measured yet. "
        f"Largest deviation of an equal case: {counts['largest deviation']:.0e}.\n\n"
    )
    header = ", ".join(f'"{title}"' for title in ("layer", "cases", *PLACES, *MODES, "differs", "open"))
    for title, about, outcomes in families:
        lines.append(f"{title}\n{'-' * len(title)}\n\n{about}\n\n.. csv-table::\n   :header: {header}\n\n")
        for name in dict.fromkeys(x.row for x in outcomes):
            row = _row(name, [x for x in outcomes if x.row == name])
            lines.append("   " + ", ".join(f'"{cell}"' for cell in row) + "\n")
        notes = list(_notes(outcomes))
        lines.append("\n" + "".join(f"{note}\n" for note in notes) + ("\n" if notes else ""))
    return "".join(lines).rstrip() + "\n"
