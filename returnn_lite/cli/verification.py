"""`rnn.py verify`: the promise checked on one config: optimised and unoptimised compilation give the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from returnn_lite.cli.checking import modes_of
from returnn_lite.cli.columns import columns
from returnn_lite.cli.loading import LoadedConfig
from returnn_lite.compiler import LayerOutput, ModeName, Network, RunResult, build
from returnn_lite.net.extern_data import DataEntry

TOLERANCE = 1e-5
Feed = dict[str, NDArray[Any]]


def verify(loaded: LoadedConfig, batch: int) -> int:
    """Compares outputs, losses and gradients of every mode in float64; 0 if they agree to 1e-5, else 1."""
    agree = True
    for mode in modes_of(loaded.data):
        differences = compare(loaded, mode, batch)
        agree &= _print_differences(mode, differences)
    return 0 if agree else 1


def _print_differences(mode: str, differences: Mapping[str, float]) -> bool:
    worst = max(differences.values(), default=0.0)
    largest = sorted(differences.items(), key=lambda item: -item[1])[:10]
    print(columns((mode, "largest difference"), [(name, f"{difference:.2e}") for name, difference in largest]))
    verdict = "equal" if worst <= TOLERANCE else "DIFFERENT"
    print(f"{mode}: {len(differences)} values compared, {verdict} (largest difference {worst:.2e})\n")
    return worst <= TOLERANCE


def compare(loaded: LoadedConfig, mode: ModeName, batch: int, seed: int = 1) -> dict[str, float]:
    """The largest difference of each layer, loss and gradient between both compilations on random data.

    Random draws come from the seed, the place of the draw in the network and the step, so both compilations draw the
    same.
    """
    networks = [
        Network(loaded.data, mode, optimize, "float64", loaded.functions, seed, draws_by_step=True)
        for optimize in (True, False)
    ]
    generator = np.random.default_rng(seed)
    for name, variable in networks[0].params.items():
        value = generator.normal(0, 0.3, variable.shape)
        for network in networks:
            network.params[name].assign(value)
    built = build(loaded.data, mode, locate=loaded.locate, functions=loaded.functions)
    feed, lengths = random_feed(
        built.extern_data.entries, [value.name for value in built.graph.inputs], batch, generator
    )
    results = [network.run(feed, lengths) for network in networks]
    differences = _differences(*results)
    if mode == "train" and "objective" in built.graph.outputs:
        gradients = [network.gradients(feed, lengths) for network in networks]
        for name, gradient in gradients[0].items():
            differences[f"gradient of {name}"] = _largest(gradient, gradients[1][name])
    return differences


def random_feed(
    entries: Mapping[str, DataEntry], keys: list[str], batch: int, generator: np.random.Generator
) -> tuple[Feed, Feed]:
    """Random arrays and lengths for data keys; keys that share a time dim get the same lengths."""
    lengths_of: dict[Any, NDArray[Any]] = {}
    feed: Feed = {}
    seq_lens: Feed = {}
    for key in keys:
        type_ = entries[key].type
        shape = []
        for dim in type_.dims:
            if dim.is_ragged:
                lengths = lengths_of.setdefault(dim, _random_lengths(batch, generator))
                seq_lens[key] = lengths
                shape.append(int(lengths.max()))
            else:
                shape.append(batch if dim.size is None else dim.size)
        if type_.sparse is not None:
            feed[key] = generator.integers(0, type_.sparse.size or 2, shape).astype("int32")
        else:
            feed[key] = generator.normal(0, 1, shape).astype(type_.dtype)
    return feed, seq_lens


def _random_lengths(batch: int, generator: np.random.Generator) -> NDArray[Any]:
    lengths = generator.integers(2, 8, batch).astype("int32")
    lengths[0] = 8
    return lengths


def _differences(optimized: RunResult, plain: RunResult) -> dict[str, float]:
    found = {}
    for name, output in optimized.layers.items():
        other = plain.layers[name]
        found[name] = _largest_real(output, other)
    for name, loss in optimized.losses.items():
        for part in ("sum", "count", "error"):
            a, b = getattr(loss, part), getattr(plain.losses[name], part)
            if a is not None:
                found[f"loss {name} {part}"] = abs(a - b)
    return found


def _largest_real(output: LayerOutput, other: LayerOutput) -> float:
    """The largest difference over real frames."""
    a, b = output.value, other.value
    if a.shape != b.shape:
        return float("inf")
    mask = np.ones(a.shape, bool)
    for name in output.seq_lens:
        if name in output.dims:
            axis = output.dims.index(name)
            frames = np.arange(a.shape[axis]).reshape([-1 if i == axis else 1 for i in range(a.ndim)])
            mask &= frames < _lengths_beside(output, name)
    return _largest(np.where(mask, a, 0), np.where(mask, b, 0))


def _lengths_beside(output: LayerOutput, name: str) -> NDArray[Any]:
    """The lengths of a dim with the axes of the value. Without a dim that they vary over (`:i` has no batch) it has
    as many frames as the longest."""
    length, over = np.asarray(output.seq_lens[name]), output.seq_lens_dims[name]
    length = length.max(axis=tuple(i for i, dim in enumerate(over) if dim not in output.dims), initial=0)
    axes = [output.dims.index(dim) for dim in over if dim in output.dims]
    shape = [1] * output.value.ndim
    for axis, size in zip(axes, length.shape, strict=True):
        shape[axis] = size
    return length.transpose(np.argsort(axes, kind="stable")).reshape(shape)


def _largest(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.size == 0:
        return 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else a == b
    difference = np.where(same, 0.0, np.abs(a.astype("float64") - b.astype("float64")))
    return float(np.nan_to_num(difference, nan=np.inf).max())
