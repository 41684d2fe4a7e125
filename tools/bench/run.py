"""Benchmarks against peers: every peer is a process of its own, and they take turns, so that noise meets all alike.

    python tools/bench/run.py --lite PYTHON --returnn PYTHON --keras PYTHON --torch PYTHON [--case NAME ...]
    [--rounds N]

Each option names the Python of a virtual environment that has the peer; one that is not given is left out. Prints a
table of
medians and of ratios to returnn_lite, and writes it to `docs/benchmarks.rst` with `--write`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).parent
CASES = {
    "lstm_train": "LSTM layer, training step (B=32, T=100, D=256, H=512)",
    "attention_train": "attention decoder, training step (B=32, source 40, target 20)",
    "transformer_train": "Transformer decoder, training step (B=32, source 40, target 20)",
    "attention_search": "attention decoder, beam search (B=8, beam 12, 20 steps)",
    "compile": "time to build the attention decoder for training, first step included",
}
PACKAGES = {
    "lite": ("returnn_lite", "tensorflow-cpu"),
    "returnn": ("returnn", "tensorflow-cpu"),
    "keras": ("keras",),
    "torch": ("torch",),
}


@dataclass
class Peer:
    """One process that can prepare a case and run it. A reply of null seconds means that the peer has no such case."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)

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


def start(name: str, python: str) -> Peer:
    """Starts the worker of a peer."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DISABLE_CUDA": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, str(HERE / f"worker_{name}.py")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE.parent.parent
    )
    return Peer(name, process)


def measure(case: str, pythons: dict[str, str], rounds: int) -> dict[str, float]:
    """The median seconds of a step for each peer that has the case. Peers alternate from round to round."""
    peers = [start(name, python) for name, python in pythons.items()]
    try:
        able = [peer for peer in peers if peer.ask(prepare=case)["ok"]]
        for _ in range(rounds):
            for peer in able:
                seconds = peer.ask(run=case)["seconds"]
                assert isinstance(seconds, float)
                peer.seconds.append(seconds)
        return {peer.name: statistics.median(peer.seconds) for peer in able}
    finally:
        for peer in peers:
            peer.process.kill()


def table(results: dict[str, dict[str, float]], names: list[str]) -> str:
    """A reStructuredText table: milliseconds, and in brackets the ratio to returnn_lite (above 1: the peer is
    slower)."""
    head = ["case", *names]
    rows = [head]
    for case, medians in results.items():
        own = medians.get("lite")
        cells = []
        for name in names:
            seconds = medians.get(name)
            ratio = f" ({seconds / own:.2f})" if seconds is not None and own and name != "lite" else ""
            cells.append("–" if seconds is None else f"{seconds * 1000:.1f}{ratio}")
        rows.append([CASES[case], *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    line = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([line, lines[0], line, *lines[1:], line])


def document(text: str, pythons: dict[str, str], rounds: int) -> str:
    """The page around the table: what was measured, with what, and when."""
    names = ", ".join(
        sorted({version(python, package) for name, python in pythons.items() for package in PACKAGES[name]})
    )
    load = os.getloadavg()[0]
    return f"""Speed
=====

Written by ``python tools/bench/run.py --write`` on {datetime.date.today()}; not to be edited. The median of {rounds}
rounds in milliseconds, in brackets the ratio to returnn_lite (above 1: slower than returnn_lite). All peers are
processes that are alive at the same time and take turns on {os.cpu_count()} cores (load {load:.1f} in the end, 1 being
the benchmark itself), so only ratios mean anything. Training steps are those of Adam, with sequences between half and
the whole of the longest. The networks are in ``tools/bench/networks.py``; PyTorch's and Keras' versions are written by
hand beside it. PyTorch builds no graph: its time to build is that of its first step.

{text}

{names}.
"""


def version(python: str, package: str) -> str:
    """Name and version of a package in a virtual environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return (
        f"{package} {subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout.strip()}"
    )


def main() -> int:
    """Runs the cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("lite", "returnn", "keras", "torch"):
        parser.add_argument(f"--{name}", metavar="PYTHON")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=pathlib.Path, help="file that gets the table")
    arguments = parser.parse_args()
    pythons = {n: p for n in ("lite", "returnn", "keras", "torch") if (p := getattr(arguments, n)) is not None}
    results = {case: measure(case, pythons, arguments.rounds) for case in arguments.case or CASES}
    text = table(results, list(pythons))
    print(text)
    if arguments.write is not None:
        arguments.write.write_text(document(text, pythons, arguments.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
