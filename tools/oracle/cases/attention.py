"""Self-attention as one layer, and relative positions in it."""

from ..case import Tag
from ..probe import inner, looped, outside

SELF = {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 6}
CAUSAL = {**SELF, "attention_left_only": True}
POSITIONS = {"p": {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "x"}}
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
