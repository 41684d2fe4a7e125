"""What every worker does: answers the requests of `run.py` on standard input. Needs the standard library only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping

Step = Callable[[], object]
"""Runs one step and waits for its result."""

WARM_UP = 3
LEAST_SECONDS = 0.3


def serve(cases: Mapping[str, Callable[[], Step]]) -> None:
    """Answers until standard input ends. `cases` maps a case's name to what prepares it."""
    steps: dict[str, Step] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            name = request["prepare"]
            if name in cases and name != "compile":
                steps[name] = cases[name]()
                for _ in range(WARM_UP):
                    steps[name]()
            _reply({"ok": name in cases})
        elif request["run"] == "compile":
            _reply({"seconds": _once(lambda: cases["compile"]()())})
        else:
            _reply({"seconds": _timed(steps[request["run"]])})


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
