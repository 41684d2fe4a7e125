"""Scores and errors of many batches: sums over frames divided by the number of frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from returnn_lite.net.outputs import LossParts

Numbers = Mapping[str, Mapping[str, Any]]
_KINDS = {"score": ("sum", "count"), "error": ("error", "error_count")}


def as_numbers(losses: Mapping[str, LossParts[tf.Tensor]]) -> dict[str, dict[str, tf.Tensor]]:
    """Losses as plain dicts, for the result of a `tf.function`; what a loss does not have is left out."""
    found: dict[str, dict[str, tf.Tensor]] = {}
    for name, loss in losses.items():
        parts = found[name] = {}
        if loss.sum is not None:
            parts |= {"sum": loss.sum, "count": loss.count}
        if loss.error is not None:
            parts |= {"error": loss.error, "error_count": loss.count}
    return found


@dataclass
class Totals:
    """Sums over batches, by loss and kind."""

    sums: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, numbers: Numbers) -> None:
        """Adds the numbers of a batch."""
        for name, parts in numbers.items():
            into = self.sums.setdefault(name, dict.fromkeys(parts, 0.0))
            for kind, value in parts.items():
                into[kind] += float(value)

    def by_loss(self, kind: str) -> dict[str, float]:
        """The mean "score" or "error" of each loss that has one; not a number for a loss without any frame."""
        total, count = _KINDS[kind]
        return {
            name: parts[total] / parts[count] if parts[count] else math.nan
            for name, parts in self.sums.items()
            if total in parts
        }

    def errors(self, data: str) -> dict[str, float]:
        """The entries for the learning-rate file: ``<data>_score`` and ``<data>_error``; with ``_<loss>`` if there are
        several losses."""
        several = len(self.sums) > 1
        return {
            f"{data}_{kind}_{name}" if several else f"{data}_{kind}": value
            for kind in _KINDS
            for name, value in self.by_loss(kind).items()
        }

    def is_finite(self) -> bool:
        """Whether all sums are numbers."""
        return all(math.isfinite(value) for parts in self.sums.values() for value in parts.values())

    def is_empty(self) -> bool:
        """Whether no loss had any frame."""
        return not any(parts.get(count) for parts in self.sums.values() for count in ("count", "error_count"))

    def __str__(self) -> str:
        """For the log: ``score: 0.31 error: 0.14``, or dicts of both by loss if there are several."""
        shown = []
        for kind in _KINDS:
            values = self.by_loss(kind)
            if len(self.sums) == 1 and values:
                shown.append(f"{kind}: {next(iter(values.values())):.6g}")
            elif values:
                shown.append(f"{kind}: {{{', '.join(f'{name}: {value:.6g}' for name, value in values.items())}}}")
        return " ".join(shown)
