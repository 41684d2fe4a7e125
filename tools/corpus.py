"""Published networks through returnn_lite: `python -m tools.corpus DIRECTORY [--run SECONDS] [--write FILE]`.

The directory holds one JSON file a network, `{"source": ..., "settings": {...}, "network": {...}}`, where the settings
are the keys of the config beside the network. Every network is built and optimised in each mode that it can have,
without TensorFlow; with `--run` those that pass take a training step and, where they choose, a search on random data,
each network in a process of its own that may take so many seconds.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from returnn_lite.cli.checking import modes_of
from returnn_lite.compiler import Network, build, optimized
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.dims import DimKind, Symbol
from returnn_lite.verification.comparison import random_feed

GROUPS = (
    "mistake in returnn_lite",
    "layer not there yet",
    "option not supported",
    "needs code of the config",
    "mistake in the network",
)
MADE_TAG = "<<stub:TFUtil.DimensionTag"
SIZE_FROM_FILE = 1000
"""In place of the size of a vocabulary that is not part of the config."""
NEEDS_CODE = re.compile(r"typed_value|typed_dict|get_config|Python config|callable|self\.|network\.")
NOT_SUPPORTED = re.compile(r"not supported|not available|no function|not allowed|cannot call|can't call|unknown option")


@dataclass(frozen=True)
class Refusal:
    """One mistake that was reported: what kind, the layer class that it is about, and the message without names."""

    group: str
    layer_class: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What became of a network: the refusals of each mode, and how it ran (None if it was not tried)."""

    file: str
    source: str
    refusals: Mapping[str, tuple[Refusal, ...]]
    seconds: float
    run: str | None = None

    @property
    def passes(self) -> bool:
        return not any(self.refusals.values())


def load(file: pathlib.Path) -> tuple[str, dict[str, Any]]:
    """Where a network comes from, and the config."""
    entry = json.loads(file.read_text("utf-8"))
    settings = _with_time_tags(entry["settings"], Symbol("time", DimKind.SPATIAL, None))
    settings = {key: value for key, value in settings.items() if value is not None}
    if "num_outputs" in settings:
        settings["num_outputs"] = _with_sizes(settings["num_outputs"])
    return entry["source"], {**settings, "network": entry["network"]}


def _with_time_tags(settings: Any, tag: Symbol) -> Any:
    """The settings with one dim in place of the dim tags that a config made in Python."""
    if isinstance(settings, Mapping):
        return {key: _with_time_tags(value, tag) for key, value in settings.items()}
    return tag if isinstance(settings, str) and settings.startswith(MADE_TAG) else settings


def _with_sizes(outputs: Any) -> Any:
    """`num_outputs` with a number for each size that the config read from a file."""
    if not isinstance(outputs, Mapping):
        return outputs
    return {key: _with_size(value) for key, value in outputs.items()}


def _with_size(entry: Any) -> Any:
    if isinstance(entry, list):
        return [entry[0] or SIZE_FROM_FILE, *entry[1:]]
    return {**entry, "dim": entry.get("dim") or SIZE_FROM_FILE} if isinstance(entry, Mapping) else entry


def check(file: pathlib.Path) -> Outcome:
    """Builds and optimises a network in every mode."""
    source, config = load(file)
    start = time.perf_counter()
    refusals = {mode: tuple(_refusals(config, mode)) for mode in modes_of(config)}
    return Outcome(file.name, source, refusals, time.perf_counter() - start)


def _refusals(config: Mapping[str, Any], mode: Any) -> Iterator[Refusal]:
    try:
        optimized(build(config, mode))
    except ConfigError as error:
        for diagnostic in error.diagnostics:
            yield refusal(config, diagnostic)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a network is what the table is about
        yield Refusal(GROUPS[0], "", f"{type(error).__name__}: {_without_names(str(error))}")


def refusal(config: Mapping[str, Any], diagnostic: Diagnostic) -> Refusal:
    """A diagnostic, with its group."""
    message = diagnostic.message
    if "there is no layer class" in message:
        return Refusal(GROUPS[1], "", message)
    text = f"{message} {diagnostic.hint}"
    group = GROUPS[3] if NEEDS_CODE.search(text) else GROUPS[2] if NOT_SUPPORTED.search(text) else GROUPS[4]
    return Refusal(group, _class_at(config, diagnostic.path), _without_names(message))


def _class_at(config: Any, path: Sequence[str | int]) -> str:
    """The class and the option of the innermost layer on the way to a key."""
    found, option = "", ""
    node = config
    for part in path:
        if isinstance(node, Mapping) and "class" in node:
            found, option = str(node["class"]), str(part)
        node = node.get(part) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping) and "class" in node:
        found, option = str(node["class"]), ""
    return f"{found}.{option}" if option else found


def _without_names(message: str) -> str:
    """The first line of a message with the names of layers and the sizes of dims taken out."""
    line = message.splitlines()[0] if message else ""
    line = re.sub(r"'[^']*[/:_0-9][^']*'", "'...'", line)
    line = re.sub(r"\{[^}]*\}", "{...}", line)
    return re.sub(r"\d+", "N", line)[:150]


# Running


