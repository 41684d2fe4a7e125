"""Verbs that look at a config without running it: explain, graph, summary, schema, show-config; no TensorFlow."""

from __future__ import annotations

import json
import pathlib
from dataclasses import asdict

from returnn_lite.cli.loading import LoadedConfig, UsageError
from returnn_lite.cli.timing import TimedRun, in_words, timed_build
from returnn_lite.cli.timing import as_json as timed_as_json
from returnn_lite.compiler import ModeName, build, needed_outputs, optimized
from returnn_lite.config.compose import to_yaml
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.schema import options_schema
from returnn_lite.explain.cells import lines_of_cells
from returnn_lite.explain.columns import columns
from returnn_lite.explain.drawing import svg_file
from returnn_lite.explain.page import page
from returnn_lite.explain.picture import picture
from returnn_lite.explain.placement import Place, placement
from returnn_lite.explain.recurrences import recurrences
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.net.schema import schema_of_configs
from returnn_lite.passes.errors import PassError
from returnn_lite.passes.pipeline import PassRun, optimize


def _built(loaded: LoadedConfig, mode: ModeName) -> BuiltNetwork:
    return build(loaded.data, mode, locate=loaded.locate, functions=loaded.functions)


def explain(loaded: LoadedConfig, mode: ModeName, passes: bool, as_json: bool, html: str | None = None) -> int:
    """Prints for each layer where it is computed and why, and the cells of units; with `passes` the IR after each pass
    that changes it, with numbers of nodes and CPU seconds.

    `html` names a file to which a page that draws this is written. Raises UsageError if it can't be.
    """
    if passes:
        return _explain_passes(loaded, mode, as_json)
    built = _built(loaded, mode)
    graph = optimized(built)
    places = placement(built.graph, graph, built.layers)
    if html is not None:
        title = f"{pathlib.Path(loaded.file).name} ({mode})"
        return _write(html, page(title, built.layers, places))
    if as_json:
        found = {path: {**asdict(place), **_cells_as_json(built, path)} for path, place in places.items()}
        print(json.dumps(found, indent=1, default=str))
        return 0
    rows = [
        (path, _where(place), "; ".join(filter(None, (place.reason, place.to_leave)))) for path, place in places.items()
    ]
    print(columns(("layer", "where", "reason"), rows))
    cells = [(path, *line) for path, layer in built.layers.items() for line in lines_of_cells(layer.cells)]
    if cells:
        print(columns(("layer", "inside", "cell", "states"), cells))
    if built.unused:
        print(f"not used in this mode: {', '.join(built.unused)}")
    return 0


def _cells_as_json(built: BuiltNetwork, path: str) -> dict[str, object]:
    cells = built.layers[path].cells
    shown = [{key: value for key, value in asdict(cell).items() if key not in ("at", "options_at")} for cell in cells]
    return {"cells": shown} if cells else {}


def explain_kernels(loaded: LoadedConfig, mode: ModeName, as_json: bool) -> int:
    """Prints for each recurrence which kernel it gets, on a CPU and on a GPU, and what keeps it from a faster one."""
    built = _built(loaded, mode)
    graph = optimized(built, keep=needed_outputs(built))

    def position(layer: str, below: tuple[str | int, ...]) -> str:
        return str(built.locate((*built.config_paths[layer], *below)) or "")

    found = recurrences(graph, built.layers, placement(built.graph, graph, built.layers), position)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    rows = [(one.name, one.kind, one.cpu, one.gpu, "; ".join(one.all_obstacles)) for one in found]
    print(columns(("recurrence", "cell", "CPU", "GPU", "what keeps it from a faster one"), rows))
    return 0


def draw_graph(loaded: LoadedConfig, mode: ModeName, file: str) -> int:
    """Writes a picture of the network as compiled to an SVG file. Raises UsageError if it can't be written."""
    built = _built(loaded, mode)
    places = placement(built.graph, optimized(built), built.layers)
    drawn = svg_file(picture(built.layers, places, "after"), places)
    return _write(file, drawn)


def _write(file: str, text: str) -> int:
    try:
        pathlib.Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{file}' can't be written: {error.strerror}") from error
    print(f"wrote {file}")
    return 0


def _where(place: Place) -> str:
    """`in output#1`, with the masks and the beams."""
    words = [f"in loop {place.loops[-1]}" if place.loops else place.where]
    words += [f"on mask {mask}" for mask in place.masks]
    words += [f"on beam {beam}" for beam in place.beams]
    return ", ".join(words)


def _explain_passes(loaded: LoadedConfig, mode: ModeName, as_json: bool) -> int:
    """Prints the IR as built and after each pass that changes it."""
    built, building = timed_build(lambda: _built(loaded, mode))
    stages = [(building, str(built.graph))]
    runs: list[PassRun] = []
    try:
        optimize(built.graph, observe=lambda _, graph: stages.append((runs[-1], str(graph))), log=runs.append)
    except PassError as error:
        raise ConfigError([built.refused(error)]) from error
    if as_json:
        shown = dict(stages)
        found = [{**timed_as_json(TimedRun(mode, run)), "ir": shown.get(run)} for run in (building, *runs)]
        print(json.dumps(found, indent=1))
        return 0
    for run, text in stages:
        heading = "as built" if run is building else f"after {run.name}"
        print(f"# {heading}: {in_words(run)}\n{text}\n")
    return 0


def summary(loaded: LoadedConfig, mode: ModeName) -> int:
    """Prints every layer with its type, and the parameters with their number."""
    built = _built(loaded, mode)
    layers = [(path, str(value.type)) for path, value in built.outputs.layers.items()]
    parameters = []
    total = 0
    stored = {name: parameter for name, parameter in built.parameters.items() if not parameter.kept}
    for name, parameter in stored.items():
        size = 1
        for dim in parameter.dims:
            size *= dim.size or 0
        total += size
        frozen = "" if parameter.trainable else " (not trained)"
        parameters.append((name, " x ".join(str(dim.size) for dim in parameter.dims), f"{size}{frozen}"))
    print(columns(("layer", "type"), layers))
    print(columns(("parameter", "dims", "numbers"), parameters))
    print(f"{len(stored)} parameters, {total} numbers")
    return 0


def print_schema() -> int:
    """Prints the JSON schema (draft-07) of configs."""
    from returnn_lite.engine.options import OPTION_CLASSES

    keys = {name: schema for cls in OPTION_CLASSES for name, schema in options_schema(cls).items()}
    print(json.dumps(schema_of_configs(keys), indent=1))
    return 0


def show_config(loaded: LoadedConfig) -> int:
    """Prints the config after composition and overrides, as YAML."""
    print(to_yaml(loaded.data), end="")
    return 0
