"""Compares returnn_lite with what RETURNN computed: same dict, same parameters, same data.

    python -m tools.oracle.compare --records /tmp/oracle_records [--match REGEX] [--table docs/oracle.rst]

Cases that are not in the folder are compared with what `tests/oracle` keeps of them.
Every case is compiled with and without optimisation; outputs, losses, the objective and gradients are compared.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tensorflow as tf

import returnn_lite as rl

from .align import deviation, output_deviation, recorded
from .case import Case, Formula, Tag, with_dims, with_formulas
from .cases import FAMILIES, all_cases
from .records import VERSIONS, Record, Run, find_record, load_suite
from .table import Outcome, summary, table_text

TOLERANCE = 1e-4


def dim_of(tag: Tag) -> rl.Dim:
    return rl.Dim(tag.name, rl.DimKind.FEATURE if tag.feature else rl.DimKind.SPATIAL, tag.size)


def formula_of(formula: Formula) -> Any:
    return formula.function(tf) if formula.as_function else formula.text


def deviations(record: Record, run: Run, mode: str, optimize: bool) -> Iterator[tuple[str, float]]:
    """Everything that can be compared in one mode, with how far apart it is."""
    case = record.case
    net = rl.compile(
        with_formulas(with_dims(case.network, dim_of), formula_of),
        extern_data=case.extern_data,
        mode=mode,
        optimize=optimize,
        behavior_version=case.behavior_version,
    )
    unknown = sorted(set(net.params) - set(record.parameters))
    if unknown:
        yield f"parameters {unknown}", float("inf")
        return
    seq_lens = {key: list(lengths) for key, lengths in case.lengths.items() if any(lengths)}
    assign(net, record)
    out = [net.run(record.inputs, seq_lens=seq_lens) for _ in range(case.batches)][-1]
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
        assign(net, record)  # a training step has changed running statistics
        gradients = net.gradients(record.inputs, seq_lens=seq_lens)
        for name, value in run.gradients.items():
            yield f"gradient of {name}", deviation(gradients[name], value)


def assign(net: rl.Network, record: Record) -> None:
    """Gives the network the recorded parameters."""
    for name, value in record.parameters.items():
        if name in net.params:
            net.params[name].assign(value)


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
    parser.add_argument("--records", type=Path, nargs="*", default=[Path("/tmp/oracle_records")])
    parser.add_argument("--suite", type=Path, default=Path("tests/oracle"), help="for what --records do not have")
    parser.add_argument("--match", default="", help="only cases whose name this regular expression finds")
    parser.add_argument("--rest", action="store_true", help="only cases without an earlier outcome")
    parser.add_argument("--part", default="1/1", help="2/3: only the second of three parts, to run them side by side")
    parser.add_argument(
        "--outcomes", type=Path, nargs="+", default=[], help="files of earlier outcomes; new ones go to the first"
    )
    parser.add_argument("--table", type=Path, help="write the table of all outcomes here")
    parser.add_argument("--verbose", action="store_true", help="print every single deviation")
    options = parser.parse_args()
    # Small graphs that run once: what TensorFlow's optimiser costs is never earned back.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    known = {name: found for path in reversed(options.outcomes) for name, found in kept_outcomes(path).items()}
    part, parts = map(int, options.part.split("/"))
    suite = load_suite(options.suite)
    # Mixed up, so that parts take equally long, and that what is cut short is a sample of everything.
    mixed = sorted(all_cases(), key=lambda case: zlib.crc32(case.name.encode()))
    chosen = [
        case for case in mixed if re.search(options.match, case.name) and not (options.rest and case.name in known)
    ]
    for index, case in enumerate(chosen):
        if index % parts == part - 1:
            record = find_record(case, options.records, suite)
            known[case.name] = list(case_outcomes(case, record, print if options.verbose else lambda text: None))
            if options.outcomes:
                text = json.dumps({name: [asdict(x) for x in found] for name, found in known.items()}, indent=0)
                options.outcomes[0].write_text(text)
    families = [
        (
            family.__name__.rpartition(".")[2].capitalize(),
            (family.__doc__ or "").strip(),
            [replace(x, differs=case.differs) for case in family.CASES for x in known.get(case.name, unmeasured(case))],
        )
        for family in FAMILIES
    ]
    if options.table:
        options.table.write_text(table_text(families, versions(options.records)))
    print(summary([x for _, _, outcomes in families for x in outcomes]))


def kept_outcomes(path: Path) -> dict[str, list[Outcome]]:
    """What an earlier run found, by the name of the case."""
    if not path.exists():
        return {}
    return {name: [Outcome(**x) for x in found] for name, found in json.loads(path.read_text()).items()}


def unmeasured(case: Case) -> list[Outcome]:
    return [Outcome(case.name, mode, "not measured") for mode in case.modes]


def case_outcomes(case: Case, record: Record | None, also: Callable[[str], None]) -> Iterator[Outcome]:
    """Compares a case in each of its modes, and prints what is not equal as it goes.

    The suite keeps no modes that measure what an earlier one did.
    """
    for mode in case.modes:
        if record is None:
            yield Outcome(case.name, mode, "not measured", where="not recorded", differs=case.differs)
        elif f"{mode}/on" in record.runs or f"{mode}/off" in record.runs:
            result = outcome(record, mode, also)
            if not result.agrees:
                print(f"{case.name} {mode}: {result.kind} {result.deviation:.1e} {result.where[:300]}", flush=True)
            yield result


def versions(folders: Sequence[Path]) -> dict[str, str]:
    """What was measured, and with what."""
    found = {"returnn_lite": version("returnn_lite"), "TensorFlow": tf.__version__}
    for folder in folders:
        if (folder / VERSIONS).exists():
            found |= {
                f"{name} for the records": text for name, text in json.loads((folder / VERSIONS).read_text()).items()
            }
    return found


if __name__ == "__main__":
    main()