def run_in_process(file: pathlib.Path, seconds: float) -> str:
    """How a training step and a search on random data end: "runs", "out of time", or the error."""
    command = [sys.executable, "-m", "tools.corpus", "--one", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "out of time"
    if done.returncode == 0:
        return "runs"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if not lines:
        return f"fails with exit code {done.returncode}"
    told = next((line for line in lines if "assertion failed" in line), lines[-1])
    return "data of these random lengths does not fit" if "lengths of" in told else f"fails: {_without_names(told)}"


def run_one(file: pathlib.Path) -> None:
    """A training step and, if the network chooses, a search, on one short random batch. Raises what they raise."""
    _, config = load(file)
    for mode in modes_of(config):
        if mode == "eval":
            continue
        network = Network(config, mode, True, "float32", {}, 1)
        built = build(config, mode)
        keys = [value.name for value in built.graph.inputs]
        feed, lengths = random_feed(built.extern_data.entries, keys, 2, seed=1)
        if mode == "train":
            values = network.gradients(feed, lengths)
        else:
            values = {name: out.value for name, out in network.run(feed, lengths).layers.items()}
        bad = [name for name, value in values.items() if value.dtype.kind == "f" and np.isnan(value).any()]
        if bad:
            raise ArithmeticError(f"{mode}: not a number in {', '.join(bad[:3])}")


# The table

HEAD = """\
Published networks
==================

Written by ``python -m tools.corpus DIRECTORY --write docs/corpus.rst``; do not edit. The networks are those of the
public repository *rwth-i6/returnn-experiments* that are plain data; they are no part of this repository. Each is built
and optimised in each of its modes without TensorFlow; *runs* says how many of those that pass take a training step,
and a search where they choose, on random data within the time limit. Sizes that a config reads from a file are 1000
here, and functions of a config are missing, so that expressions that call one are refused.

"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The results as a page of the documentation."""
    passed = [one for one in outcomes if one.passes]
    tried = [one for one in passed if one.run is not None]
    lines = [HEAD, "=================  =======", "Networks           Number", "=================  ======="]
    lines += [f"in all             {len(outcomes)}", f"pass every mode    {len(passed)}"]
    for mode in ("train", "eval", "search"):
        fit = [one for one in outcomes if mode in one.refusals]
        lines.append(f"pass {mode:<13} {sum(not one.refusals[mode] for one in fit)} of {len(fit)}")
    if tried:
        lines.append(f"run                {sum(one.run == 'runs' for one in tried)} of {len(tried)}")
    lines += [
        "=================  =======",
        "",
        f"Slowest check: {max(one.seconds for one in outcomes):.1f} seconds.",
        "",
    ]
    for group in GROUPS:
        lines += _group(group, outcomes)
    runs = collections.Counter(one.run for one in tried if one.run != "runs")
    if runs:
        lines += ["What did not run", "----------------", "", *(_item(str(text), n) for text, n in runs.most_common())]
    return "\n".join(lines).rstrip() + "\n"


def _group(group: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    counts: collections.Counter[Refusal] = collections.Counter()
    example: dict[Refusal, str] = {}
    for outcome in outcomes:
        for found in dict.fromkeys(one for refusals in outcome.refusals.values() for one in refusals):
            counts[found] += 1
            example.setdefault(found, outcome.file)
    rows = [(found, n) for found, n in counts.most_common() if found.group == group]
    if not rows:
        return
    title = group[0].upper() + group[1:]
    yield from (title, "-" * len(title), "", "Networks, refusal, and one of the networks.", "")
    for found, count in rows:
        about = f"{found.layer_class}: " if found.layer_class else ""
        yield _item(f"{about}{found.message} ({example[found]})", count)
    yield ""


def _item(text: str, count: int) -> str:
    escaped = re.sub(r"([*`|_\\])", r"\\\1", text)
    return f"- {count}: {escaped}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=pathlib.Path, help="where the networks are")
    parser.add_argument("--run", type=float, metavar="SECONDS", help="also run each, so many seconds at most")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="run only every Nth of those that pass")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", help="where the page goes; else it is printed")
    parser.add_argument("--match", default="", help="only files whose name or source holds this text")
    parser.add_argument("--one", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one is not None:
        run_one(given.one)
        return 0
    if given.directory is None:
        parser.error("the directory of the networks is missing")
    outcomes = [check(file) for file in _files(given.directory, given.match)]
    if not outcomes:
        parser.error(f"no networks in {given.directory}")
    if given.run is not None:
        outcomes = list(_with_runs(given.directory, outcomes, given.run, given.every))
    text = page(outcomes)
    if given.write is not None:
        given.write.write_text(text, "utf-8")
    else:
        print(text)
    return 0


def _files(directory: pathlib.Path, match: str) -> list[pathlib.Path]:
    files = sorted(directory.glob("*.json"))
    return [file for file in files if match in file.name or match in json.loads(file.read_text("utf-8"))["source"]]


def _with_runs(directory: pathlib.Path, outcomes: Sequence[Outcome], seconds: float, every: int) -> Iterator[Outcome]:
    """The outcomes, those of every so manieth network that passes with how it runs."""
    passed = [one for one in outcomes if one.passes]
    chosen = {one.file for one in passed[::every]}
    for outcome in outcomes:
        if outcome.file in chosen:
            run = run_in_process(directory / outcome.file, seconds)
            print(f"{outcome.file}: {run}", file=sys.stderr, flush=True)
            outcome = dataclasses.replace(outcome, run=run)
        yield outcome


if __name__ == "__main__":
    sys.exit(main())
