"""What a comparison with RETURNN is made of: a network dict, its data, and where to look.

A case is plain data, so that the recorder (which runs RETURNN) and the comparison (which runs returnn_lite) read the
same. Inputs and parameters are drawn from seeds made of names: both sides, and any later run, see the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Net = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Tag:
    """A dim that a case names itself, where options want a Dim: each side makes its own object of it."""

    name: str
    size: int | None = None
    feature: bool = False


@dataclass(frozen=True)
class Formula:
    """A function of named arguments by the text of its result: there a function of tensors, here the text; with
    `as_function` a function on both sides."""

    text: str
    as_function: bool = False

    def function(self, tensorflow: Any) -> Callable[..., Any]:
        """The function. `tensorflow` is what its text calls tf."""
        code = compile(self.text, "formula", "eval")
        return lambda **arguments: eval(code, {"tf": tensorflow, **arguments})


def with_formulas(options: Any, make: Callable[[Formula], Any]) -> Any:
    """Nested options with each Formula replaced by what `make` returns."""
    if isinstance(options, Formula):
        return make(options)
    if isinstance(options, dict):
        return {key: with_formulas(value, make) for key, value in options.items()}
    if isinstance(options, list | tuple):
        return type(options)(with_formulas(value, make) for value in options)
    return options


def with_dims(options: Any, make: Callable[[Tag], Any]) -> Any:
    """Nested options with each Tag replaced by the dim that `make` returns, one object for equal tags."""
    made: dict[Tag, Any] = {}

    def replaced(item: Any) -> Any:
        if isinstance(item, Tag):
            if item not in made:
                made[item] = make(item)
            return made[item]
        if isinstance(item, dict):
            return {key: replaced(value) for key, value in item.items()}
        if isinstance(item, list | tuple):
            return type(item)(replaced(value) for value in item)
        return item

    return replaced(options)


# "frames" and "classes" share the decoder's time; "data" is the encoder's input.
EXTERN_DATA: dict[str, dict[str, Any]] = {
    "data": {"dim": 4},
    "frames": {"dim": 4},
    "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "frames"}},
}
LENGTHS: dict[str, tuple[int, ...]] = {"data": (6, 4, 5), "frames": (4, 3, 1), "classes": (4, 3, 1)}


@dataclass(frozen=True)
class Case:
    """One network on one batch.

    `layers` names what is compared ("rec/sub" is a sub-layer of a rec layer that is an output layer). `modes` are
    "train" (train flag set), "eval" and "search". `optimize` lists the values of RETURNN's optimize_move_layers_out to
    record. `batches` says how often the batch is run: the last time is compared, with what was kept of those before.
    `differs` says, where returnn_lite computes something else on purpose, what and why.
    """

    name: str
    network: Net
    layers: tuple[str, ...]
    extern_data: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: EXTERN_DATA)
    lengths: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: LENGTHS)
    modes: tuple[str, ...] = ("train", "eval")
    behavior_version: int = 21
    optimize: tuple[bool, ...] = (True,)
    differs: str = ""
    batches: int = 1


def rng(*names: str) -> np.random.Generator:
    """A generator that depends on nothing but the names."""
    return np.random.default_rng(zlib.crc32("|".join(names).encode()))


def draw_inputs(case: Case) -> dict[str, np.ndarray]:
    """Batch-major inputs with zeros in the padding, as RETURNN feeds them. Few digits, so that they can be stored."""
    inputs = {}
    for key, entry in case.extern_data.items():
        lengths = case.lengths[key]
        shape = tuple(entry.get("shape", (None,) if entry.get("sparse") else (None, entry["dim"])))
        full = (len(lengths), *(max(lengths) if size is None else size for size in shape))
        draw = rng("input", key)
        if entry.get("sparse"):
            values = draw.integers(0, entry["dim"], full).astype("int32")
        else:
            values = draw.standard_normal(full).round(3).astype("float32")
        if None in shape:
            for row, length in enumerate(lengths):
                values[row, length:] = 0
        inputs[key] = values
    return inputs


def draw_parameter(name: str, shape: Sequence[int]) -> np.ndarray:
    """A float32 parameter; variances are positive, everything else is around zero, not small. Few digits."""
    values = rng("param", name).uniform(-0.7, 0.7, tuple(shape)).round(3)
    if "variance" in name:
        values = np.abs(values) + 0.5
    return values.astype("float32")


def objective(source: str = "output") -> Net:
    """A loss for networks that have none, so that there is something to differentiate."""
    return {"objective": {"class": "activation", "activation": "tanh", "from": source, "loss": "as_is"}}
