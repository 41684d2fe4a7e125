"""Compares returnn_lite with what RETURNN computed: same dict, same parameters, same data.

    python -m tools.oracle.compare --records /tmp/oracle_records [--match REGEX] [--table docs/oracle.rst]

Every case is compiled with and without optimisation; outputs, losses, the objective and gradients are compared.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import returnn_lite as rl

from .align import deviation, output_deviation, recorded
from .case import Case
from .cases import FAMILIES
from .records import Record, Run, load
from .table import Outcome, table_text

TOLERANCE = 1e-4


def deviations(record: Record, run: Run, mode: str, optimize: bool) -> Iterator[tuple[str, float]]:
    """Everything that can be compared in one mode, with how far apart it is."""
    case = record.case
    net = rl.compile(
        case.network,
        extern_data=case.extern_data,
        mode=mode,
        optimize=optimize,
        behavior_version=case.behavior_version,
    )
    for name, value in record.parameters.items():
        if name in net.params:
            net.params[name].assign(value)
    unknown = sorted(set(net.params) - set(record.parameters))
    if unknown:
        yield f"parameters {unknown}", float("inf")
        return
    seq_lens = {key: list(lengths) for key, lengths in case.lengths.items() if any(lengths)}
    out = net.run(record.inputs, seq_lens=seq_lens)
    for name in case.layers:
        layer = out.layers[name]
        lengths = [layer.seq_lens.get(dim) for dim in layer.dims]
        yield f"output of {name}", output_deviation(layer.value, lengths, recorded(run, name))
    for key, value in run.losses.items():
        name, _, part = key.rpartition("/")
        loss = out.losses.get(name)
        if loss is None:
            yield f"loss {name} (missing)", float("inf")
        elif part == "norm":
            yield f"count of loss {name}", deviation(loss.count, 1 / value)
        elif part == "error":
            yield f"error of {name}", deviation(loss.error, value)
        else:
            yield f"loss {name}", deviation(loss.sum, value)
    if run.objective is not None:
        yield "objective", deviation(out.objective, run.objective)
    if mode == "train" and run.gradients:
        gradients = net.gradients(record.inputs, seq_lens=seq_lens)
        for name, value in run.gradients.items():
            yield f"gradient of {name}", deviation(gradients[name], value)


def outcome(record: Record, mode: str, also: Callable[[str], None] = lambda text: None) -> Outcome:
    """Compares one case in one mode, with and without optimisation; the worse of the two counts."""
    case = record.case
    run = record.reference(mode)
    if run is None:
        return Outcome(case.name, mode, "no reference", where=record.runs[f"{mode}/on"].error, differs=case.differs)
    found: dict[str, float] = {}
    for optimize in (True, False):
        try:
            for what, far in deviations(record, run, mode, optimize):
                also(f"{case.name} {mode} optimize={optimize} {what}: {far:.1e}")
                found[what] = max(far, found.get(what, 0.0))
        except rl.ConfigError as error:
            return Outcome(case.name, mode, "refused", where=str(error), differs=case.differs)
        except Exception as error:  # noqa: BLE001 -- one broken case must not hide the others
            return Outcome(case.name, mode, "failed", where=f"{type(error).__name__}: {error}", differs=case.differs)
    where = "; ".join(f"{what} {far:.0e}" for what, far in found.items() if far > TOLERANCE)
    worst = max(found.values(), default=0.0)
    return Outcome(case.name, mode, "off" if where else "equal", worst, where, case.differs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares returnn_lite with recorded numbers of RETURNN.")
    parser.add_argument("--records", type=Path, default=Path("/tmp/oracle_records"))
    parser.add_argument("--match", default="", help="only cases whose name this regular expression finds")
    parser.add_argument("--table", type=Path, help="write the table of all outcomes here")
    parser.add_argument("--verbose", action="store_true", help="print every single deviation")
    options = parser.parse_args()
    families, outcomes = [], []
    for family in FAMILIES:
        about = (family.__doc__ or "").strip()
        title = family.__name__.rpartition(".")[2].capitalize()
        measured = list(family_outcomes(family.CASES, options))
        if measured:
            families.append((title, about, measured))
        outcomes += measured
    if options.table:
        options.table.write_text(table_text(families))
    print({kind: sum(x.kind == kind for x in outcomes) for kind in sorted({x.kind for x in outcomes})})


def family_outcomes(cases: Sequence[Case], options: argparse.Namespace) -> Iterator[Outcome]:
    """Compares the chosen ones of these cases, and prints what is not equal as it goes."""
    for case in cases:
        if not re.search(options.match, case.name):
            continue
        record = load(case, options.records)
        for mode in case.modes:
            result = outcome(record, mode, print if options.verbose else lambda text: None)
            if result.kind not in {"equal", "no reference"}:
                print(f"{result.case} {mode}: {result.kind} {result.deviation:.1e} {result.where}", flush=True)
            yield result


if __name__ == "__main__":
    main()
