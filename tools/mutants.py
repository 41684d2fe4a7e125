"""How many small mistakes in the compiler its tests find.

    python -m tools.mutants                     # all of tools/mutants.yaml; goes on where it stopped
    python -m tools.mutants --only passes/beams # those of some files

Each mutant is one text of one file replaced by another, in a copy of the tree. The file, the text and what it becomes
stand in `tools/mutants.yaml`; a text that is not there exactly once is an error, so that the list follows the code.

First the whole suite runs once, and it is noted which tests reach the function of each mutant (itself, or while their
file is read). Then of each mutant these run, the short ones first, until one fails: others can't find it. A mutant that
lives is a hole in the tests, or its `lives` says why no test can see it; what such a one changes is no mistake, so it
does not count.

Each runs in a fork of this process, which has imported what takes long; it must not import `returnn_lite` itself.
A test that comes to no end is found by that: what counts is the time of the processor, however busy the machine is.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import hashlib
import importlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

TOP = Path(__file__).resolve().parent.parent
LIST = TOP / "tools" / "mutants.yaml"
RESULTS = Path(tempfile.gettempdir()) / "returnn_lite_mutants.jsonl"
SECONDS = 120
"""Of the processor, for one test at most: twice what the longest takes."""
BATCHES = (30, 300)
"""How many tests are read at once: first the shortest, at last all the others."""
WANTED = 0.95
CONFIG = ("-p", "no:cacheprovider", "--rootdir=.", "-c", "setup.cfg", "-q", "-n0", "--tb=line")
CRASHED = 70
TOO_LONG = -signal.SIGPROF
IMPORTED = ("numpy", "h5py", "tensorflow", "keras", "rich.console", "jsonschema")
"""What takes long, and what no mutant changes."""
Verdict = Literal["killed", "timeout", "lives"]
Reached = Mapping[str, tuple[float, Sequence[str]]]
"""For each test its seconds, and the functions that it reaches."""


@dataclass(frozen=True)
class Mutant:
    """One text of a file, and the mistake in its place."""

    file: str
    before: str
    after: str
    lives: str = ""

    @property
    def key(self) -> str:
        """What results are kept under."""
        return hashlib.sha256(repr((self.file, self.before, self.after)).encode()).hexdigest()[:12]

    def function(self) -> ast.FunctionDef:
        """The innermost function around it."""
        text = (TOP / self.file).read_text()
        line = text[: text.index(self.before.lstrip())].count("\n") + 1
        around = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and _has(node, line)]
        return max(around, key=lambda node: node.lineno)

    @property
    def place(self) -> str:
        """What its function is noted under."""
        return f"{self.file}:{self.function().lineno}"

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.before.split())}  →  {' '.join(self.after.split())}"


def _has(node: ast.FunctionDef, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or 0)


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
        subprocess.run([sys.executable, "-m", "compileall", "-q", "returnn_lite"], cwd=top, check=True)
        # pytest compiles the tests in its own way, when it reads them.
        command = [sys.executable, "-m", "pytest", "--collect-only", *CONFIG]
        subprocess.run(command, cwd=top, check=True, stdout=subprocess.DEVNULL)

    def reached(self, places: Mapping[str, Mutant], tests: Sequence[str]) -> Reached:
        """Runs the suite once, and notes who reaches which of the functions. A test that fails is left out."""
        kept = {file: (self.top / file).read_text() for file in {mutant.file for mutant in places.values()}}
        for mutant in sorted(places.values(), key=lambda mutant: -mutant.function().lineno):
            self._mark(mutant)
        found = self.top / "reached.json"
        self._forked(lambda: _pytest(tests, Noting(found)))
        for file, text in kept.items():
            self._write(file, text)
        if not found.exists():
            raise RuntimeError(f"the tests did not run:\n{self._log()}")
        return {name: (seconds, functions) for name, (seconds, functions) in json.loads(found.read_text()).items()}

    def verdict(self, mutant: Mutant, tests: Sequence[str]) -> tuple[Verdict, str]:
        """Whether these tests find the mutant, and the one that does."""
        text = (self.top / mutant.file).read_text()
        self._write(mutant.file, text.replace(mutant.before, mutant.after))
        try:
            return self._verdict(tests)
        finally:
            self._write(mutant.file, text)

    def _verdict(self, tests: Sequence[str]) -> tuple[Verdict, str]:
        status = self._forked(lambda: _in_batches(tests))
        if status == TOO_LONG:
            return "timeout", ""
        if status not in (0, 1, 2):  # passed, failed, stopped by what can't be imported
            raise RuntimeError(f"the tests did not run:\n{self._log()}")
        failed = [line for line in self._log().splitlines() if line.startswith(("FAILED", "ERROR"))]
        return ("killed" if status else "lives"), (failed[0].split(" - ")[0] if failed else "")

    def _mark(self, mutant: Mutant) -> None:
        """The function notes that it is reached, in a line of its own before its first statement."""
        lines, first = (self.top / mutant.file).read_text().splitlines(keepends=True), mutant.function().body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(mutant.function().body) > 1:
            first = mutant.function().body[1]
        at = min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", ()))]) - 1
        note = f"getattr(__import__('builtins'), 'REACHED', set()).add({mutant.place!r})\n"
        self._write(mutant.file, "".join([*lines[:at], " " * first.col_offset + note, *lines[at:]]))

    def _write(self, file: str, text: str) -> None:
        path = self.top / file
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()  # it is told from the file by its size and second of change only
        path.write_text(text)

    def _log(self) -> str:
        return (self.top / "log").read_text(errors="replace")

    def _forked(self, work: Callable[[], int]) -> int:
        """Runs something in the copy in a process of its own; how that ends."""
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with (self.top / "log").open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(self.top)
        os.environ |= {"HYPOTHESIS_PROFILE": "mutants", "PYTHONPATH": str(self.top)}
        sys.path.insert(0, str(self.top))
        sys.dont_write_bytecode = True
        code = CRASHED
        try:
            code = work()
        except Exception:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _pytest(arguments: Sequence[str], *plugins: object) -> int:
    return int(pytest.main([*CONFIG, *arguments], plugins=plugins))


def _in_batches(tests: Sequence[str]) -> int:
    """Runs tests up to the first that fails. The files of later ones are not read before."""
    bounds = [0, *BATCHES, len(tests)]
    for start, end in itertools.pairwise(bounds):
        batch = tests[start:end]
        if batch and (code := _pytest(["-x", *{name.partition("::")[0] for name in batch}], Chosen(batch), Limit())):
            return code
    return 0


@dataclass(eq=False)
class Chosen:
    """Runs only these tests, in this order."""

    names: Sequence[str]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        by_name = {item.nodeid: item for item in items}
        items[:] = [by_name[name] for name in self.names if name in by_name]


class Limit:
    """Ends the process at a test that takes too long. To read the tests may take as long as one."""

    def pytest_configure(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)

    def pytest_runtest_logstart(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)


@dataclass(eq=False)
class Noting:
    """Writes for each test that passes its seconds, and the marked functions that it reaches."""

    file: Path
    now: set[str] = field(default_factory=set)
    read: dict[Path, set[str]] = field(default_factory=dict)
    found: dict[str, tuple[float, list[str]]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def pytest_configure(self) -> None:
        setattr(builtins, "REACHED", self.now)  # noqa: B010 -- mypy knows all attributes of builtins

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        self.now.clear()
        result = yield
        if isinstance(collector, pytest.Module):
            self.read[collector.path] = set(self.now)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.now.clear()
        start = time.process_time()
        result = yield
        self.found[item.nodeid] = (time.process_time() - start, sorted(self.now | self.read.get(item.path, set())))
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        found = {name: value for name, value in self.found.items() if name not in self.failed}
        self.file.write_text(json.dumps(found))


def those_that_reach(place: str, reached: Reached, most: float) -> list[str]:
    """The tests that may find a mutant of a function: the short ones first, of about the same length in any order.

    As many as take `most` seconds together.
    """
    names = [name for name, (_, functions) in reached.items() if place in functions]
    names.sort(key=lambda name: (int(math.log(reached[name][0] + 1e-3, 4)), zlib.crc32(name.encode())))
    ends = itertools.accumulate(reached[name][0] for name in names)
    return [name for name, end in zip(names, ends, strict=True) if end <= most]


def decided(results: Path) -> dict[str, Verdict]:
    """What is known of earlier runs, by the mutants' keys."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {entry["key"]: entry["verdict"] for entry in map(json.loads, lines)}


