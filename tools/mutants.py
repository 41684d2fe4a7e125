"""How many small mistakes in the compiler its tests find.

    python -m tools.mutants                     # all of tools/mutants.yaml; goes on where it stopped
    python -m tools.mutants --only passes/beams # those of some files

Each mutant is one text of one file replaced by another, in a copy of the tree; the tests of its package run, the fast
ones first, until one fails. The file, the text and what it becomes stand in `tools/mutants.yaml`; a text that is not
there exactly once is an error, so that the list follows the code. A mutant that lives is a hole in the tests, or its
`lives` says why no test can see it.

Each runs in a fork of this process, which has imported what takes long; it must not import `returnn_lite` itself.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

TOP = Path(__file__).resolve().parent.parent
LIST = TOP / "tools" / "mutants.yaml"
RESULTS = Path(tempfile.gettempdir()) / "returnn_lite_mutants.jsonl"
TESTS: Mapping[str, Sequence[str]] = {
    "ir": (
        "tests/ir",
        "tests/golden",
        "tests/passes",
        "tests/properties",
        "tests/errors",
        "tests/loop",
        "tests/layers",
    ),
    "passes": ("tests/passes", "tests/golden", "tests/explain", "tests/properties", "tests/net", "tests/loop"),
    "tf": ("tests/tf", "tests/layers", "tests/engine/test_network.py", "tests/net", "tests/oracle", "tests/cli"),
}
"""For each package its tests, those that find most in the least time first."""
SECONDS = 600
"""A mutant that makes the tests run longer is found by that."""
WANTED = 0.95
CRASHED = 70
Verdict = Literal["killed", "timeout", "lives"]


@dataclass(frozen=True)
class Mutant:
    """One text of a file, and the mistake in its place. `tests` come before those of the package."""

    file: str
    before: str
    after: str
    tests: Sequence[str] = ()
    lives: str = ""

    @property
    def key(self) -> str:
        """What results are kept under."""
        return hashlib.sha256(repr((self.file, self.before, self.after)).encode()).hexdigest()[:12]

    def all_tests(self) -> list[str]:
        """The tests that may find it, in their order; those of its name first."""
        path = Path(self.file)
        package = path.parts[1]
        own = f"tests/{package}/test_{path.stem}.py"
        named = (own,) if (TOP / own).exists() else ()
        return list(dict.fromkeys((*self.tests, *named, *TESTS[package])))

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.before.split())}  →  {' '.join(self.after.split())}"


def mutants() -> list[Mutant]:
    """The list. Raises ValueError if a text is not in its file exactly once."""
    found = [
        Mutant(f"returnn_lite/{file}", **entry)
        for file, entries in yaml.safe_load(LIST.read_text()).items()
        for entry in entries
    ]
    for mutant in found:
        if (count := (TOP / mutant.file).read_text().count(mutant.before)) != 1:
            raise ValueError(f"{mutant.file} has this {count} times, not once:\n{mutant.before}")
    return found


class Tree:
    """A copy of the tree, in which one mutant after the other is made and taken back."""

    def __init__(self, top: Path) -> None:
        self.top = top
        names = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout
        for name in names.splitlines():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, top / name)
        subprocess.run([sys.executable, "-m", "compileall", "-q", "returnn_lite", "tests"], cwd=top, check=True)

    def verdict(self, mutant: Mutant) -> tuple[Verdict, str]:
        """Whether the tests find the mutant, and the one that does."""
        path = self.top / mutant.file
        text = path.read_text()
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()  # it is told from the file by its size and second of change only
        path.write_text(text.replace(mutant.before, mutant.after))
        try:
            return self.tested(mutant.all_tests())
        finally:
            path.write_text(text)

    def tested(self, tests: Sequence[str]) -> tuple[Verdict, str]:
        """What the tests say of the tree as it is."""
        log = self.top / "log"
        child = os.fork()
        if child == 0:
            _run_tests(self.top, tests, log)
        status = _wait(child)
        if status is None:
            return "timeout", ""
        if status not in (0, 1, 2):  # passed, failed, stopped by what can't be imported
            raise RuntimeError(f"the tests did not run:\n{log.read_text(errors='replace')}")
        failed = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))]
        return ("killed" if status else "lives"), (failed[0].split(" - ")[0] if failed else "")


def _run_tests(top: Path, tests: Sequence[str], log: Path) -> None:
    """The forked process: pytest in the copy, folder by folder up to the first test that fails."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(top)
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    sys.path.insert(0, str(top))
    sys.dont_write_bytecode = True
    options = ["-q", "-x", "-n0", "--tb=line", "-p", "no:cacheprovider", f"--rootdir={top}", "-c", "setup.cfg"]
    code = CRASHED
    try:
        codes = (int(pytest.main([*options, one])) for one in tests)  # none is read before those before it have passed
        code = next((code for code in codes if code), 0)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int | None:
    """The exit status; None if it took too long."""
    start = time.monotonic()
    while time.monotonic() - start < SECONDS:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def decided(results: Path) -> dict[str, Verdict]:
    """What is known of earlier runs, by the mutants' keys."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {entry["key"]: entry["verdict"] for entry in map(json.loads, lines)}


def run(chosen: Sequence[Mutant], results: Path) -> Iterator[tuple[Mutant, Verdict]]:
    """The verdicts, those of earlier runs first; each is kept as soon as it is there."""
    known = decided(results)
    yield from ((mutant, known[mutant.key]) for mutant in chosen if mutant.key in known)
    for module in ("numpy", "h5py", "tensorflow"):
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        verdict, by = tree.tested(["tests/ir", "tests/golden"])
        assert verdict == "lives", f"without any mutant {by} fails"
        for mutant in chosen:
            if mutant.key in known:
                continue
            start = time.monotonic()
            verdict, by = tree.verdict(mutant)
            print(f"{verdict:7} {time.monotonic() - start:4.0f} s  {mutant}  {by}", flush=True)
            with results.open("a") as file:
                file.write(json.dumps({"key": mutant.key, "verdict": verdict, "mutant": str(mutant), "by": by}) + "\n")
            yield mutant, verdict


def main() -> int:
    """The score; 1 if too many live, or one lives without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those whose file's name has this in it")
    parser.add_argument("--shuffle", action="store_true", help="in any order: what is decided early is a sample")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what is decided; a fresh file starts anew")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    chosen = [mutant for mutant in mutants() if options.only in mutant.file]
    if options.shuffle:
        chosen.sort(key=lambda mutant: mutant.key)
    found = list(run(chosen, options.results))
    alive = [mutant for mutant, verdict in found if verdict == "lives"]
    for mutant in alive:
        print(f"lives: {mutant}\n    {mutant.lives or 'WITHOUT A REASON'}")
    score = 1 - len(alive) / len(found) if found else 1.0
    print(f"{len(found)} mutants, {len(found) - len(alive)} found, {len(alive)} live: {score:.0%}")
    return int(score < WANTED or any(not mutant.lives for mutant in alive))


if __name__ == "__main__":
    sys.exit(main())
