"""Cells of any nesting as NumPy programs: from a unit's config and parameters to its step on a single sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.cells.probing import Weights, sigmoid

Step = Callable[[np.ndarray], np.ndarray]
Masks = Mapping[str, np.ndarray]
"""What is kept, by the name of the draw below the layer's: [T, n], or [n] for all steps."""


class Stepper:
    """A cell with its states, which `step` changes. Those of cells inside have the name of the cell before theirs."""

    def __init__(self, unit: Any, weights: Weights, masks: Masks) -> None:
        self.spec: Mapping[str, Any] = {"class": "stack", "cells": unit} if isinstance(unit, list) else unit
        self.weights = weights
        self.masks = masks
        self.number = 0
        parts = self.spec.get("cells") or ([self.spec["cell"]] if "cell" in self.spec else [])
        names = [str(i) for i in range(len(parts))] if "cells" in self.spec else ["cell"]
        self.inside = [
            Stepper(part, _below(name, weights), _masks_below(name, masks))
            for name, part in zip(names, parts, strict=False)
        ]
        self.own: dict[str, np.ndarray] = {}

    def step(self, x: np.ndarray) -> np.ndarray:
        """The output at the next frame."""
        y: np.ndarray = getattr(self, f"_{self.spec['class']}")(x)
        self.number += 1
        return y

    def states(self) -> list[tuple[str, np.ndarray]]:
        """All states by their names, those of the cells inside first."""
        names = [str(i) for i in range(len(self.inside))] if self.spec["class"] == "stack" else ["cell"]
        inner = [
            (f"{name}/{key}", value)
            for name, one in zip(names, self.inside, strict=False)
            for key, value in one.states()
        ]
        return [*inner, *sorted(self.own.items())]

    def replace(self, name: str, value: np.ndarray) -> None:
        """Sets a state."""
        first, _, rest = name.partition("/")
        if rest:
            self.inside[0 if first == "cell" else int(first)].replace(rest, value)
        else:
            self.own[name] = value

    def _basicrnn(self, x: np.ndarray) -> np.ndarray:
        bias = self.weights["basic_rnn_cell/bias"]
        h = self.own.get("h", np.zeros(bias.shape))
        self.own["h"] = np.tanh(np.concatenate([x, h]) @ self.weights["basic_rnn_cell/kernel"] + bias)
        return self.own["h"]

    def _standardlstm(self, x: np.ndarray) -> np.ndarray:
        bias = self.weights["lstm_cell/bias"]
        size = len(bias) // 4
        h, c = (self.own.get(key, np.zeros(size)) for key in "hc")
        i, j, f, o = np.split(np.concatenate([x, h]) @ self.weights["lstm_cell/kernel"] + bias, 4)
        self.own["c"] = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
        self.own["h"] = sigmoid(o) * np.tanh(self.own["c"])
        return self.own["h"]

    def _timefrequencylstm(self, x: np.ndarray) -> np.ndarray:
        w, window, skip = self.weights, self.spec["feature_size"], self.spec["frequency_skip"]
        starts, size = range(0, len(x) - window + 1, skip), len(w["B"]) // 4
        before, after = (self.own.get(key, np.zeros((len(starts), size))) for key in "hc"), []
        for start, h, c in zip(starts, *before, strict=True):
            below = after[-1][0] if after else np.zeros(size)
            seen = np.concatenate([x[start : start + window], h, below])
            i, j, f, o = np.split(seen @ w["W"] + w["B"], 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
            after.append((sigmoid(o) * np.tanh(c), c))
        self.own["h"], self.own["c"] = map(np.stack, zip(*after, strict=True))
        return self.own["h"].ravel()

    def _stack(self, x: np.ndarray) -> np.ndarray:
        for one in self.inside:
            x = one.step(x)
        return x

    def _residual(self, x: np.ndarray) -> np.ndarray:
        y = self.inside[0].step(x)
        result: np.ndarray = {None: x + y, "x + 0.5 * y": x + 0.5 * y, "tf.maximum(x, y)": np.maximum(x, y)}[
            self.spec.get("residual_fn")
        ]
        return result

    def _highway(self, x: np.ndarray) -> np.ndarray:
        w = self.weights
        carry = sigmoid(x @ w["carry_w"] + w["carry_b"])
        is_coupled = self.spec.get("couple_carry_transform_gates", True)
        transform = 1 - carry if is_coupled else sigmoid(x @ w["transform_w"] + w["transform_b"])
        result: np.ndarray = x * carry + self.inside[0].step(x) * transform
        return result

    def _inputprojection(self, x: np.ndarray) -> np.ndarray:
        return self.inside[0].step(self._linear(x))

    def _outputprojection(self, x: np.ndarray) -> np.ndarray:
        return self._linear(self.inside[0].step(x))

    def _linear(self, x: np.ndarray) -> np.ndarray:
        z: np.ndarray = x @ self.weights["kernel"] + self.weights["bias"]
        return {None: lambda z: z, "relu": lambda z: np.maximum(z, 0)}[self.spec.get("activation")](z)

    def _device(self, x: np.ndarray) -> np.ndarray:
        return self.inside[0].step(x)

    def _intraattention(self, x: np.ndarray) -> np.ndarray:
        w = self.weights
        size = len(w["attn_output_projection/bias"])
        rows = self.own.get("memory", np.zeros((self.spec["attn_length"], size)))
        read = np.concatenate([x, self.own.get("context", np.zeros(size))]) @ w["kernel"] + w["bias"]
        y = self.inside[0].step(read)
        states = np.concatenate([np.ravel(value) for _, value in sorted(self.inside[0].states())])
        query = states @ w["attention/kernel"] + w["attention/bias"]
        scores = np.exp(np.tanh(rows @ w["attention/attn_w"] + query) @ w["attention/attn_v"])
        self.own["context"] = (scores / scores.sum()) @ rows
        joined = np.concatenate([y, self.own["context"]])
        output: np.ndarray = joined @ w["attn_output_projection/kernel"] + w["attn_output_projection/bias"]
        self.own["memory"] = np.concatenate([rows[1:], output[None]])
        return output

    def _dropout(self, x: np.ndarray) -> np.ndarray:
        inside = self.inside[0]
        y = self._drop("input", "input_dropout", x, inside.step)
        for name, value in inside.states():
            self._drop(
                f"state/cell/{name}", "state_dropout", value, lambda dropped, name=name: self._set(name, dropped)
            )
        return self._drop("output", "output_dropout", y, lambda dropped: dropped)

    def _set(self, name: str, value: np.ndarray) -> np.ndarray:
        self.inside[0].replace(name, value)
        return value

    def _drop(self, mask: str, rate: str, value: np.ndarray, use: Step) -> np.ndarray:
        kept = self.masks.get(mask)
        if kept is None:
            return use(value)
        return use(value * (kept if kept.ndim == 1 else kept[self.number]) / (1 - self.spec[rate]))


def outputs(unit: Any, weights: Weights, frames: Sequence[np.ndarray], masks: Masks | None = None) -> np.ndarray:
    """[T, n]: of a unit on one sequence."""
    stepper = Stepper(unit, weights, masks or {})
    return np.stack([stepper.step(x) for x in frames])


def _below(name: str, weights: Weights) -> Weights:
    return {key.removeprefix(f"{name}/"): value for key, value in weights.items() if key.startswith(f"{name}/")}


def _masks_below(name: str, masks: Masks) -> Masks:
    return {key.removeprefix(f"{name}/"): value for key, value in masks.items() if key.startswith(f"{name}/")}
