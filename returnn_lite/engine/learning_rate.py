"""The learning rate of each epoch, from those of the epochs before and what they reached (RETURNN's control).

`LearningRateControl.next` is a function of its arguments: the options, and what is known of the epochs so far.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from returnn_lite.config.options import option
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.learning_rate_file import EpochRecord

Records = Mapping[int, EpochRecord]
ControlName = Literal[
    "constant", "newbob", "newbob_rel", "newbob_relative", "newbob_abs", "newbob_absolute", "newbob_multi_epoch"
]


@dataclass(frozen=True)
class LearningRateOptions:
    """The config's keys about the learning rate."""

    learning_rate: float = option("the learning rate of the first epoch", default=1.0)
    learning_rates: list[float] | dict[int, float] | None = option(
        "the rates of the first epochs, or of some epochs", default=None
    )
    min_learning_rate: float = option("no control goes below this", default=0.0)
    learning_rate_control: ControlName = option("how it changes with the scores", default="constant")
    learning_rate_control_error_measure: str | list[str] | None = option(
        "the score that decides, for example dev_error; the first of a list that there is", default=None
    )
    learning_rate_control_relative_error_relative_lr: bool = option(
        "divide the relative change by the rate relative to learning_rate", default=False
    )
    learning_rate_control_min_num_epochs_per_new_lr: int = option("epochs that a rate is kept at least", default=0)
    newbob_relative_error_threshold: float = option("a relative change above it is no improvement", default=-0.01)
    newbob_error_threshold: float = option("the same for newbob_abs, absolute", default=-0.01)
    newbob_relative_error_grow_threshold: float | None = option(
        "newbob_multi_epoch: a change below it lets the rate grow; default the other threshold", default=None
    )
    newbob_relative_error_div_by_old: bool = option("the change is relative to the old score", default=False)
    newbob_learning_rate_decay: float = option("factor without improvement", default=0.5)
    newbob_learning_rate_growth: float = option("factor with improvement", default=1.0)
    newbob_multi_num_epochs: int = option("how many changes newbob_multi_epoch averages", default=5, least=1)
    newbob_multi_update_interval: int | None = option(
        "newbob_multi_epoch changes the rate every so many epochs; default newbob_multi_num_epochs",
        default=None,
        least=1,
    )

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError("the learning_rate must be positive")


@dataclass(frozen=True)
class LearningRateControl:
    """Gives the learning rate of an epoch."""

    options: LearningRateOptions

    def next(self, epoch: int, records: Records) -> float:
        """The learning rate of an epoch (1-based) from the records of those before it.

        A record of the epoch itself wins over everything else, so that a run that is resumed goes on as it was; then
        comes `learning_rates`, then the control. Raises EngineError if the error measure to look at does not exist.
        """
        if epoch in records:
            return records[epoch].learning_rate
        if (given := self._given(epoch)) is not None:
            return given
        before = sorted(known for known in records if known < epoch)
        if not before:
            return self.options.learning_rate
        rate = records[before[-1]].learning_rate
        if self.options.learning_rate_control == "constant" or not self._may_change(before, records):
            return rate
        factor = self._factor(epoch, records)
        return rate if factor is None else max(rate * factor, self.options.min_learning_rate)

    def _given(self, epoch: int) -> float | None:
        rates = self.options.learning_rates
        if isinstance(rates, list):
            return rates[epoch - 1] if epoch <= len(rates) else None
        return None if rates is None else rates.get(epoch)

    def _may_change(self, before: list[int], records: Records) -> bool:
        """Whether the last rate was kept for as many epochs as it has to be."""
        least = self.options.learning_rate_control_min_num_epochs_per_new_lr
        return least <= 1 or (len(before) >= least and len({records[e].learning_rate for e in before[-least:]}) == 1)

    def _factor(self, epoch: int, records: Records) -> float | None:
        """What the control multiplies the rate with; None if there is nothing yet to compare."""
        options = self.options
        decay, growth = options.newbob_learning_rate_decay, options.newbob_learning_rate_growth
        known = [known for known in sorted(records) if known < epoch]
        key = self.error_key(records[known[-1]].errors)
        scored = [known for known in known if key in records[known].errors] if key is not None else []
        if key is None or len(scored) < 2:
            return None
        pairs = list(itertools.pairwise(scored))
        if options.learning_rate_control in ("newbob_abs", "newbob_absolute"):
            old, new = (records[e].errors[key] for e in pairs[-1])
            return growth if new - old <= options.newbob_error_threshold else decay  # not a number: no improvement
        if options.learning_rate_control != "newbob_multi_epoch":
            change = self._relative_change(key, pairs[-1], records)
            return growth if change <= options.newbob_relative_error_threshold else decay
        interval = options.newbob_multi_update_interval or options.newbob_multi_num_epochs
        if interval > 1 and epoch % interval != 1:
            return None
        changes = [self._relative_change(key, pair, records) for pair in pairs[-options.newbob_multi_num_epochs :]]
        mean = sum(changes) / len(changes)
        threshold, grow_below = options.newbob_relative_error_threshold, options.newbob_relative_error_grow_threshold
        if not mean <= threshold:
            return decay
        return growth if mean < (threshold if grow_below is None else grow_below) else 1.0

    def _relative_change(self, key: str, pair: tuple[int, int], records: Records) -> float:
        """From one epoch to the next; below zero is better. Infinite where the score it is relative to is zero."""
        old, new = (records[epoch].errors[key] for epoch in pair)
        base = abs(old if self.options.newbob_relative_error_div_by_old else new)
        if not base:
            return math.copysign(math.inf, new - old) if new != old else 0.0
        change = (new - old) / base
        if self.options.learning_rate_control_relative_error_relative_lr:
            change /= records[pair[1]].learning_rate / self.options.learning_rate
        return change

    def error_key(self, errors: Mapping[str, float]) -> str | None:
        """The key of the score that decides: the option's, with ``_output`` if need be; else dev before train, score
        before error, the loss of the layer "output" before others. None if nothing is known.

        Raises EngineError if the option names a key that does not exist.
        """
        wanted = self.options.learning_rate_control_error_measure
        if not errors:
            return None
        for key in [wanted] if isinstance(wanted, str) else wanted or []:
            for candidate in (key, f"{key}_output"):
                if candidate in errors:
                    return candidate
        if wanted is not None:
            raise EngineError(f"learning_rate_control_error_measure: there is no {wanted}; there are {sorted(errors)}")
        for data in ("dev", "train"):
            for kind in ("score", "error"):
                prefix = f"{data}_{kind}"
                found = sorted(key for key in errors if key.startswith((f"{prefix}_", f"{prefix}:")))
                for key in (prefix, f"{prefix}_output", *found):
                    if key in errors:
                        return key
        return None
