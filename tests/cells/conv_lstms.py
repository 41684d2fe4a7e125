"""Convolutional LSTMs in NumPy, one sequence at a time; networks with spatial dims."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import returnn_lite as rl

Array = NDArray[np.float64]
LENGTHS = (5, 3)
SHAPES = {1: (4,), 2: (4, 3), 3: (3, 2, 2)}
"""Spatial sizes, by how many there are."""


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x: Array) -> Array:
    return np.clip(0.2 * x + 0.5, 0, 1)


def convolved(
    x: Array, kernel: Array, strides: Sequence[int] = (), dilation: Sequence[int] = (), *, same: bool = True
) -> Array:
    """x [sizes.., in] with a kernel [sizes.., in, out], place by place; the odd zero of "same" is behind."""
    count = x.ndim - 1
    strides, dilation = strides or (1,) * count, dilation or (1,) * count
    reach = [(size - 1) * rate + 1 for size, rate in zip(kernel.shape, dilation, strict=False)]
    if same:
        places = [-(-n // stride) for n, stride in zip(x.shape, strides, strict=False)]
        total = [max((p - 1) * s + r - n, 0) for p, s, r, n in zip(places, strides, reach, x.shape[:-1], strict=True)]
        x = np.pad(x, [*((n // 2, n - n // 2) for n in total), (0, 0)])
    else:
        places = [-(-(n - r + 1) // stride) for n, r, stride in zip(x.shape[:-1], reach, strides, strict=True)]
    y = np.zeros((*places, kernel.shape[-1]))
    for place in itertools.product(*map(range, places)):
        for at in itertools.product(*map(range, kernel.shape[:-2])):
            seen = [p * s + a * d for p, s, a, d in zip(place, strides, at, dilation, strict=True)]
            y[place] += x[tuple(seen)] @ kernel[at]
    return y


def of_tensorflow(
    x: Array, params: Mapping[str, Array], *, forget_bias: float = 1.0, skip: bool = False, h: Array | None = None
) -> Array:
    """The outputs of one sequence [T, sizes.., in]: [x; h] is convolved at once."""
    kernel = params["kernel"]
    channels = kernel.shape[-1] // 4
    c = np.zeros((*x.shape[1:-1], channels))
    h = c if h is None else h
    outputs = []
    for frame in x:
        z = convolved(np.concatenate([frame, h], -1), kernel) + params.get("biases", 0)
        i, j, f, o = np.split(z, 4, -1)
        c = sigmoid(f + forget_bias) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(np.concatenate([h, frame], -1) if skip else h)
    return np.stack(outputs)


def of_keras(
    x: Array, params: Mapping[str, Array], *, gate: Any = sigmoid, act: Any = np.tanh, masks: Any = None, **options: Any
) -> Array:
    """The same with Keras' parameters; `masks` are those of x and of h, four each."""
    of_x, of_h = masks or ([1.0] * 4, [1.0] * 4)
    kernels = [np.split(params[name], 4, -1) for name in ("kernel", "recurrent_kernel")]
    biases = np.split(params.get("bias", np.zeros(params["kernel"].shape[-1])), 4, -1)
    outputs: list[Array] = []
    c: Any = 0.0
    for frame in x:
        i, f, g, o = (convolved(frame * of_x[k], kernels[0][k], **options) + biases[k] for k in range(4))
        if outputs:
            i, f, g, o = (z + convolved(outputs[-1] * of_h[k], kernels[1][k]) for k, z in enumerate((i, f, g, o)))
        c = gate(f) * c + gate(i) * act(g)
        outputs.append(gate(o) * act(c))
    return np.stack(outputs)


def source(count: int, features: int = 2) -> Array:
    return np.random.default_rng(count).normal(size=(2, 5, *SHAPES[count], features))


def data(count: int, features: int = 2) -> dict[str, Any]:
    return {"data": {"shape": (None, *SHAPES[count], features), "dim": features}}


def compiled(layers: Mapping[str, Any], extern_data: Mapping[str, Any], mode: str = "eval", **options: Any) -> Any:
    """A network whose parameters are drawn by the order of their names."""
    net = rl.compile(dict(layers), dict(extern_data), mode, behavior_version=21, dtype="float64", **options)
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(0.5 * np.random.default_rng(seed).normal(size=net.params[name].shape))
    return net


def below(net: Any, scope: str = "output/rec/") -> dict[str, Array]:
    return {name.removeprefix(scope): np.asarray(value, np.float64) for name, value in net.params.items()}
