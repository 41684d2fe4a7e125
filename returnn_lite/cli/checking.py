"""`rnn.py check`: every mistake that can be found without running the config, each once and in the file's order."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from returnn_lite.cli.loading import LoadedConfig
from returnn_lite.cli.timing import TimedRun, table, timed_build
from returnn_lite.cli.timing import as_json as timed_as_json
from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.config.decode import meant_options
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.config.top_level import NETWORK_KEYS, WITHOUT_EFFECT, check_top_level
from returnn_lite.explain.searchability import reads_of_targets, unsearchable, unsearchable_as_built
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.passes.pipeline import PassRun


def check(loaded: LoadedConfig, as_json: bool, timing: bool = False) -> int:
    """Validates the config and types its network in every mode it can have; 0 if right, 2 with a line for each
    mistake. With `timing` also what building and each pass took."""
    examined = _examined(loaded)
    found = examined.mistakes
    if as_json and timing:
        timed = list(map(timed_as_json, examined.timed))
        print(json.dumps({"mistakes": list(map(_as_json, found)), "timing": timed}, indent=1, default=str))
    elif as_json:
        print_json(found)
    else:
        for diagnostic in found:
            print(diagnostic, file=sys.stderr)
        if not found:
            print(f"{loaded.file}: no mistakes found")
            if examined.unused:
                print(f"not used in any mode, so what they refer to was not checked: {', '.join(examined.unused)}")
            for note in examined.notes:
                print(note)
        if timing:
            print(table(examined.timed))
    return 2 if found else 0


def print_json(found: Sequence[Diagnostic]) -> None:
    """Prints mistakes for programs: a list, empty if there are none."""
    print(json.dumps([_as_json(diagnostic) for diagnostic in found], indent=1, default=str))


def mistakes(loaded: LoadedConfig) -> list[Diagnostic]:
    """Every mistake that can be found without running the config.

    What is wrong in several modes is reported once: of messages about the same key, those of the first mode count.
    """
    return _examined(loaded).mistakes


@dataclass(frozen=True)
class _Examined:
    """What was found in all modes: the mistakes, the layers that are built in no mode, what else a user may want to
    know, and what each compilation took."""

    mistakes: list[Diagnostic]
    unused: Sequence[str] = ()
    notes: Sequence[str] = ()
    timed: Sequence[TimedRun] = ()


def _examined(loaded: LoadedConfig) -> _Examined:
    found = [*_about_keys(loaded)]
    if {"network", "extern_data"} & _misspelt(loaded):
        return _Examined(sorted(found, key=_by_position))
    right: dict[str, BuiltNetwork] = {}
    timed: list[TimedRun] = []
    for mode in modes_of(loaded.data):
        wrong = _compiled(loaded, mode, right, timed)
        known = {one.path for one in found}
        found += [one for one in wrong if one.path not in known]
    unused = [built.unused for built in right.values()]
    in_no_mode = [name for name in unused[0] if all(name in others for others in unused)] if unused else []
    notes = list(_notes(loaded, right["search"])) if "search" in right else []
    return _Examined(sorted(dict.fromkeys(found), key=_by_position), in_no_mode, notes, timed)


def _compiled(
    loaded: LoadedConfig, mode: ModeName, right: dict[str, BuiltNetwork], timed: list[TimedRun]
) -> list[Diagnostic]:
    """The mistakes of one mode; without any, what was built is added to `right`. What ran is added to `timed`."""
    built = None

    def log(run: PassRun) -> None:
        timed.append(TimedRun(mode, run))

    try:
        building = functools.partial(build, locate=loaded.locate, functions=loaded.functions)
        built, run = timed_build(functools.partial(building, loaded.data, mode))
        log(run)
        if mode == loaded.data.get("task") == "train":
            built.require_objective()
        optimized(built, verify_each=False, log=log)
    except ConfigError as error:
        wrong = loaded.placed(error)
        if mode != "search" or "train" not in right:
            return wrong
        if built is not None:
            return unsearchable_as_built(built, wrong)
        return unsearchable(loaded.data, right["train"], wrong)
    right[mode] = built
    return []


def _notes(loaded: LoadedConfig, searched: BuiltNetwork) -> Iterator[str]:
    """Which layers make a search need the target, without which it has no output."""
    if not reads_of_targets(loaded.data, searched):
        return
    try:
        without = build(loaded.data, "search", targets=False, locate=loaded.locate, functions=loaded.functions)
    except ConfigError:
        return  # a choice that is told to read the target (cheating)
    for path, read in reads_of_targets(loaded.data, searched, without.root_names).items():
        place = searched.mistake(path, "").position
        where = f"{place}: " if place is not None else ""
        yield f"{where}can be searched only with data that has targets: '{path}' reads '{read.path}'"


def require_keys(loaded: LoadedConfig) -> None:
    """Raises ConfigError for mistakes in the keys beside the network, so that a run ignores none of them."""
    found = sorted(dict.fromkeys(_about_keys(loaded)), key=_by_position)
    if found:
        raise ConfigError(found)


def _about_keys(loaded: LoadedConfig) -> Iterator[Diagnostic]:
    """Mistakes in the keys beside the network."""
    from returnn_lite.engine.options import UNSUPPORTED, engine_mistakes, is_set

    is_set_here = functools.partial(is_set, loaded.data)
    known = _engine_keys()
    yield from check_top_level(loaded.data, known, UNSUPPORTED, is_set_here, loaded.locate, is_code=loaded.is_code)
    misspelt = _misspelt(loaded)
    for mistake in loaded.placed(ConfigError(engine_mistakes(loaded.data))):
        if not misspelt.intersection(mistake.path[:1]):
            yield mistake


def _engine_keys() -> list[str]:
    from returnn_lite.engine.options import OPTION_CLASSES

    return [field.name for cls in OPTION_CLASSES for field in dataclasses.fields(cls)]


def _misspelt(loaded: LoadedConfig) -> set[str]:
    """Keys that are missing and probably there under a wrong name."""
    return meant_options(loaded.data, sorted({*_engine_keys(), *NETWORK_KEYS, *WITHOUT_EFFECT})) - set(loaded.data)


def modes_of(config: Mapping[str, Any]) -> Sequence[ModeName]:
    """The compilations that make sense for a config: search only where something is to be searched."""
    is_searched = any(name == "choice" for name in _class_names(config.get("network")))
    return ("train", "eval", "search") if is_searched else ("train", "eval")


def _class_names(value: object) -> Iterator[object]:
    """Every value of a key `class`, at any depth."""
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, Mapping):
            yield current.get("class")
            stack.extend(current.values())


def _by_position(diagnostic: Diagnostic) -> tuple[str, int, int]:
    position = diagnostic.position
    return ("", 0, 0) if position is None else (position.file, position.line, position.col)


def _as_json(diagnostic: Diagnostic) -> dict[str, Any]:
    entry = dataclasses.asdict(diagnostic)
    entry["text"] = str(diagnostic)
    return entry
