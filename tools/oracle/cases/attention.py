"""Self-attention as one layer, and relative positions in it."""

from typing import Any

from ..case import Case, Tag
from ..probe import inner, looped, outside

SELF = {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 6}
CAUSAL = {**SELF, "attention_left_only": True}
POSITIONS = {"p": {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "x"}}
FIXED = {
    "fixed": {"fixed": True, "n_out": 4},
    "fixed_odd": {"fixed": True, "n_out": 5},
    "query_offset": {"query_offset": 2, "n_out": 4},
}


ONE_QUERY = {
    "query_offset": "in a step it is the position of the one query; where RETURNN's optimiser moves the layer, it is "
    "added to the number of the step"
}


def positioned(name: str, options: dict[str, Any]) -> list[Case]:
    """Self-attention with relative positions that have options of their own, everywhere."""
    wide = {"total_key_dim": 2 * options["n_out"], "key_shift": "p"}
    more = {"p": {**POSITIONS["p"], **options}}
    return [
        outside(f"self_attention.{name}", {**SELF, **wide}, more=more),
        outside(f"self_attention.left_only_{name}", {**CAUSAL, **wide}, more=more),
        looped(f"self_attention.left_only_{name}", {**CAUSAL, **wide}, more=more, differs=ONE_QUERY.get(name, "")),
        looped(f"self_attention.left_only_{name}", {**CAUSAL, **wide}, more=more, cycle=True),
    ]


NOT_CAUSAL = (
    "refused: a step does not know the frames that follow; RETURNN lets all see all where its optimiser moves the layer"
)
KEYS = {
    "keys": {"class": "linear", "activation": "tanh", "n_out": 4, "from": "x"},
    "mean": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"},
    "query_of": {"class": "linear", "activation": "tanh", "n_out": 4, "from": "mean"},
}
HISTORY = {
    "so_far": {"class": "cum_concat", "out_spatial_dim": Tag("history"), "from": "x"},
    "energy": {"class": "dot", "reduce": "F", "from": ["so_far", "x"]},
    "attended": {"class": "dot", "reduce": "stag:history", "from": ["so_far", "probe"]},
}

CASES = [
    outside("self_attention", SELF),
    outside("self_attention.dropout", {**SELF, "attention_dropout": 0.5}, modes=("eval",)),
    outside("self_attention.left_only", CAUSAL),
    outside("self_attention.key_shift", {**SELF, "key_shift": "p"}, more=POSITIONS),
    outside("self_attention.left_only_key_shift", {**CAUSAL, "key_shift": "p"}, more=POSITIONS),
    looped("self_attention.left_only", CAUSAL),
    looped("self_attention.left_only", CAUSAL, cycle=True),
    looped("self_attention.left_only_key_shift", {**CAUSAL, "key_shift": "p"}, more=POSITIONS),
    looped("self_attention.left_only_key_shift", {**CAUSAL, "key_shift": "p"}, more=POSITIONS, cycle=True),
    looped("self_attention", SELF, differs=NOT_CAUSAL),
    outside("self_attention.initial_state", {**SELF, "initial_state": "zeros"}),
    outside("self_attention.left_only_initial_state", {**CAUSAL, "initial_state": 1}),
    looped("self_attention.left_only_initial_state", {**CAUSAL, "initial_state": 0}, cycle=True),
    *[case for name, options in FIXED.items() for case in positioned(name, options)],
    *inner(
        "dot_attention",
        {"class": "dot_attention", "base": "x", "base_ctx": "keys", "energy_factor": 0.4, "n_out": 6},
        source="query_of",
        more=KEYS,
        flat={"flat": {"class": "copy", "from": "probe"}},
    ),
    *[
        looped(
            "cum_concat",
            {"class": "softmax_over_spatial", "axis": "stag:history", "from": "energy"},
            source="energy",
            more=HISTORY,
            result="attended",
            flat={"flat": {"class": "copy", "from": "attended"}},
            cycle=cycle,
        )
        for cycle in (False, True)
    ],
]
