"""The table of cells in `tools/bench`: that it has them all, and that its peers in Keras compute the same."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import pytest

from returnn_lite.layers.cells.registry import all_cells, cell_class, known_name

BENCH = Path(__file__).parents[2] / "tools/bench"
sys.path.append(str(BENCH))  # its modules are scripts, and what these share
NETWORKS = importlib.import_module("cell_networks").NETWORKS
AROUND_CELLS = [
    "Attention",
    "Device",
    "Dropout",
    "Embedding",
    "Highway",
    "InputProjection",
    "OutputProjection",
    "Residual",
    "Stack",
]
"""Attention to own outputs is in the table."""
OTHER_NAMES = ["BasicLstm", "LayerNormBasicLstm", "LowMemoryLstm"]
"""Of parameters, for what is in the table."""


def test_all_cells_are_in_the_table() -> None:
    units = [net.unit if isinstance(net.unit, str) else net.unit["class"] for net in NETWORKS.values()]
    classes = {cell_class(name) for unit in units if (name := known_name(unit)) is not None}
    assert {cell.__name__ for cell in all_cells()} - {cell.__name__ for cell in classes} == {
        *AROUND_CELLS,
        *OTHER_NAMES,
    }


@pytest.mark.one_in(20)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_keras_computes_the_same(name: str) -> None:
    """The sum of objective and gradients' norm, which the benchmark compares, too."""
    case = importlib.import_module("cases").CASES[name]
    ours = importlib.import_module("worker_lite").gradient_step(case, optimize=True)
    theirs = importlib.import_module("worker_keras").cell_step(name)
    if name == "zoneout_lstm":
        assert ours.check is theirs.check is None, "each draws its own"
    else:
        assert math.isclose(ours.check(), theirs.check(), rel_tol=1e-4)
