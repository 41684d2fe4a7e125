"""Verbs that look at a config without running it: check, explain, summary, schema, show-config. None imports
TensorFlow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from returnn_lite.cli.loading import LoadedConfig
from returnn_lite.compiler import ModeName, build, optimized
from returnn_lite.config.compose import to_yaml
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.config.top_level import check_top_level
from returnn_lite.layers.schema import config_schema
from returnn_lite.passes.pipeline import optimize
from returnn_lite.passes.placement import placement


def check(loaded: LoadedConfig, as_json: bool) -> int:
    """Validates the config and types its network in every mode it can have; 0 if right, 2 with a line for each
    mistake."""
    found = diagnostics(loaded)
    if as_json:
        print(json.dumps([_as_json(diagnostic) for diagnostic in found], indent=1))
    else:
        for diagnostic in found:
            print(diagnostic, file=sys.stderr)
        if not found:
            print(f"{loaded.file}: no mistakes found")
    return 2 if found else 0


def diagnostics(loaded: LoadedConfig) -> list[Diagnostic]:
    """Every mistake that can be found without running the config, each once."""
    found: dict[Diagnostic, None] = dict.fromkeys(check_top_level(loaded.data, loaded.locate))
    for mode in modes_of(loaded):
        try:
            optimized(build(loaded.data, mode, locate=loaded.locate))
        except ConfigError as error:
            found.update(dict.fromkeys(error.diagnostics))
    return list(found)


def modes_of(loaded: LoadedConfig) -> Iterable[ModeName]:
    """The compilations that make sense for a config: search only where something is to be searched."""
    network = json.dumps(loaded.data.get("network"), default=str)
    return ("train", "eval", "search") if '"choice"' in network else ("train", "eval")


def _as_json(diagnostic: Diagnostic) -> dict[str, Any]:
    entry = asdict(diagnostic)
    entry["text"] = str(diagnostic)
    return entry


def explain(loaded: LoadedConfig, mode: ModeName, passes: bool, as_json: bool) -> int:
    """Prints for each layer where it is computed and why; with `passes` the IR after each pass that changes it."""
    built = build(loaded.data, mode, locate=loaded.locate)
    if passes:
        print(f"# as built\n{built.graph}\n")
        optimize(built.graph, observe=_print_pass)
        return 0
    graph = optimized(built)
    places = placement(built.graph, graph)
    if as_json:
        print(json.dumps({path: asdict(place) for path, place in places.items()}, indent=1, default=str))
        return 0
    table = Table("layer", "where", "reason", box=None, pad_edge=False)
    for path, place in places.items():
        table.add_row(path, place.where, place.reason)
    Console().print(table)
    if built.unused:
        print(f"not used in this mode: {', '.join(built.unused)}")
    return 0


def _print_pass(name: str, graph: object) -> None:
    print(f"# after {name}\n{graph}\n")


def summary(loaded: LoadedConfig, mode: ModeName) -> int:
    """Prints every layer with its type, and the parameters with their number."""
    built = build(loaded.data, mode, locate=loaded.locate)
    layers = Table("layer", "type", box=None, pad_edge=False)
    for name, value in built.graph.outputs.items():
        if name.startswith("layer:"):
            layers.add_row(name.removeprefix("layer:"), str(value.type).replace("[", "\\["))
    parameters = Table("parameter", "dims", "numbers", box=None, pad_edge=False)
    total = 0
    for name, parameter in built.parameters.items():
        size = 1
        for dim in parameter.dims:
            size *= dim.size or 0
        total += size
        frozen = "" if parameter.trainable else " (not trained)"
        parameters.add_row(name, " x ".join(str(dim.size) for dim in parameter.dims), f"{size}{frozen}")
    console = Console()
    console.print(layers)
    console.print(parameters)
    console.print(f"{len(built.parameters)} parameters, {total} numbers")
    return 0


def print_schema() -> int:
    """Prints the JSON schema (draft-07) of configs."""
    print(json.dumps(config_schema(), indent=1))
    return 0


def show_config(loaded: LoadedConfig) -> int:
    """Prints the config after composition and overrides, as YAML."""
    print(to_yaml(loaded.data), end="")
    return 0
