"""RETURNN's learning-rate file: for each epoch its learning rate and the scores and errors that it reached.

The file is a Python dict, ``{1: EpochData(learningRate=0.001, error={'dev_score': 1.5, ...}), ...}``. It is read as
data (numbers, strings and this one name), never evaluated.
"""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.files import write_text


class LearningRateFileError(EngineError):
    """A learning-rate file that cannot be read."""


@dataclass(frozen=True)
class EpochRecord:
    """What is known of an epoch. Error keys are ``train_score``, ``dev_error``, ... with ``_<loss>`` if several."""

    learning_rate: float
    errors: Mapping[str, float] = field(default_factory=dict)


def read_learning_rates(path: str | os.PathLike[str]) -> dict[int, EpochRecord]:
    """The records of a file by epoch. Raises LearningRateFileError naming the file if it is not in that form."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8").strip(), mode="eval").body
        if not isinstance(tree, ast.Dict):
            raise ValueError("it is not a dict")
        return {_epoch(key): _record(value) for key, value in zip(tree.keys, tree.values, strict=True)}
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else error
        raise LearningRateFileError(
            f"learning-rate file '{path}' cannot be read: {where}. Repair it, or remove it to begin with the rates of "
            "the config"
        ) from error


def write_learning_rates(path: str | os.PathLike[str], records: Mapping[int, EpochRecord]) -> None:
    """Writes a file that RETURNN reads too; an existing one is replaced as a whole."""
    lines = []
    for epoch, record in sorted(records.items()):
        errors = "".join(f"{key!r}: {value!r},\n" for key, value in sorted(record.errors.items()))
        content = f"{{\n{errors}}}" if errors else "{}"
        lines.append(f"{epoch}: EpochData(learningRate={record.learning_rate!r}, error={content}),\n")
    write_text(path, "{\n" + "".join(lines) + "}\n")


def _record(node: ast.expr) -> EpochRecord:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "EpochData"):
        raise ValueError(f"line {node.lineno}: expected EpochData(...)")
    given = dict(zip(("learningRate", "error"), node.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
    errors = given.get("error", ast.Dict([], []))
    if "learningRate" not in given or not isinstance(errors, ast.Dict):
        raise ValueError(f"line {node.lineno}: expected EpochData(learningRate=..., error={{...}})")
    found = {}
    for key, value in zip(errors.keys, errors.values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            raise ValueError(f"line {node.lineno}: error keys are strings")
        if not key.value.startswith(":meta:"):
            found[key.value] = _number(value)
    return EpochRecord(_number(given["learningRate"]), found)


def _epoch(node: ast.expr | None) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    raise ValueError(f"line {getattr(node, 'lineno', 1)}: expected the number of an epoch")


def _number(node: ast.expr | None) -> float:
    """A number, with a sign, or nan or inf."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand)
    if isinstance(node, ast.Name) and node.id in ("nan", "inf"):
        return math.nan if node.id == "nan" else math.inf
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    raise ValueError(f"line {getattr(node, 'lineno', 1)}: expected a number")
