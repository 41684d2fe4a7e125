"""Writes recorded numbers for the test suite: `tests/oracle/<family>.json`, small enough to live in the repository.

    python -m tools.oracle.export --records /tmp/oracle_records --to tests/oracle

Left out are cases that RETURNN cannot run, cases where we differ on purpose, and modes that measure the same as an
earlier one. Of cases that are not in the folders what is there already stays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .case import LENGTHS, Case, draw_inputs
from .cases import FAMILIES
from .records import Record, find_record, load_suite, plain, to_plain


def worth_keeping(record: Record) -> dict[str, Any] | None:
    """The plain form of a record, or None if there is nothing to hold us to."""
    if record.case.differs:
        return None
    data = to_plain(record)
    runs: dict[str, Any] = {}
    for mode, run in data["runs"].items():
        without_gradients = [{**seen, "gradients": {}} for seen in runs.values()]
        if {**run, "gradients": {}} not in without_gradients:
            runs[mode] = run
    if not runs:
        return None
    return {**data, "runs": runs}


def family_data(cases: list[Case], folders: list[Path], suite: Mapping[str, Record]) -> dict[str, Any]:
    """The contents of one file. Inputs that most cases share are stored once."""
    entries = []
    shared = {key: values for case in cases if case.lengths is LENGTHS for key, values in draw_inputs(case).items()}
    for case in cases:
        record = find_record(case, folders, suite)
        entry = None if record is None else worth_keeping(record)
        if record is None or entry is None:
            continue
        own = {key: plain(x) for key, x in record.inputs.items() if not np.array_equal(x, shared.get(key, np.zeros(0)))}
        entries.append({**entry, "inputs": own} if own else entry)
    return {"inputs": {key: plain(values) for key, values in shared.items()}, "cases": entries}


def compact(data: object) -> str:
    return json.dumps(data, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes recorded numbers for the test suite.")
    parser.add_argument("--records", type=Path, nargs="*", default=[Path("/tmp/oracle_records")])
    parser.add_argument("--to", type=Path, default=Path("tests/oracle"))
    options = parser.parse_args()
    suite = load_suite(options.to)
    for family in FAMILIES:
        data = family_data(family.CASES, options.records, suite)
        path = options.to / f"{family.__name__.rpartition('.')[2]}.json"
        lines = ",\n".join(compact(entry) for entry in data["cases"])
        path.write_text(f'{{"inputs":{compact(data["inputs"])},\n"cases":[\n{lines}\n]}}\n')
        print(f"{path}: {len(data['cases'])} of {len(family.CASES)} cases, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
