"""A cell with dropout around it (Zaremba et al. 2014; with one mask for all steps, Gal and Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from returnn_lite.config.options import option
from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import States, Unit
from returnn_lite.layers.cells.wrapping import Wrapper

KEPT = {f"{what}_keep_prob": f"{what}_dropout" for what in ("input", "output", "state")}
"""TensorFlow's options, the probabilities that something is kept."""


class Dropout(Wrapper, names=("dropout", "rnncelldropout")):
    """In training, elements of the source, of the new states and of the output become 0, and what is kept is divided
    by the probability that it is.

    A state is dropped after the step: the output of that step is that of the state before dropout, and the first state
    is whole. By default only the state h of an LSTM is dropped, not c.
    """

    paper = "Zaremba et al. 2014; Gal and Ghahramani 2016"
    old_options: ClassVar[Mapping[str, str]] = {
        **Wrapper.old_options,
        **KEPT,
        "variational_recurrent": "variational",
        "dropout_state_filter_visitor": "dropped_states",
    }

    input_dropout: float = option(
        "the part of the source that is dropped; of several, of the last one", default=0.0, least=0, below=1
    )
    output_dropout: float = option("the part of the output that is dropped", default=0.0, least=0, below=1)
    state_dropout: float = option("the part of the new states that is dropped", default=0.0, least=0, below=1)
    variational: bool = option("one mask for all steps of a sequence, in place of one at each step", default=False)
    shared_by_batch: bool = option("all sequences of a batch have the same mask", default=False)
    dropped_states: list[str] | Literal["all"] | None = option(
        "the keys of the states that state_dropout is for; default: all but each c beside an h", default=None
    )
    input_size: int | None = option("has no influence on results: it is that of the source", default=None)
    dtype: str | None = option("has no influence on results", default=None)
    seed: int | None = option(
        "of the masks",
        default=None,
        unsupported="all that a run draws follows from random_seed of the config. Leave it out",
    )

    @classmethod
    def renamed(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        return super().renamed({name: rate_of(value) if name in KEPT else value for name, value in options.items()})

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        x = inputs[-1]
        if self.input_dropout and x.type.sparse is not None:
            b.fail(f"input_dropout is not for labels: {x.type}", "Put an embedding around the cell inside.")
        if self.shared_by_batch and not self.variational:
            hint = "Leave it out, or set 'variational'."
            b.fail("shared_by_batch is for a mask that is the same at all steps", hint)
        dropped = self._dropped_states(b)

        def drop(value: View, rate: float, name: str) -> View:
            return b.dropped(value, rate, name, fresh=not self.variational, shared_by_batch=self.shared_by_batch)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            *others, source = now
            y, after = self.inner_step(b, [*others, drop(source, self.input_dropout, "input")], out, before)
            kept = {
                key: drop(state, self.state_dropout, f"state/{key}") if key in dropped else state
                for key, state in after.items()
            }
            return drop(y, self.output_dropout, "output"), kept

        return b.stepwise(tuple(inputs), step, ["state_dropout"] if self.state_dropout and b.mode.train else [])

    def _dropped_states(self, b: CellBuilder) -> Sequence[str]:
        """The keys of the states with dropout."""
        keys = self.state_keys()
        if self.dropped_states is None:
            hidden = {key.removesuffix("h") for key in keys if key.endswith("/h")}
            return [key for key in keys if not (key.endswith("/c") and key.removesuffix("c") in hidden)]
        if self.dropped_states == "all":
            return keys
        found = [f"cell/{key}" for key in self.dropped_states]
        unknown = [key.removeprefix("cell/") for key in found if key not in keys]
        if unknown:
            own = ", ".join(key.removeprefix("cell/") for key in keys)
            b.fail(f"dropped_states: the cell has no state '{unknown[0]}'", f"It has {own}.")
        return found


def rate_of(kept: object) -> object:
    """The dropout for the probability of being kept; what is no number stays, to be refused as such."""
    return 1.0 - kept if isinstance(kept, int | float) and not isinstance(kept, bool) else kept


CELLS = (Dropout,)
