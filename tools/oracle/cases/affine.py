"""Affine layers, normalisation, dropout."""

from dataclasses import replace

from ..probe import EQUAL_LENGTHS, everywhere, looped, outside, padding_apart

LINEAR = {"class": "linear", "activation": None, "n_out": 3}
BATCH_NORM = {"class": "batch_norm", "masked_time": True}
PER_STEP = (
    "refused in training: statistics are over all steps, which a loop that stays one has not yet; in RETURNN each step "
    "has its own"
)
HEADS = {"s": {"class": "split_dims", "axis": "F", "dims": (2, 3), "from": "x"}}
MERGED = {"flat": {"class": "merge_dims", "axes": ["dim:2", "dim:3"], "from": "probe"}}

CASES = [
    *everywhere("linear", LINEAR),
    *everywhere("linear.relu_no_bias", {**LINEAR, "activation": "relu", "with_bias": False}),
    *everywhere("linear.transposed", {**LINEAR, "activation": "tanh", "use_transposed_weights": True}),
    *everywhere("linear.hidden", {"class": "hidden", "activation": "sigmoid", "n_out": 3}),
    *everywhere("linear.forward", {"class": "forward", "activation": "elu", "n_out": 3}),
    *everywhere("linear.L2", {**LINEAR, "L2": 0.1}),
    *everywhere("linear.darc1", {**LINEAR, "activation": "tanh", "darc1": 0.1}, cycle=False),
    *everywhere(
        "linear.spatial_smoothing",
        {**LINEAR, "activation": "tanh", "n_out": 12, "spatial_smoothing": 0.1},
        cycle=False,
    ),
    outside("softmax.darc1", {"class": "softmax", "n_out": 3, "darc1": 0.1}),
    outside("activation.darc1", {"class": "activation", "activation": "sigmoid", "darc1": 0.1}),
    outside("linear.sparse", LINEAR, source="data:classes", loss=True),
    outside(
        "linear.two_sources",
        LINEAR,
        source=["x", "y"],
        more={"y": {"class": "linear", "n_out": 2, "activation": "tanh", "from": "data:frames"}},
    ),
    outside("linear.bv0", {"class": "linear", "activation": "tanh", "n_out": 3}, behavior_version=0),
    *everywhere("linear.dropout", {**LINEAR, "dropout": 0.3}, modes=("eval",)),
    *[
        # With its loop optimiser RETURNN looks at all steps of a sequence at once where the layer leaves the loop.
        replace(case, optimize=(False,))
        for threshold in (1e-3, 0.1)
        for case in everywhere(
            f"linear.grad_filter_{threshold}", {**LINEAR, "activation": "tanh", "grad_filter": threshold}
        )
    ],
    *everywhere("softmax", {"class": "softmax", "n_out": 3}),
    *everywhere("dropout", {"class": "dropout", "dropout": 0.5}, modes=("eval",)),
    *everywhere("layer_norm", {"class": "layer_norm"}),
    *everywhere("layer_norm.epsilon", {"class": "layer_norm", "epsilon": 0.1}),
    *everywhere("batch_norm", BATCH_NORM),
    *padding_apart(
        everywhere("batch_norm.unmasked", {"class": "batch_norm", "masked_time": False}, cycle=False),
        "RETURNN takes statistics over the padding, too; here over real frames",
    ),
    looped("batch_norm.unmasked", {"class": "batch_norm", "masked_time": False}, cycle=True, differs=PER_STEP),
    outside("batch_norm.no_shift", {**BATCH_NORM, "use_shift": False}),
    outside("batch_norm.no_std", {**BATCH_NORM, "use_std": False}),
    outside("batch_norm.use_sample", {**BATCH_NORM, "use_sample": 0.5}),
    outside("batch_norm.force_sample", {**BATCH_NORM, "force_sample": True}),
    outside("batch_norm.momentum", {**BATCH_NORM, "momentum": 0.3, "epsilon": 0.1}),
    outside("batch_norm.undelayed", {**BATCH_NORM, "delay_sample_update": False}),
    outside("batch_norm.version_0", {**BATCH_NORM, "param_version": 0}),
    *everywhere("batch_norm.bv0", {"class": "batch_norm"}, behavior_version=0),
    *everywhere("norm", {"class": "norm", "axis": "F"}),
    outside("norm.plain", {"class": "norm", "axis": "F", "scale": False, "bias": False, "epsilon": 0.1}),
    *everywhere("norm.inner", {"class": "norm", "axis": "dim:2", "epsilon": 0.1}, source="s", more=HEADS, flat=MERGED),
    *everywhere(
        "norm.two_axes",
        {"class": "norm", "axes": ["dim:2", "F"], "param_shape": ["dim:2", "F"]},
        source="s",
        more=HEADS,
        cycle=False,
    ),
    outside("norm.TF", {"class": "norm", "axis": "TF"}, lengths=EQUAL_LENGTHS),
    outside("accumulate_mean", {"class": "accumulate_mean", "exp_average": 0.2}, loss=False),
    outside(
        "accumulate_mean.distribution",
        {"class": "accumulate_mean", "exp_average": 0.2, "is_prob_distribution": True},
        source="p",
        more={"p": {"class": "softmax", "n_out": 5, "from": "x"}},
        loss=False,
    ),
    outside(
        "accumulate_mean.initial", {"class": "accumulate_mean", "exp_average": 0.3, "initial_value": 0.5}, loss=False
    ),
    *[
        case
        for mode in ("max", "sum", "mean")
        for case in everywhere(
            f"reduce_out.{mode}", {"class": "reduce_out", "mode": mode, "num_pieces": 2}, cycle=mode == "max"
        )
    ],
    *everywhere("linear.batch_norm", {**LINEAR, "activation": "relu", "batch_norm": {"masked_time": True}}),
]
