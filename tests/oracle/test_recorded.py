"""Against numbers that RETURNN computed: outputs, lengths, losses, gradients and hypotheses, without RETURNN itself.

The recordings are made by `tools.oracle.record` and `tools.oracle.export`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commit import NIGHTLY, takes_part
from tests.reference.executable import Interpreted
from tools.oracle.compare import TOLERANCE, deviations
from tools.oracle.records import Record, load_plain

RECORDS = [record for path in sorted(Path(__file__).parent.glob("*.json")) for record in load_plain(path)]


OPEN: dict[str, str] = {}
"""Cases that do not agree yet, and how. One that comes to agree fails here, so that it is taken off."""


def known(record: Record) -> Any:
    """The record, marked if it is known not to agree."""
    reason = OPEN.get(record.case.name)
    marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason is not None else []
    return pytest.param(record, marks=marks, id=record.case.name)


@pytest.mark.parametrize("record", [known(record) for record in (RECORDS if NIGHTLY else RECORDS[::12])])
@pytest.mark.parametrize("optimize", [True, False] if NIGHTLY else [True], ids=lambda on: "fast" if on else "plain")
def test_agrees_with_returnn(record: Record, optimize: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI a twelfth of the records, half of them in NumPy and without gradients; nightly all in TensorFlow."""
    in_tensorflow = takes_part(record.case.name, 2)
    if not in_tensorflow:
        monkeypatch.setattr("returnn_lite.tf.executable.Executable", Interpreted)
    for key, recorded in record.runs.items():
        run = recorded if in_tensorflow else replace(recorded, gradients={})
        found = dict(deviations(record, run, key.partition("/")[0], optimize))
        assert found
        assert {what: far for what, far in found.items() if far > TOLERANCE} == {}
