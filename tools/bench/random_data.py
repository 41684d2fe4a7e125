"""Random data and parameters that are the same for the peers that share network dicts."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from cases import Case

Arrays = dict[str, np.ndarray]


def batch(case: Case) -> tuple[Arrays, Arrays]:
    """Arrays [B, T] or [B, T, .., F] and lengths [B], by data key."""
    generator = np.random.default_rng(1)
    arrays, lengths = {}, {}
    for key, longest in case.longest.items():
        lengths[key] = np.array(case.lengths(key), "int32")
        options = case.extern_data[key]
        shape = (case.batch, longest)
        if options.get("sparse"):
            arrays[key] = generator.integers(0, options["dim"], shape).astype("int32")
        else:
            arrays[key] = generator.normal(size=(*shape, *options.get("shape", (None, options["dim"]))[1:])).astype(
                "float32"
            )
    if case.labels is not None:
        arrays["classes"] = _with_blanks(generator, arrays["classes"], lengths["classes"], case.labels)
    return arrays, lengths


def _with_blanks(generator: np.random.Generator, labels: np.ndarray, lengths: np.ndarray, part: float) -> np.ndarray:
    """Labels [B, T] of which a part is not 0; none from the last frame on: RETURNN fails on masks in padding."""
    kept = (generator.random(labels.shape) < part) & (np.arange(labels.shape[1]) < lengths[:, None] - 1)
    return np.where(kept, labels, 0).astype("int32")


def parameter(name: str, shape: Sequence[int]) -> np.ndarray:
    """A parameter that depends on its name and shape alone."""
    width = (6.0 / sum(shape)) ** 0.5 if len(shape) > 1 else 0.1
    values = np.random.default_rng(zlib.crc32(name.encode())).uniform(-width, width, tuple(shape))
    return (values + (1.0 if name.endswith(("scale", "gamma", "period", "ratio_on")) else 0.0)).astype("float32")


def checksum(outputs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """One number for what a search outputs: arrays [B, T] with lengths [B], by layer. Sums the real frames."""
    total = 0.0
    for array, lengths in outputs.values():
        mask = np.arange(array.shape[1]) < lengths[:, None]
        total += float(np.sum(np.where(mask, array, 0), dtype="float64"))
    return total
