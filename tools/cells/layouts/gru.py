"""GRUs and simple recurrent networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.cells.layouts.layout import Layout, Masks, Tensors

BLOCK_NAMES = {
    "w_ru": "gates/kernel",
    "b_ru": "gates/bias",
    "w_c": "candidate/kernel",
    "b_c": "candidate/bias",
}


def of_block(options: Mapping[str, Any], recorded: Tensors) -> dict[str, Any]:
    """Those of GRUBlockCell."""
    return {BLOCK_NAMES[name]: value for name, value in recorded.items()}


def dropouts(options: Mapping[str, Any]) -> list[str]:
    """Those that a cell of Keras has."""
    return [name for name in ("dropout", "recurrent_dropout") if options.get(name)]


def one_mask(options: Mapping[str, Any], states: Sequence[str]) -> Masks:
    """Those of a cell of Keras without gates."""
    return {f"{name}/0": (name,) for name in dropouts(options)}


def masks_of_gates(count: int) -> Callable[[Mapping[str, Any], Sequence[str]], Masks]:
    """Those of a cell of Keras with so many gates: one for each, or the first for all."""

    def masks(options: Mapping[str, Any], states: Sequence[str]) -> Masks:
        default = 2 if options["class"].endswith("(v2)") else 1
        used = count if options.get("implementation", default) == 1 else 1
        return {f"{name}/{i}": (f"{name}/{i}",) for name in dropouts(options) for i in range(used)}

    return masks


LAYOUTS = {
    ("keras", "GRUCell"): Layout(masks=masks_of_gates(3)),
    ("keras", "SimpleRNNCell"): Layout(masks=one_mask),
    ("tf", "BasicRNNCell"): Layout(folder="basic_rnn_cell/"),
    ("tf", "CudnnCompatibleGRUCell"): Layout(folder="gru_cell/"),
    ("tf", "GRUBlockCell"): Layout(parameters=of_block, folder="gru_cell/"),
    ("tf", "GRUBlockCellV2"): Layout(folder="gru_cell/"),
    ("tf", "GRUCell"): Layout(folder="gru_cell/"),
}
