"""What published networks do that the other families do not have: patterns of whole decoders, in small."""

from typing import Any

from ..case import Case, Net

Layer = dict[str, Any]
LABELS: Net = {
    "e": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "prev:output"},
    "prob": {"class": "softmax", "n_out": 5, "from": "s", "loss": "ce", "target": "classes"},
    "output": {"class": "choice", "target": "classes", "beam_size": 3, "from": "prob", "initial_output": 0},
    "end": {"class": "compare", "from": "output", "value": 0},
}


def decoder(name: str, body: Net, *seen: str, outside: Net | None = None, **options: Any) -> Case:
    """A label decoder with these layers in its body; the layers that are `seen` are compared."""
    unit = {**LABELS, **body}
    for layer in seen:
        unit[layer] = {**unit[layer], "is_output_layer": True}
    rec = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 5, "unit": unit}
    layers = ("output", *(f"output/{layer}" for layer in seen))
    modes = ("train", "eval", "search")
    network = {**(outside or {}), "output": rec}
    return Case(f"published.{name}", network, layers, modes=modes, optimize=(True, False), **options)


def previous_state(unit: str, n_out: int, key: str | None = None, **cell: Any) -> Net:
    """A cell whose input needs its own state of the step before."""
    state: Layer = {"class": "get_last_hidden_state", "from": "prev:s", "n_out": n_out}
    return {
        "before": state if key is None else {**state, "key": key},
        "query": {"class": "linear", "activation": "tanh", "n_out": 2, "from": "before"},
        "s": {"class": "rnn_cell", "unit": unit, "n_out": 3, "from": ["e", "query"], **cell},
    }


CASES = [
    decoder("previous_state.lstm", previous_state("lstmblock", 6), "before"),
    decoder("previous_state.standard", previous_state("standardlstm", 3, "c"), "before"),
    decoder("previous_state.gru", previous_state("gru", 3), "before"),
    decoder(
        "rec_unit_in_body",  # the feature dim of its source is known only when the whole body is
        {
            "s": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": ["prev:e2", "prev:merged"]},
            "e2": {"class": "linear", "activation": None, "with_bias": False, "n_out": 3, "from": "output"},
            "parts": {"class": "split_dims", "axis": "F", "dims": (3, 1), "from": "s"},
            "merged": {"class": "merge_dims", "axes": ["dim:3", "dim:1"], "from": "parts"},
        },
        "s",
    ),
    decoder("previous_state.initial", previous_state("lstmblock", 6, initial_state="ones"), "before"),
]
