"""The steps of a loop in the rounds of a `tf.while_loop`: one in each, or several written out (`ir.Loop.unroll`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from returnn_lite.ir import STEPS_A_ROUND
from returnn_lite.tf.sizes import Size

Variables = tuple[Any, ...]
"""What steps hand on; the first is the number of the next step, in a graph without a loop a Python int."""


def is_written_out(unroll: int, end: Size) -> bool:
    """Whether there is no loop: all steps are written out, whose number is known."""
    return unroll == 0 and isinstance(end, int)


@dataclass(frozen=True)
class Rounds:
    """Steps until the one of the number `end`, or until one has left `ended` true; of what does not depend on the step
    before, TensorFlow may be `ahead` by so many rounds.

    `invariants` are the shapes of variables at all steps.
    """

    step: Callable[..., Variables]
    end: Size
    unroll: int = 1
    ended: Callable[..., tf.Tensor] | None = None
    ahead: int = 10

    def run(self, variables: Variables, invariants: Variables) -> Variables:
        """The variables after the last step."""
        first = variables[0]
        if isinstance(first, int) and is_written_out(self.unroll, self.end) and self.ended is None:
            while variables[0] < self.end:
                variables = self.step(*variables)
            return variables
        variables = (tf.convert_to_tensor(first), *variables[1:])
        count = self.unroll or STEPS_A_ROUND
        if count == 1:
            return self._loop(self.step, self.end, variables, invariants)
        if self.ended is not None:
            return self._loop(lambda *now: self._while_it_goes_on(count, now), self.end, variables, invariants)
        full = self.end - (self.end - variables[0]) % count
        variables = self._loop(lambda *now: self._written_out(count, now), full, variables, invariants)
        return self._loop(self.step, self.end, variables, invariants)

    def _loop(
        self, body: Callable[..., Variables], end: Size, variables: Variables, invariants: Variables
    ) -> Variables:
        found: Variables = tf.while_loop(
            lambda *now: self._goes_on(end, now), body, variables, invariants, parallel_iterations=self.ahead
        )
        return found

    def _goes_on(self, end: Size, now: Variables) -> tf.Tensor:
        more = now[0] < end
        return more if self.ended is None else tf.logical_and(more, tf.logical_not(self.ended(*now)))

    def _written_out(self, count: int, now: Variables) -> Variables:
        for _ in range(count):
            now = self.step(*now)
        return now

    def _while_it_goes_on(self, count: int, now: Variables) -> Variables:
        """The first step, and each further one if none before has ended the loop."""
        now = self.step(*now)
        for _ in range(count - 1):
            now = tf.cond(self._goes_on(self.end, now), *_step_or_none(self.step, now))
        return now


def _step_or_none(step: Callable[..., Variables], now: Variables) -> tuple[Callable[[], Variables], ...]:
    return lambda: step(*now), lambda: now
