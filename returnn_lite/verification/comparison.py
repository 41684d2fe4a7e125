"""Both compilations of a network on the same random data: how far each value is from the other's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from returnn_lite.compiled import LayerOutput, RunResult
from returnn_lite.compiler import Locate, ModeName, Network, build, nowhere
from returnn_lite.verification.random_batches import equal_dims, generator_of, random_feed

TOLERANCE = 1e-5
Array = NDArray[Any]


@dataclass(frozen=True)
class Difference:
    """The largest difference between two arrays, and what they have there; `where` are the indices. Of arrays whose
    shapes differ, `size` is infinite and the shapes stand in place of the values."""

    size: float
    optimized: object = None
    plain: object = None
    where: tuple[int, ...] = ()

    @property
    def is_one(self) -> bool:
        """True if it is larger than rounding explains."""
        return self.size > TOLERANCE


Differences = Mapping[str, Difference]
Compare = Callable[[Mapping[str, Any], ModeName], Differences]
"""Compares both compilations of a config in a mode."""


def compare(
    config: Mapping[str, Any],
    mode: ModeName,
    batch: int,
    functions: Mapping[str, Callable[..., object]] | None = None,
    seed: int = 1,
    network: Callable[..., Network] = Network,
    locate: Locate = nowhere,
) -> dict[str, Difference]:
    """The largest difference of each layer, loss and gradient between both compilations on random data, in float64.

    All layers are computed to be compared. What a search gives is compared "as decoded", too, where it is all that is
    computed.

    Random draws come from the seed, the place of the draw in the network and the step, so both compilations draw the
    same. Data and parameters depend on the seed and their names only, so those of a part of a network are the same.
    `network` compiles: it is `Network`, or something with a known mistake. Raises BatchError if the network needs
    lengths that random ones are not.
    """
    networks = [
        network(config, mode, optimize, "float64", functions or {}, seed, draws_by_step=True, locate=locate)
        for optimize in (True, False)
    ]
    for name, variable in networks[0].params.items():
        value = generator_of(seed, name).normal(0, 0.3, variable.shape)
        for one in networks:  # what is no number would be equal to what is no number, so variances are positive
            one.params[name].assign(np.abs(value) + 0.5 if "variance" in name else value)
    built = build(config, mode, functions=functions)
    keys = [value.name for value in built.graph.inputs]
    feed, lengths = random_feed(built.extern_data.entries, keys, batch, seed, equal_dims(built.graph))
    results = [one.run(feed, lengths) for one in networks]
    differences = _differences(*results)
    if mode == "search":
        decoded = networks[0].run(feed, lengths, built.root_names).layers
        for name, output in decoded.items():
            differences[f"{name} as decoded"] = largest_real(output, results[1].layers[name])
    if mode == "train" and built.outputs.objective is not None:
        gradients = [one.gradients(feed, lengths) for one in networks]
        for name, gradient in gradients[0].items():
            differences[f"gradient of {name}"] = largest(gradient, gradients[1][name])
    return differences


def _differences(optimized: RunResult, plain: RunResult) -> dict[str, Difference]:
    found = {name: largest_real(output, plain.layers[name]) for name, output in optimized.layers.items()}
    for name, loss in optimized.losses.items():
        for part in ("sum", "count", "error"):
            a, b = getattr(loss, part), getattr(plain.losses[name], part)
            if a is not None:
                found[f"loss {name} {part}"] = largest(np.asarray(a), np.asarray(b))
    return found


def largest_real(output: LayerOutput, other: LayerOutput) -> Difference:
    """The largest difference over real frames."""
    a, b = output.value, other.value
    if a.shape != b.shape:
        return largest(a, b)
    mask = np.ones(a.shape, bool)
    for name in output.seq_lens:
        if name in output.dims:
            axis = output.dims.index(name)
            frames = np.arange(a.shape[axis]).reshape([-1 if i == axis else 1 for i in range(a.ndim)])
            mask &= frames < _lengths_beside(output, name)
    return largest(np.where(mask, a, 0), np.where(mask, b, 0))


def _lengths_beside(output: LayerOutput, name: str) -> Array:
    """The lengths of a dim with the axes of the value. Without a dim that they vary over (`:i` has no batch) it has
    as many frames as the longest."""
    length, over = np.asarray(output.seq_lens[name]), output.seq_lens_dims[name]
    length = length.max(axis=tuple(i for i, dim in enumerate(over) if dim not in output.dims), initial=0)
    axes = [output.dims.index(dim) for dim in over if dim in output.dims]
    shape = [1] * output.value.ndim
    for axis, size in zip(axes, length.shape, strict=True):
        shape[axis] = size
    beside: Array = length.transpose(np.argsort(axes, kind="stable")).reshape(shape)
    return beside


def largest(a: Array, b: Array) -> Difference:
    """The largest difference of two arrays; what is not a number in both is equal."""
    if a.shape != b.shape:
        return Difference(float("inf"), f"shape {a.shape}", f"shape {b.shape}")
    if a.size == 0:
        return Difference(0.0)
    same = (a == b) | (np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else a == b
    with np.errstate(invalid="ignore"):  # of infinite values
        distance = np.where(same, 0.0, np.abs(a.astype("float64") - b.astype("float64")))
    distance = np.nan_to_num(distance, nan=np.inf)
    where = tuple(int(index) for index in np.unravel_index(distance.argmax(), distance.shape))
    return Difference(float(distance[where]), a[where].item(), b[where].item(), where)
