"""What every worker does: answers the requests of `run.py` on standard input. Needs the standard library only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP = 3
LEAST_SECONDS = 0.3


@dataclass(frozen=True)
class Prepared:
    """A case that can run: `step` runs one step and waits for its result. `check` is a number that the peers with the
    same network and parameters must agree on, if there is one; it is asked for before the first step."""

    step: Callable[[], object]
    check: Callable[[], float] | None = None


Step = Callable[[], object]
"""Runs one step and waits for its result."""


def serve(cases: Mapping[str, Callable[[], Step | Prepared]]) -> None:
    """Answers until standard input ends. `cases` maps a case's name to what prepares it."""
    steps: dict[str, Step] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            _reply(_prepare(request["prepare"], cases, steps))
        elif request["run"] == "compile":
            _reply({"seconds": _once(lambda: _step(cases["compile"]())())})
        else:
            _reply({"seconds": _timed(steps[request["run"]])})


def _prepare(
    name: str, cases: Mapping[str, Callable[[], Step | Prepared]], steps: dict[str, Step]
) -> dict[str, object]:
    if name not in cases or name == "compile":
        return {"ok": name in cases, "check": None}
    prepared = cases[name]()
    check = prepared.check() if isinstance(prepared, Prepared) and prepared.check is not None else None
    steps[name] = _step(prepared)
    for _ in range(WARM_UP):
        steps[name]()
    return {"ok": True, "check": check}


def _step(prepared: Step | Prepared) -> Step:
    return prepared.step if isinstance(prepared, Prepared) else prepared


def _once(function: Step) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _timed(step: Step) -> float:
    """Seconds a step: repeated until it takes long enough to be measured."""
    count, total = 0, 0.0
    while total < LEAST_SECONDS:
        total += _once(step)
        count += 1
    return total / count


def _reply(message: dict[str, object]) -> None:
    sys.stdout.write("REPLY " + json.dumps(message) + "\n")
    sys.stdout.flush()
