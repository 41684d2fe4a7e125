"""Why a network that trains cannot be searched: every layer that is a reason, in place of what follows from it.

In search a loop is as long as its `end` says, and its labels are there once they are chosen. So a layer that reads the
target's frame of its step while training has the whole target in search, and what goes wrong there shows first in the
layers behind it. A layer that needs all steps at once is in a cycle with the choice, which training has not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from returnn_lite.config.diagnostics import Diagnostic
from returnn_lite.explain.cycles import BodyDependencies
from returnn_lite.explain.reasons import reason_to_stay
from returnn_lite.ir import Loop, walk
from returnn_lite.ir.body import needs_all_steps
from returnn_lite.ir.layer_reads import Read
from returnn_lite.ir.reachability import reachable
from returnn_lite.net.network import BuiltNetwork

PREFIX = "trains, but cannot be searched: "
WITHOUT_HINT = "A step of a search has one hypothesis of one sequence, with the labels that it chose itself."
Config = Mapping[str, Any]


def unsearchable(config: Config, trained: BuiltNetwork, found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """The mistakes of the search mode for a network that is right in training.

    Of those that follow from reading the target's frames, only the reads are left.
    """
    needed = {mistake: _needed_by(config, trained, layer_of(mistake.path)) for mistake in found}
    culprits = {
        path: read for path, read in _reads_of_steps(trained).items() if any(path in n for n in needed.values())
    }
    kept = [
        replace(mistake, hint=mistake.hint or WITHOUT_HINT)
        for mistake in found
        if not needed[mistake].intersection(culprits)
    ]
    return [_marked(one) for one in (*(_of_read(trained, path, read) for path, read in culprits.items()), *kept)]


def in_cycles_of_choices(built: BuiltNetwork) -> list[Diagnostic]:
    """Every layer that needs all steps at once and in each step what was chosen in the one before."""
    found = {}
    for node in walk(built.graph.nodes):
        if isinstance(node.op, Loop):
            body = BodyDependencies(node.op, built.layers)
            for vertex in _whole_in_cycle(body):
                layer = body.owners[vertex] or node.origin.layer
                reason = reason_to_stay(body, layer, vertex)
                message = f"'{layer}' needs all steps of the loop at once, which runs step by step: {reason.why}"
                found[layer] = built.mistake(layer, message, built.to_need_one_step(layer) or f"{reason.to_leave}.")
    return list(found.values())


def unsearchable_as_built(built: BuiltNetwork, found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """The mistakes that the passes found in a search that could be built, whose training is right."""
    return [_marked(mistake) for mistake in in_cycles_of_choices(built) or found]


def reads_of_targets(config: Config, searched: BuiltNetwork, without: Collection[str] = ()) -> dict[str, Read]:
    """The layers that read targets and that an output of the search needs, but for outputs `without` them. Where these
    are all outputs that there are without targets, the search works on data with targets only."""
    chosen = {path.split("/")[0] for path, record in searched.layers.items() if record.kind == "choice"}
    roots = chosen.intersection(searched.root_names).difference(without)
    inside = [path for path in searched.layers if path.split("/")[0] in roots]
    needed = _needed_by(config, searched, *roots, *inside)
    reads = ((path, read) for path in needed if path in searched.layers for read in searched.layers[path].reads)
    targets = _targets(searched)
    return dict(sorted((path, read) for path, read in reads if read.path in targets))


def layer_of(path: tuple[str | int, ...]) -> str:
    """The path in the network of the innermost layer on the way to a key of the config."""
    return "/".join(str(part) for part in path[1::2])


def _marked(mistake: Diagnostic) -> Diagnostic:
    return replace(mistake, message=f"{PREFIX}{mistake.message}")


def _of_read(trained: BuiltNetwork, path: str, read: Read) -> Diagnostic:
    name = f"'{read.path}'"
    choice = next(
        (f"'prev:{other.rpartition('/')[2]}'" for other in _choices(trained) if _loop(other) == _loop(path)), "a choice"
    )
    message = f"'{path}' reads the frame of its step of {name}, which is as long as the target; a search has no target"
    return trained.mistake(path, message, f"Read {choice}, the label that the search chose before, in place of it.")


def _targets(built: BuiltNetwork) -> set[str]:
    return {f"data:{key}" for key, entry in built.extern_data.entries.items() if not entry.available_for_inference}


def _choices(built: BuiltNetwork) -> Iterator[str]:
    return (path for path, record in built.layers.items() if record.kind == "choice")


def _loop(path: str) -> str:
    return path.rpartition("/")[0]


def _reads_of_steps(trained: BuiltNetwork) -> dict[str, Read]:
    """Layers in loops of the target's time, beside a choice, that read something of that time from outside."""
    loops = {node.origin.layer: node.op.over for node in walk(trained.graph.nodes) if isinstance(node.op, Loop)}
    times = {dim for key in _targets(trained) for dim in trained.extern_data.entries[key[5:]].type.dims}
    searched = {_loop(choice) for choice in _choices(trained)}
    return {
        path: read
        for path, record in trained.layers.items()
        for read in record.reads
        for loop in searched
        if path.startswith(f"{loop}/") and loops.get(loop) in times and record.kind != "choice"
        if not read.path.startswith(f"{loop}/") and loops[loop] in _dims(trained, read)
    }


def _dims(built: BuiltNetwork, read: Read) -> tuple[object, ...]:
    if read.path.startswith("data:") and read.path[5:] in built.extern_data.entries:
        return built.extern_data.entries[read.path[5:]].type.dims
    value = built.outputs.layers.get(read.path)
    return () if value is None else value.type.dims


def _whole_in_cycle(body: BodyDependencies) -> Iterator[int]:
    choices = set(body.choices)
    for index, vertex in enumerate(body.vertices):
        if needs_all_steps(vertex) and choices and body.way([index], {index}):
            yield index


def _needed_by(config: Config, built: BuiltNetwork, *layers: str) -> set[str]:
    """The layers and all that they need, also through the step before."""

    def needs(path: str) -> list[str]:
        reads = built.layers[path].reads if path in built.layers else ()
        return [*(read.path for read in reads), *_sources(config, path)]

    return set(reachable(layers, needs))


def _sources(config: Config, path: str) -> Iterator[str]:
    """The sources of a layer of a loop as the config names them: training has none of a choice, and no `end`."""
    options: Any = config
    for key in ("network", *"/unit/".join(path.split("/")).split("/")):
        options = options.get(key) if isinstance(options, Mapping) else None
    given = options.get("from", ()) if isinstance(options, Mapping) else ()
    for name in [given] if isinstance(given, str) else given:
        if isinstance(name, str):
            yield f"{_loop(path)}/{name.removeprefix('prev:')}".removeprefix("/")
