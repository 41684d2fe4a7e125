"""Units of recurrent layers from the whole table of cells, with options, in stacks and under wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from returnn_lite.config.decode import option_names
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.registry import all_cells
from tests.properties.parts import SIZE, Draw

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("tanh", "relu", "sigmoid"),
    "cell_clip": (0.3,),
    "depth": (2,),
    "forget_bias": (0.0, 1.0),
    "groups": (3,),
    "norm": ("gate", "joint"),
    "peephole": (True,),
    "recurrent_activation": ("sigmoid", "hard_sigmoid"),
    "reset_after": (True, False),
    "use_bias": (True, False),
    "use_zoneout_output": (True, False),
    "zoneout_factor_cell": (0.3,),
}
"""Values that options may have; an option of a cell is drawn if it is here."""
MORE: Mapping[str, tuple[dict[str, Any], ...]] = {
    "gridlstm": ({"feature_size": 2, "num_frequency_blocks": [2], "units": 1},),
    "timefrequencylstm": ({"feature_size": 1, "units": 1},),
}
"""What cells need that have options without a default."""
ELSEWHERE = ("attention", "bidirectionalgridlstm", "convlstm", "convlstm1d", "embedding", "lstmattention", "phasedlstm")
"""Cells whose source is no vector of features, or that read another layer: tests/cells has them."""
WRAPPERS: Mapping[str, dict[str, Any]] = {
    "residual": {},
    "dropout": {"input_dropout": 0.2, "state_dropout": 0.3, "output_dropout": 0.1, "variational": True},
    "highway": {},
}
LEAVES: Mapping[str, type[Cell]] = {
    cls.cell_names[0]: cls for cls in all_cells() if "cell" not in option_names(cls) and not cls.lists_of_cells
}


def unit(draw: Draw, depth: int = 2) -> Any:
    """A unit whose source and output have `SIZE` features."""
    form = draw(st.sampled_from(["name", "options", "options", "stack", "wrapper"] if depth else ["name", "options"]))
    if form == "stack":
        return [unit(draw, depth - 1) for _ in range(draw(st.integers(1, 2)))]
    if form == "wrapper":
        name = draw(st.sampled_from(sorted(WRAPPERS)))
        return {"class": name, "cell": unit(draw, depth - 1), **WRAPPERS[name]}
    name = draw(st.sampled_from(sorted(set(LEAVES) - set(ELSEWHERE) - set(MORE))))
    return name if form == "name" else {"class": name, **_options(draw, LEAVES[name])}


def _options(draw: Draw, cls: type[Cell]) -> dict[str, Any]:
    """Some of the options that are known here; with a projection the state has another size than the output."""
    known = option_names(cls)
    chosen = [name for name in CHOICES if name in known and _one_in_3(draw)]
    drawn = {name: draw(st.sampled_from(CHOICES[name])) for name in chosen}
    if "projection" in known and _one_in_3(draw):
        drawn |= {"units": 4, "projection": SIZE}
        drawn.pop("groups", None)
    return drawn


def _one_in_3(draw: Draw) -> bool:
    return draw(st.integers(0, 2)) == 0
