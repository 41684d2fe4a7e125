"""Values that the options of cells and wrappers may have in random networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from returnn_lite.config.decode import option_names
from returnn_lite.layers.cells.cell import Cell
from tests.properties.parts import SIZE, Draw

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "activation": ("tanh", "relu", "sigmoid"),
    "attn_vec_size": (2,),
    "cell_clip": (0.3,),
    "couple_carry_transform_gates": (False,),
    "couple_input_forget_gates": (True,),
    "depth": (2,),
    "dropout": (0.2,),
    "dropout_h": (0.2,),
    "dropped_states": ("all",),
    "forget_bias": (0.0, 0.5, 1.0),
    "groups": (3,),
    "implementation": (1, 2),
    "input_dropout": (0.2,),
    "key_size": (2,),
    "layer_norm": (True,),
    "leak": (0.0,),
    "norm": ("gate", "joint", None),
    "num_in_proj": (SIZE,),
    "output_dropout": (0.1,),
    "peephole": (True,),
    "projection_clip": (0.3,),
    "rec_weight_dropout": (0.3,),
    "recurrent_activation": ("hard_sigmoid", "tanh"),
    "recurrent_dropout": (0.3,),
    "reset_after": (True, False),
    "residual_fn": ("x + 0.5 * y", "x * y"),
    "share_time_frequency_weights": (True,),
    "shared_by_batch": (True,),
    "state_dropout": (0.3,),
    "trainable_ratio_on": (False,),
    "use_bias": (True, False),
    "use_zoneout_output": (True, False),
    "variance_epsilon": (0.1,),
    "variational": (True,),
    "y_activation": ("tanh",),
    "zoneout_factor_cell": (0.3,),
    "zoneout_factor_output": (0.2,),
}
"""Of an option of a cell that is here one of these is drawn; not all cells have it."""
NORMS: tuple[Mapping[str, bool], ...] = (
    {"global_norm": False},
    {"global_norm": False, "with_concat": True, "per_gate_norm": True},
    {"global_norm": False, "global_norm_joined": True, "cell_norm_in_output": False},
    {"cell_norm": False, "hidden_norm": True},
)
"""What `layernormvariantslstm` may normalise: not all of its options go together."""


def options_of(draw: Draw, cls: type[Cell], *, sized: bool = True) -> dict[str, Any]:
    """Some of the options of a cell that are known here, not as they are by default. If it is `sized`, these may say
    that its output has `SIZE` features, and that its state has more."""
    known = option_names(cls)
    names = [name for name in CHOICES if name in known]
    chosen = draw(st.lists(st.sampled_from(names), max_size=8, unique=True)) if names else []
    default = {field.name: field.default for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    others = {name: [value for value in CHOICES[name] if value != default[name]] for name in chosen}
    drawn = {name: draw(st.sampled_from(values)) for name, values in others.items()}
    if "global_norm" in known and draw(st.booleans()):
        drawn |= draw(st.sampled_from(NORMS))
    if drawn.get("shared_by_batch"):
        drawn["variational"] = True
    if sized and "units" in known and one_in(draw, 4):
        drawn["units"] = SIZE
    if sized and ("projection_clip" in drawn or ("projection" in known and one_in(draw, 3))):
        drawn |= {"units": 6, "projection": SIZE}
    elif "projection_clip" in drawn:
        del drawn["projection_clip"]
    return drawn


def one_in(draw: Draw, count: int) -> bool:
    """True in one case of so many."""
    return draw(st.integers(1, count)) == 1
