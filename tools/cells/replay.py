"""Replays recorded cases of other systems' cells, and compares outputs, final states and all gradients.

    python -m tools.cells.replay DIRECTORY [--through rec|rnn_cell|plain] [--match REGEX]

Prints a line for each case with the largest deviation of outputs, states and gradients. The exit code is 0 if all are
within the tolerance of the records: outputs and states 5e-6 + 1e-5 of the value, gradients 2e-5 + 1e-4.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from returnn_lite.compiler import Compiled, build, optimized
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from tools.cells.case import Array, Case, cases_in, read_case
from tools.cells.draws import given_masks
from tools.cells.layouts.table import masks, ours, state_keys
from tools.cells.networks import THROUGH, config_of

OUTPUTS, GRADIENTS = (5e-6, 1e-5), (2e-5, 1e-4)
"""Absolute and relative tolerance."""


@dataclass(frozen=True)
class Deviations:
    """The largest ones, as parts of what is allowed: up to 1 is equal."""

    outputs: float = 0.0
    states: float = 0.0
    gradients: float = 0.0
    missing: str = ""
    """Why there is nothing to compare."""

    @property
    def is_equal(self) -> bool:
        return not self.missing and max(self.outputs, self.states, self.gradients) <= 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.cells.replay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--through", choices=THROUGH, action="append", help="default: all")
    parser.add_argument("--match", default="", help="only cases whose name this regular expression finds")
    options = parser.parse_args(argv)
    paths = [path for path in cases_in(options.directory) if re.search(options.match, path.stem)]
    if not paths:
        print(f"{options.directory}: there are no cases", file=sys.stderr)
        return 2
    bad = 0
    for path in paths:
        case = read_case(path)
        for through in options.through or THROUGH:
            found = replayed(case, through)
            bad += not found.is_equal
            print(line_of(case, through, found), flush=True)
    print(f"{len(paths)} cases, {bad} not equal")
    return 1 if bad else 0


def line_of(case: Case, through: str, found: Deviations) -> str:
    """A line of the report; deviations are parts of the tolerance."""
    head = f"{'ok ' if found.is_equal else 'OFF'} {case.name} {through}:"
    if found.missing:
        return f"{head} {found.missing}"
    return f"{head} outputs {found.outputs:.2g} states {found.states:.2g} gradients {found.gradients:.2g}"


def replayed(case: Case, through: str) -> Deviations:
    """What a case gives here, against what was recorded."""
    try:
        return _compared(case, through)
    except ConfigError as error:
        return Deviations(missing=str(error))


def _compared(case: Case, through: str) -> Deviations:
    keys = state_keys(case.system, case.constructor)
    states = _by_key(case, keys, case.below("state0/"))
    config = config_of(case, keys, states, through)
    built = build(config, "train")
    compiled = Compiled(built, optimized(built, through != "plain"))
    outputs, gradients = Run(case, compiled, keys, states, through == "rnn_cell").results()
    expected = _by_key(case, keys, case.below("state/"))
    return Deviations(
        _largest([(outputs["output"], case.arrays["out/y"])], OUTPUTS, case.lengths),
        _largest([(outputs[key], expected[key]) for key in expected], OUTPUTS),
        _largest([(gradients[key], array) for key, array in case.below("grad/").items()], GRADIENTS),
    )


def _by_key(case: Case, keys: list[str], recorded: Mapping[str, Array]) -> dict[str, Array]:
    """Recorded states under our keys, by their order; one that is all of them joined is cut."""
    leaves = list(recorded.values())
    if len(leaves) in (0, len(keys)):
        return dict(zip(keys, leaves, strict=False))
    sizes = [one.get("size") for one in case.record.get("states", [])] or [leaves[0].shape[-1] // len(keys)] * len(keys)
    ends = np.cumsum(sizes)[:-1]
    return dict(zip(keys, np.split(leaves[0], ends, axis=-1), strict=True))


def _largest(pairs: list[tuple[Array, Array]], tolerance: tuple[float, float], lengths: Array | None = None) -> float:
    """The largest deviation of pairs of ours and theirs, as a part of the tolerance; of frames up to the lengths."""
    worst = 0.0
    for mine, theirs in pairs:
        if mine.shape != theirs.shape:
            return float("inf")
        off = np.abs(mine - theirs) / (tolerance[0] + tolerance[1] * np.abs(theirs))
        if lengths is not None:
            frames = np.arange(off.shape[1]) < lengths[:, None]
            off = off * frames.reshape(frames.shape + (1,) * (off.ndim - 2))
        worst = max(worst, float(np.max(off, initial=0.0)))
    return worst if np.isfinite(worst) else float("inf")


class Run:
    """One case in TensorFlow: the network, and the objective of the records."""

    def __init__(
        self, case: Case, compiled: Compiled, keys: list[str], states: Mapping[str, Array], in_loop: bool
    ) -> None:
        self.case = case
        self.in_loop = in_loop
        self.compiled = compiled
        self.keys = keys
        self.states = states

    def results(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Outputs and final states by our keys, and gradients by the records' keys."""
        case, executable = self.case, self.compiled.executable
        recorded = {key: tf.constant(array) for key, array in case.below("param/").items()}
        with tf.GradientTape() as tape:
            tape.watch(list(recorded.values()))
            mine = self._named(ours(case.system, case.constructor, recorded))
        for name, value in mine.items():
            executable.params[name].assign(value)
        batch = self.compiled.checked_batch(*self._data())
        feeds, lengths = executable._fed(batch.arrays, batch.lengths)
        found, of_parameters, of_feeds = self._run(feeds, lengths, list(mine))
        back = tape.gradient(list(mine.values()), recorded, list(of_parameters), tf.UnconnectedGradients.ZERO)
        gradients = {f"param/{key}": np.asarray(value) for key, value in back.items()}
        gradients["in/x"] = of_feeds["data"]
        of_states = {key: of_feeds[f"state0_{i}"] for i, key in enumerate(self.keys) if key in self.states}
        for theirs, own in zip(case.below("state0/"), self._joined(of_states), strict=True):
            gradients[f"state0/{theirs}"] = own
        return found, gradients

    def _joined(self, by_key: Mapping[str, Array]) -> list[Array]:
        """States as they were recorded: one by one, or all in one."""
        values = [by_key[key] for key in self.keys if key in by_key]
        count = len(self.case.below("state0/"))
        return values if len(values) == count else [np.concatenate(values, axis=-1)]

    def _data(self) -> tuple[dict[str, Array], dict[str, Any]]:
        data = {"data": self.case.arrays["in/x"]}
        data |= {f"state0_{i}": self.states[key] for i, key in enumerate(self.keys) if key in self.states}
        frames = data["data"].shape[1]
        lengths = self.case.lengths
        return data, {"data": [frames] * len(data["data"]) if lengths is None else lengths}

    def _named(self, below_cell: Mapping[str, Any]) -> dict[str, Any]:
        """Our parameters by their full names. Raises ConfigError where they are not those that there are."""
        known = self.compiled.executable.params
        scope = "output/rec/output/rec/" if self.in_loop else "output/rec/"
        found = {scope + name: value for name, value in below_cell.items()}
        if set(found) != set(known):
            message = f"the parameters are {', '.join(known)}, not {', '.join(found)}"
            raise ConfigError([Diagnostic(None, (), message, "Mend the layout.")])
        return found

    def _run(
        self, feeds: Mapping[str, tf.Tensor], lengths: Mapping[str, tf.Tensor], names: list[str]
    ) -> tuple[dict[str, Array], list[Array], dict[str, Array]]:
        executable, graph = self.compiled.executable, self.compiled.graph
        sought = {"output": "layer:output"}
        prefix = "layer:output/" if self.in_loop else "layer:"
        sought |= {key: f"{prefix}state_{i}" for i, key in enumerate(self.keys)}

        @tf.function(autograph=False)
        def body(feeds: Mapping[str, tf.Tensor], lengths: Mapping[str, tf.Tensor], weights: tf.Tensor) -> Any:
            results = executable.call(feeds, lengths, tf.constant(1))
            raws = {key: results.outputs[name].in_order(graph.axes(name)) for key, name in sought.items()}
            output = raws["output"]
            real = weights[:, : tf.shape(output)[1]]
            objective = tf.reduce_sum(tf.where(real != 0, output * real, 0.0))
            variables = [executable.params[name] for name in names]
            back = tf.gradients(objective, [*variables, *feeds.values()], unconnected_gradients="zero")
            return raws, back

        recorded = {name: mask for name, mask in self.case.below("mask/").items() if name != "in"}
        with given_masks(masks(self.case.system, self.case.constructor, recorded), executable.batch):
            raws, back = body(feeds, lengths, tf.constant(self._weights()))
        arrays = {key: np.asarray(value) for key, value in raws.items()}
        arrays["output"] = _padded(arrays["output"], self.case.arrays["out/y"].shape[1])
        if self.in_loop:
            arrays |= {key: self._last(key, arrays[key]) for key in self.keys}
        gradients = [np.asarray(tf.convert_to_tensor(value)) for value in back]
        of_feeds = dict(zip(feeds, gradients[len(names) :], strict=True))
        return arrays, gradients[: len(names)], of_feeds

    def _weights(self) -> Array:
        """Of the objective, 0 beyond the lengths."""
        weights, lengths = self.case.arrays["w/y"], self.case.lengths
        if lengths is None:
            return weights
        frames = np.arange(weights.shape[1]) < lengths[:, None]
        return weights * frames.reshape(frames.shape + (1,) * (weights.ndim - 2)).astype(weights.dtype)

    def _last(self, key: str, frames: Array) -> Array:
        """The state after each sequence's last frame: that before the first for an empty one."""
        count = [frames.shape[1]] * len(frames) if self.case.lengths is None else self.case.lengths
        first = self.states.get(key, np.zeros((len(frames), *frames.shape[2:])))
        return np.stack([frames[b, n - 1] if n else first[b] for b, n in enumerate(count)])


def _padded(array: Array, frames: int) -> Array:
    return np.pad(array, [(0, 0), (0, frames - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])


if __name__ == "__main__":
    sys.exit(main())