def reached_by_tests(tree: Tree, chosen: Sequence[Mutant], file: Path, tests: Sequence[str]) -> Reached:
    """What is kept of an earlier run, if it knows the functions; else the suite runs."""
    places = {mutant.place: mutant for mutant in chosen}
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"places": [], "tests": {}}
    if not set(places) <= set(kept["places"]):
        kept = {"places": list(places), "tests": tree.reached(places, tests)}
        file.write_text(json.dumps(kept))
    found: Reached = kept["tests"]
    return found


def run(chosen: Sequence[Mutant], results: Path, tests: Sequence[str], most: float) -> Iterator[tuple[Mutant, Verdict]]:
    """The verdicts, those of earlier runs first; each is kept as soon as it is there."""
    known = decided(results)
    yield from ((mutant, known[mutant.key]) for mutant in chosen if mutant.key in known)
    for module in IMPORTED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        reached = reached_by_tests(tree, mutants(), results.with_suffix(".reached.json"), tests)
        for mutant in chosen:
            if mutant.key in known:
                continue
            start = time.monotonic()
            able = those_that_reach(mutant.place, reached, most)
            verdict, by = tree.verdict(mutant, able)
            took = time.monotonic() - start
            print(f"{verdict:7} {took:4.0f} s of {len(able)} tests  {mutant}  {by}", flush=True)
            if verdict != "lives" or most == math.inf:
                entry = {"key": mutant.key, "verdict": verdict, "mutant": str(mutant), "by": by}
                with results.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
            yield mutant, verdict


def main() -> int:
    """The score; 1 if too many live, or one lives without a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those whose file's name has this in it")
    parser.add_argument("--shuffle", action="store_true", help="in any order: what is decided early is a sample")
    parser.add_argument("--tests", nargs="*", default=["tests"], help="what is the suite")
    parser.add_argument("--most", type=float, default=math.inf, help="seconds of tests; what lives is not kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what is decided; a fresh file starts anew")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    chosen = [mutant for mutant in mutants() if options.only in mutant.file]
    if options.shuffle:
        chosen.sort(key=lambda mutant: mutant.key)
    found = list(run(chosen, options.results, options.tests, options.most))
    alive = [mutant for mutant, verdict in found if verdict == "lives"]
    for mutant in alive:
        print(f"lives: {mutant}\n    {mutant.lives or 'WITHOUT A REASON'}")
    same = sum(bool(mutant.lives) for mutant in alive)
    score = 1 - (len(alive) - same) / (len(found) - same) if len(found) > same else 1.0
    print(f"{len(found)} mutants, {len(found) - len(alive)} found, {len(alive)} live, {same} of them are no mistake")
    print(f"score: {score:.1%}")
    return int(score < WANTED)


if __name__ == "__main__":
    sys.exit(main())
