"""Recorded measurements: how they are stored, and one array in the order that returnn_lite uses.

A record is stored in two forms: the recorder's (an .npz beside a .json, everything measured) and the suite's (plain
JSON with rounded numbers, several cases a file, so that the tests need neither RETURNN nor the recorder's folder).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, Formula, Tag, with_dims, with_formulas

Arrays = dict[str, np.ndarray]
VERSIONS = "versions.json"
"""Beside the records: what they were made with."""
TAG = "<dim>"
"""What stands for a Tag in JSON: a dict with this key."""
FORMULA = "<formula>"
"""Likewise, for a Formula."""


@dataclass(frozen=True)
class Run:
    """One case in one mode with RETURNN's loop optimiser on or off.

    `axes` describes the axes of each layer's array as RETURNN laid it out: kind, and `varies_over` for a dynamic one
    (the positions of the axes its lengths in `sizes` vary over). `error` is RETURNN's message if it could not run.
    """

    layers: Arrays
    axes: Mapping[str, list[dict[str, Any]]]
    beams: Mapping[str, int | None]
    sizes: Mapping[tuple[str, int], np.ndarray]
    scores: Arrays
    losses: Mapping[str, float]
    gradients: Arrays
    objective: float | None
    error: str = ""


@dataclass(frozen=True)
class Record:
    """All runs of a case by "mode/on" or "mode/off", with what went in."""

    case: Case
    inputs: Arrays
    parameters: Arrays
    runs: Mapping[str, Run]

    def reference(self, mode: str) -> Run | None:
        """What to compare with: RETURNN as its users run it, or else without its loop optimiser."""
        for key in (f"{mode}/on", f"{mode}/off"):
            if key in self.runs and not self.runs[key].error:
                return self.runs[key]
        return None


def _below(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _run(arrays: Arrays, meta: Mapping[str, Any]) -> Run:
    layers = meta.get("layers", {})
    sizes = {}
    for key, value in _below(arrays, "size/").items():
        name, _, axis = key.rpartition("/")
        sizes[name, int(axis)] = value
    objective = arrays.get("objective")
    return Run(
        layers=_below(arrays, "layer/"),
        axes={name: layer["axes"] for name, layer in layers.items()},
        beams={name: layer["beam"] for name, layer in layers.items()},
        sizes=sizes,
        scores=_below(arrays, "scores/"),
        losses={key: float(value) for key, value in _below(arrays, "loss/").items()},
        gradients=_below(arrays, "grad/"),
        objective=None if objective is None else float(objective),
        error=meta.get("error", ""),
    )


def load(case: Case, folder: Path) -> Record:
    """A record as the recorder wrote it."""
    meta = json.loads((folder / f"{case.name}.json").read_text())
    with np.load(folder / f"{case.name}.npz") as stored:
        arrays = dict(stored)
    runs = {key: _run(_below(arrays, f"{key}/"), run) for key, run in meta["runs"].items()}
    return Record(case, _below(arrays, "input/"), _below(arrays, "param/"), runs)


def plain(array: np.ndarray) -> Any:
    """Nested lists; floats with five digits, none behind the fifth decimal: ten times finer than what is compared."""
    if array.dtype.kind == "f":
        return np.array([round(float(f"{x:.5g}"), 5) for x in array.ravel()]).reshape(array.shape).tolist()
    return array.tolist()


def to_plain(record: Record) -> dict[str, Any]:
    """A record as plain data: of each mode only the reference."""
    case = record.case
    result: dict[str, Any] = {
        "name": case.name,
        "network": as_plain(case.network),
        "layers": list(case.layers),
        "extern_data": case.extern_data,
        "lengths": {key: list(value) for key, value in case.lengths.items()},
        "behavior_version": case.behavior_version,
        **({"batches": case.batches} if case.batches > 1 else {}),
        "parameters": {name: plain(value) for name, value in record.parameters.items()},
        "runs": {},
    }
    for mode in case.modes:
        run = record.reference(mode)
        if run is None:
            continue
        result["runs"][mode] = {
            "layers": {
                name: {
                    "values": plain(value),
                    "dtype": str(value.dtype),
                    "beam": run.beams[name],
                    "axes": [_only(axis, "kind", "varies_over") for axis in run.axes[name]],
                    "sizes": {str(i): size.tolist() for (layer, i), size in run.sizes.items() if layer == name},
                }
                for name, value in run.layers.items()
            },
            "scores": {name: plain(value) for name, value in run.scores.items()},
            "losses": {key: float(f"{value:.7g}") for key, value in run.losses.items()},
            "objective": None if run.objective is None else float(f"{run.objective:.7g}"),
            "gradients": {name: plain(value) for name, value in run.gradients.items()},
        }
    return result


def _only(mapping: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: mapping[key] for key in keys if key in mapping}


def as_plain(network: Any) -> Any:
    """Nested options as JSON knows them, each Tag and each Formula a dict."""
    tagged = with_dims(network, lambda tag: {TAG: [tag.name, tag.size, tag.feature]})
    tagged = with_formulas(tagged, lambda formula: {FORMULA: [formula.text, formula.as_function]})
    return json.loads(json.dumps(tagged))


def _with_tags(item: Any) -> Any:
    """The inverse of what `to_plain` does with the tags and formulas in options."""
    if isinstance(item, Mapping):
        if FORMULA in item:
            return Formula(*item[FORMULA])
        return Tag(*item[TAG]) if TAG in item else {key: _with_tags(value) for key, value in item.items()}
    return [_with_tags(value) for value in item] if isinstance(item, list) else item


def from_plain(data: Mapping[str, Any], inputs: Arrays) -> Record:
    """The inverse of `to_plain`; the inputs are stored once a file."""
    case = Case(
        name=data["name"],
        network=_with_tags(data["network"]),
        layers=tuple(data["layers"]),
        extern_data=data["extern_data"],
        lengths={key: tuple(value) for key, value in data["lengths"].items()},
        modes=tuple(data["runs"]),
        behavior_version=data["behavior_version"],
        batches=data.get("batches", 1),
    )
    runs = {}
    for mode, run in data["runs"].items():
        layers = run["layers"]
        runs[f"{mode}/on"] = Run(
            layers={name: np.array(layer["values"], layer["dtype"]) for name, layer in layers.items()},
            axes={name: layer["axes"] for name, layer in layers.items()},
            beams={name: layer["beam"] for name, layer in layers.items()},
            sizes={(n, int(i)): np.array(size) for n, layer in layers.items() for i, size in layer["sizes"].items()},
            scores={name: np.array(value, "float32") for name, value in run["scores"].items()},
            losses=run["losses"],
            gradients={name: np.array(value, "float32") for name, value in run["gradients"].items()},
            objective=run["objective"],
        )
    parameters = {name: np.array(value, "float32") for name, value in data["parameters"].items()}
    return Record(case, {key: inputs[key] for key in case.extern_data}, parameters, runs)


def load_plain(path: Path) -> Iterator[Record]:
    """The records of one of the suite's files."""
    data = json.loads(path.read_text(), object_hook=_with_numbers)
    for entry in data["cases"]:
        yield from_plain(entry, _inputs(entry, data["inputs"]))


def _with_numbers(data: dict[str, Any]) -> dict[str | int, Any]:
    """A dict whose keys may be numbers, such as places of axes: JSON makes strings of them."""
    return {int(key) if key.isdecimal() else key: value for key, value in data.items()}


def _inputs(entry: Mapping[str, Any], shared: Mapping[str, Any]) -> Arrays:
    """The file's shared inputs, or the case's own where its batch differs."""
    inputs = {}
    for key, options in entry["extern_data"].items():
        values = entry.get("inputs", {}).get(key, shared.get(key))
        inputs[key] = np.array(values, "int32" if options.get("sparse") else "float32")
    return inputs


def load_suite(folder: Path) -> dict[str, Record]:
    """All records of the suite by the names of their cases."""
    return {record.case.name: record for path in sorted(folder.glob("*.json")) for record in load_plain(path)}


def find_record(case: Case, folders: Sequence[Path], suite: Mapping[str, Record]) -> Record | None:
    """The record in the first folder that has one, or that of the test suite if it is of the same network."""
    for folder in folders:
        if (folder / f"{case.name}.json").exists():
            return load(case, folder)
    kept = suite.get(case.name)
    if kept is None or as_plain(kept.case.network) != as_plain(case.network):
        return None
    return replace(kept, case=case)
