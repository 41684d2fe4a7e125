"""Self-attention as one layer, and relative positions in it."""

from ..probe import looped, outside

SELF = {"class": "self_attention", "num_heads": 2, "total_key_dim": 4, "n_out": 6}
CAUSAL = {**SELF, "attention_left_only": True}
POSITIONS = {"p": {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "x"}}

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
    looped("self_attention", SELF),
]
