"""LSTMs that are no primitive, in the loops of decoders: in each place, under masks, in search."""

from __future__ import annotations

from typing import Any

import pytest

from tests.loop.probing import check, everywhere

UNITS: dict[str, dict[str, Any]] = {
    "projection": {"class": "lstm", "units": 5, "projection": 4, "peephole": True, "cell_clip": 0.2},
    "coupled": {"class": "cifg", "units": 4, "layer_norm": True},
    "groups": {"class": "glstm", "units": 6, "groups": 2, "projection": 4},
    "independent": {"class": "indylstm", "units": 4},
    "Keras": {"class": "keras.lstm", "units": 4, "dropout": 0.3, "recurrent_dropout": 0.3},
}


@everywhere
@pytest.mark.parametrize("name", UNITS)
def test_step(name: str, place: str) -> None:
    check({"probe": {"class": "rnn_cell", "unit": UNITS[name], "from": "x"}}, place)
