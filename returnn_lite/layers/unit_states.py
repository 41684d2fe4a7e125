"""The names of the states of recurrent units: known without building a unit, for layers that read the step before."""

from __future__ import annotations

ONE_STATE = frozenset({"gru", "grublock", "basicrnn", "rhn"})


def state_keys_of(unit: str) -> tuple[str, ...]:
    """The states of a unit by its name: `h`, and for LSTMs the cell `c`."""
    return ("h",) if unit.lower().removesuffix("cell") in ONE_STATE else ("h", "c")
