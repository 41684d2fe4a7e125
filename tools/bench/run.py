"""Benchmarks against peers: every peer is a process of its own, and they take turns, so that noise meets all alike.

    python tools/bench/run.py --lite PYTHON --returnn PYTHON --keras PYTHON --torch PYTHON [--case NAME ...]
    [--before CHECKOUT] [--group speed|loops|cells ...] [--rounds N] [--write docs/benchmarks.rst]

Each option names the Python of a virtual environment that has the peer; one that is not given is left out. Prints a
table of medians and of ratios to returnn_lite for each group of cases; `--write` replaces the tables of whole groups in
the page. Peers with the same network and parameters must compute the same. With `--before` another checkout of
returnn_lite is one of the peers, "before", run by the Python of `--lite`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import report
from cases import CASES, GROUPS

HERE = pathlib.Path(__file__).parent
SAME = 1e-3
"""How much two peers may differ in what they compute, relative to it."""


@dataclass
class Peer:
    """One process that can prepare a case and run it; `<peer>_plain` is the worker of a peer without optimisation."""

    name: str
    process: subprocess.Popen[str]

    def ask(self, **request: object) -> dict[str, object]:
        """Sends one request and waits for the reply."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the peer {self.name} ended; its messages are above")
            if line.startswith("REPLY "):
                reply = json.loads(line.removeprefix("REPLY "))
                assert isinstance(reply, dict)
                return reply


def start(name: str, python: str, before: pathlib.Path | None = None) -> Peer:
    """Starts the worker of a peer; that of the peer "before" is in another checkout."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DISABLE_CUDA": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    worker, plain, _ = name.partition("_plain")
    top = HERE.parent.parent
    if worker == "before":
        assert before is not None
        worker, top = "lite", before.resolve()
    command = [python, str(top / "tools/bench" / f"worker_{worker}.py"), *(["--plain"] if plain else [])]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=top
    )
    return Peer(name, process)


def measure(case: str, peers: list[Peer], rounds: int) -> dict[str, float]:
    """The median seconds of a step for each peer that has the case. Peers alternate from round to round."""
    replies = {peer.name: peer.ask(prepare=case) for peer in peers}
    able = [peer for peer in peers if replies[peer.name]["ok"]]
    require_same(case, {name: check for name, reply in replies.items() if (check := reply["check"]) is not None})
    seconds: dict[str, list[float]] = {peer.name: [] for peer in able}
    for _ in range(rounds):
        for peer in able:
            found = peer.ask(run=case)["seconds"]
            assert isinstance(found, float)
            seconds[peer.name].append(found)
    return {name: statistics.median(found) for name, found in seconds.items()}


@contextlib.contextmanager
def started(pythons: Mapping[str, str], before: pathlib.Path | None) -> Iterator[list[Peer]]:
    """The peers' processes, which end with the context."""
    peers = [start(name, python, before) for name, python in pythons.items()]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.process.kill()


def measure_all(
    cases: Sequence[str], pythons: Mapping[str, str], rounds: int, before: pathlib.Path | None
) -> dict[str, dict[str, float]]:
    """By case. Cells share the processes of their peers, as there are many; other cases have some of their own."""
    if all(CASES[case].group == "cells" for case in cases):
        with started(pythons, before) as peers:
            return {case: measure(case, peers, rounds) for case in cases}
    results = {}
    for case in cases:
        able = {name: python for name, python in pythons.items() if name not in CASES[case].without}
        with started(able, before) as peers:
            results[case] = measure(case, peers, rounds)
    return results


def require_same(case: str, checks: dict[str, object]) -> None:
    """Raises RuntimeError if peers disagree on what a case computes."""
    numbers = [float(str(check)) for check in checks.values()]
    if any(not math.isclose(number, numbers[0], rel_tol=SAME) for number in numbers):
        raise RuntimeError(f"{case}: the peers compute different numbers: {checks}")


def main() -> int:
    """Runs the cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in GROUPS["speed"]:
        parser.add_argument(f"--{name}", metavar="PYTHON")
    parser.add_argument("--before", type=pathlib.Path, metavar="CHECKOUT", help="another checkout of returnn_lite")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--group", action="append", choices=list(GROUPS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=pathlib.Path, help="the page that gets the tables")
    arguments = parser.parse_args()
    if arguments.before is not None and (arguments.lite is None or arguments.write is not None):
        parser.error("--before needs --lite, and goes into no page")
    if arguments.write is not None and arguments.case:
        parser.error("--write needs whole groups, so no --case")
    for group in arguments.group or GROUPS:
        chosen = [name for name in CASES if CASES[name].group == group and name in (arguments.case or CASES)]
        pythons = {n: p for n in GROUPS[group] if (p := getattr(arguments, n.removesuffix("_plain"))) is not None}
        if arguments.before is not None:
            pythons["before"] = arguments.lite
        if not chosen:
            continue
        results = measure_all(chosen, pythons, arguments.rounds, arguments.before)
        text = report.table(results, list(pythons))
        print(text)
        if arguments.write is not None:
            report.write(arguments.write, group, text, pythons, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
