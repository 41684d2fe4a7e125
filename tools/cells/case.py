"""A recorded case: what another system's cell gave, and with respect to what its gradients were."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Constructor = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A case of a folder. Sequences have the batch axis first, whatever was recorded."""

    name: str
    system: str
    """tf, keras (of TensorFlow 1.15) or caffe2."""
    constructor: Constructor
    """The class of the cell, or what made it, with its options."""
    record: Mapping[str, Any]
    """All of the JSON."""
    arrays: Mapping[str, Array]

    @property
    def driver(self) -> str:
        """What ran the cell."""
        layer = self.record.get("layer") or {}
        return str(layer.get("name") or self.constructor.get("function") or "")

    @property
    def lengths(self) -> Array | None:
        """Those of the sequences [B]; None if all frames are real, or those in a mask with gaps."""
        mask = self.arrays.get("mask/in")
        if "lengths" in self.arrays or mask is None or self.has_gaps:
            return self.arrays.get("lengths")
        return np.asarray(mask.sum(1))

    @property
    def has_gaps(self) -> bool:
        """Whether frames are masked before the last that counts."""
        mask = self.arrays.get("mask/in")
        return mask is not None and bool((mask[:, 1:] > mask[:, :-1]).any())

    @property
    def real(self) -> Array | None:
        """The frames that count [B, T]; None: all."""
        if self.has_gaps:
            return self.arrays["mask/in"].astype(bool)
        if self.lengths is None:
            return None
        steps = self.record["time"]
        return np.arange(steps) < self.lengths[:, None]

    def keys(self, prefix: str) -> list[str]:
        """The keys of the arrays that begin so, in their order."""
        return [key for key in self.arrays if key.startswith(prefix)]

    def below(self, prefix: str) -> dict[str, Array]:
        """The arrays whose keys begin so, without that."""
        return {key.removeprefix(prefix): array for key, array in self.arrays.items() if key.startswith(prefix)}


def read_case(path: Path) -> Case:
    """The case of a JSON file, with the arrays beside it. Raises OSError, ValueError for a damaged one."""
    record = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if record.get("layout") == "time major":
        arrays = {key: _batch_major(key, array) for key, array in arrays.items()}
    system = "caffe2" if "affe2" in record["system"] else "keras" if "keras" in _class_name(record) else "tf"
    return Case(path.stem, system, record.get("constructor") or {}, record, arrays)


def _class_name(record: Mapping[str, Any]) -> str:
    return str((record.get("constructor") or {}).get("class", ""))


SEQUENCES = ("in/", "out/", "w/", "grad/in/", "mask/in")
STATES_OF_FRAMES = re.compile(r"state/(.*_all(_layer\d+)?|output_concat)")


def _batch_major(key: str, array: Array) -> Array:
    is_sequence = key.startswith(SEQUENCES) or STATES_OF_FRAMES.fullmatch(key)
    return array.swapaxes(0, 1) if is_sequence and array.ndim >= 2 else array


def cases_in(directory: Path) -> Iterator[Path]:
    """The JSON files of a folder and those below, by name."""
    return iter(sorted(directory.rglob("*.json")))
