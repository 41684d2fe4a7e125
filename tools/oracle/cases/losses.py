"""Losses on whole sequences, per sequence, and in the body of a loop."""

from typing import Any

from ..case import Case, Net

X: Net = {"x": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "data:frames"}}
ENC: Net = {"x": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "data"}}
SOFTMAX = {"class": "softmax", "n_out": 5, "from": "x", "loss": "ce", "target": "classes"}
DENSE: dict[str, dict[str, Any]] = {
    "data": {"dim": 4},
    "frames": {"dim": 4},
    "classes": {"dim": 5, "sparse": True, "same_dim_tags_as": {"t": "frames"}},
    "dense": {"dim": 5, "same_dim_tags_as": {"t": "frames"}, "available_for_inference": False},
    "label": {"dim": 5, "sparse": True, "shape": ()},
}
DENSE_LENGTHS = {"data": (6, 4, 5), "frames": (4, 3, 1), "classes": (4, 3, 1), "dense": (4, 3, 1), "label": (0, 0, 0)}
EMBEDDED: Net = {
    "e": {"class": "linear", "activation": "tanh", "n_out": 3, "from": "prev:output"},
    "s": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 3, "from": "e"},
}
DECODER: Net = {
    **EMBEDDED,
    "output": {"class": "choice", "target": "classes", "beam_size": 3, "from": "prob", "initial_output": 0},
    "end": {"class": "compare", "from": "output", "value": 0},
}

EDIT = {"class": "reduce", "mode": "argmax", "axis": "F", "from": "p", "loss": "edit_distance", "target": "classes"}
SEQUENCE_LENGTHS = {**DENSE_LENGTHS, "data": (2, 4, 5)}
DISTRIBUTION: Net = {
    "distribution": {
        "class": "softmax",
        "n_out": 5,
        "from": "data:dense",
        "register_as_extern_data": "distribution",
    }
}
BINARY: Net = {
    "binary": {
        "class": "eval",
        "eval": "tf.cast(source(0) > 0.0, tf.float32)",
        "from": "data:dense",
        "register_as_extern_data": "binary",
    }
}

BINARY_LAYER = {
    "class": "linear",
    "activation": None,
    "n_out": 5,
    "from": "x",
    "loss": "bin_ce",
    "target": "binary",
}


def loss(name: str, layer: dict[str, Any], *, more: Net | None = None, **options: Any) -> Case:
    options = {"extern_data": DENSE, "lengths": DENSE_LENGTHS, **options}
    return Case(f"loss.{name}", {**X, **(more or {}), "output": layer}, ("output",), **options)


def in_body(name: str, prob: dict[str, Any], **more: Any) -> Case:
    rec = {"class": "rec", "from": [], "target": "classes", "max_seq_len": 5, "unit": {**DECODER, "prob": prob, **more}}
    return Case(f"loss.{name}", {"output": rec}, ("output",), optimize=(True, False))


PROB = {"class": "softmax", "n_out": 5, "from": "s", "loss": "ce", "target": "classes"}
LOG = {"class": "linear", "activation": "log_softmax", "n_out": 5, "from": "x"}
GAUSSIAN = {"label_smoothing": 0.1, "label_smoothing_gaussian": True}
PROBABILITIES: Net = {"p": {"class": "softmax", "n_out": 5, "from": "x"}}
PROB_CE = {"class": "eval", "eval": "source(0) * 0.9", "from": "p", "loss": "ce", "target": "classes"}
NOT_NORMALISED = (
    "the Gaussian does not add up to 1, which RETURNN's fused loss takes for granted in its gradient; here the "
    "gradient is that of the loss, as where no softmax is fused with it"
)

LOG_SPACE_CTC: dict[str, object] = {
    "class": "copy",
    "from": "p",
    "loss": "ctc",
    "target": "classes",
    "loss_opts": {
        "output_in_log_space": True,
        "beam_width": 1,
        "use_native": True,
        "ctc_opts": {"logits_normalize": False, "grad_wrt_softmax_in": False},
    },
}


def ctc(name: str, *, lengths: dict[str, Any] | None = None, differs: str = "", **opts: Any) -> Case:
    """Of a softmax over one class more than the labels."""
    layer = {"class": "softmax", "from": "y", "loss": "ctc", "target": "classes", "loss_opts": opts}
    return loss(f"ctc.{name}", layer, more={"y": ENC["x"]}, lengths=lengths or DENSE_LENGTHS, differs=differs)


def native_ctc(name: str, *, lengths: dict[str, Any] | None = None, **ctc_opts: Any) -> Case:
    return ctc(f"native.{name}", lengths=lengths, use_native=True, beam_width=1, ctc_opts=ctc_opts)


def edit_distance(name: str, layer: dict[str, Any] | None = None, n_out: int = 5, **opts: Any) -> Case:
    more = {"y": ENC["x"], "p": {"class": "softmax", "n_out": n_out, "from": "y"}}
    return loss(f"edit_distance.{name}", {**(layer or EDIT), "loss_opts": opts}, more=more)


DENSE_EDIT = {"class": "copy", "from": "p", "loss": "edit_distance", "target": "classes"}
CASES = [
    loss("ce", SOFTMAX),
    loss("ce.no_n_out", {**{k: v for k, v in SOFTMAX.items() if k != "n_out"}}),
    loss("ce.label_smoothing", {**SOFTMAX, "loss_opts": {"label_smoothing": 0.1}}),
    loss("ce.label_smoothing_gaussian", {**SOFTMAX, "loss_opts": GAUSSIAN}, differs=NOT_NORMALISED),
    loss(
        "ce.label_smoothing_gaussian.unfused",
        {"class": "eval", "eval": "source(0)", "from": "p", "loss": "ce", "target": "classes", "loss_opts": GAUSSIAN},
        more={"p": {"class": "softmax", "n_out": 5, "from": "x"}},
    ),
    loss("ce.focal", {**SOFTMAX, "loss_opts": {"focal_loss_factor": 2.0}}),
    loss("ce.focal_smoothed", {**SOFTMAX, "loss_opts": {"focal_loss_factor": 2.0, "label_smoothing": 0.1}}),
    loss("ce.scale", {**SOFTMAX, "loss_scale": 0.3}),
    loss("ce.opts_scale", {**SOFTMAX, "loss_opts": {"scale": 0.3}}),
    loss("ce.scale_0", {**SOFTMAX, "loss_scale": 0.0}),
    loss("ce.normalized", {**SOFTMAX, "loss_opts": {"use_normalized_loss": True}}),
    loss("ce.normalized_scaled", {**SOFTMAX, "loss_opts": {"use_normalized_loss": True, "scale": 0.3}}),
    loss(
        "ce.normalized_otherwise",
        {**SOFTMAX, "loss_opts": {"use_normalized_loss": True, "custom_norm_factor": 0.25}},
    ),
    loss("ce.unfused", {**SOFTMAX, "loss_opts": {"use_fused": False}}),
    loss("ce.not_flat", {**SOFTMAX, "loss_opts": {"use_flatten_frames": False}}),
    loss("ce.custom_norm", {**SOFTMAX, "loss_opts": {"custom_norm_factor": 0.5}}),
    loss(
        "ce.custom_inv_norm",
        {**SOFTMAX, "loss_opts": {"custom_inv_norm_factor": "n"}},
        more={"n": {"class": "length", "from": "data:data"}},
    ),
    loss(
        "ce.normalized.custom_inv_norm",
        {**SOFTMAX, "loss_opts": {"custom_inv_norm_factor": "n", "use_normalized_loss": True}},
        more={
            "n": {"class": "eval", "eval": "source(0) ** 2 + 1.0", "from": "m"},
            "m": {"class": "reduce", "mode": "mean", "axis": ["T", "F"], "from": "x"},
        },
    ),
    loss("ce.upper_bound", {**SOFTMAX, "loss_opts": {"fake_upper_bound": 1.5}}),
    loss("ce.upper_bound_focal", {**SOFTMAX, "loss_opts": {"fake_upper_bound": 1.0, "focal_loss_factor": 1.0}}),
    loss("ce.safe_log", {**PROB_CE, "loss_opts": {"safe_log_opts": {"eps": 0.2}}}, more=PROBABILITIES),
    loss(
        "ce.safe_log.own_gradient",
        {**PROB_CE, "loss_opts": {"safe_log_opts": {"eps": 0.2, "use_fake_grad": False}}},
        more=PROBABILITIES,
    ),
    loss("ce.safe_log.unfused", {**SOFTMAX, "loss_opts": {"use_fused": False, "safe_log_opts": {"eps": 0.2}}}),
    loss("ce.safe_log.fused", {**SOFTMAX, "loss_opts": {"safe_log_opts": {"eps": 0.2}}}),
    loss(
        "ce.safe_log.dense",
        {
            "class": "eval",
            "eval": "source(0) * 0.9",
            "from": "p",
            "loss": "ce",
            "target": "distribution",
            "loss_opts": {"safe_log_opts": {"eps": 0.2}},
        },
        more={**PROBABILITIES, **DISTRIBUTION},
    ),
    loss(
        "ce.upper_bound.dense",
        {**SOFTMAX, "target": "distribution", "loss_opts": {"fake_upper_bound": 1.5}},
        more=DISTRIBUTION,
    ),
    loss(
        "ce.dense_target",
        {**SOFTMAX, "target": "distribution"},
        more=DISTRIBUTION,
    ),
    loss(
        "ce.copy",
        {"class": "copy", "from": "p", "loss": "ce", "target": "classes"},
        more={"p": {**SOFTMAX, "loss": None}},
    ),
    loss("ce.linear_softmax", {**SOFTMAX, "class": "linear", "activation": "softmax"}),
    loss(
        "ce.input_logits",
        {**LOG, "activation": None, "loss": "ce", "target": "classes", "loss_opts": {"input_type": "logits"}},
    ),
    loss(
        "ce.no_time",
        {**SOFTMAX, "from": "m", "target": "label"},
        more={"m": {"class": "reduce", "mode": "mean", "axis": "T", "from": "x"}},
    ),
    loss(
        "ce.layer_target",
        {**SOFTMAX, "target": "layer:t"},
        more={"t": {"class": "reinterpret_data", "from": "data:classes", "increase_sparse_dim": 0}},
    ),
    loss("ce.L2", {**SOFTMAX, "L2": 0.01}),
    loss("two", {**SOFTMAX}, more={"aux": {**SOFTMAX, "loss_scale": 0.5}}),
    loss("mse", {"class": "linear", "activation": None, "n_out": 5, "from": "x", "loss": "mse", "target": "dense"}),
    loss(
        "mse.sparse",
        {"class": "linear", "activation": None, "n_out": 5, "from": "x", "loss": "mse", "target": "classes"},
    ),
    loss("mse.softmax", {**SOFTMAX, "loss": "mse", "target": "dense"}),
    loss("bin_ce", BINARY_LAYER, more=BINARY),
    loss("bin_ce.pos_weight", {**BINARY_LAYER, "loss_opts": {"pos_weight": 2.0}}, more=BINARY),
    loss(
        "bin_ce.sigmoid",
        {**BINARY_LAYER, "activation": "sigmoid"},
        more=BINARY,
        differs="of a sigmoid layer RETURNN takes the sigmoid once more; here what went into it",
    ),
    loss("as_is", {"class": "linear", "activation": "tanh", "n_out": 5, "from": "x", "loss": "as_is"}),
    loss(
        "as_is.as_error",
        {
            "class": "linear",
            "activation": "tanh",
            "n_out": 5,
            "from": "x",
            "loss": "as_is",
            "loss_opts": {"as_error": True},
        },
    ),
    loss("as_is.no_feature", {"class": "reduce", "mode": "sum", "axis": "F", "from": "x", "loss": "as_is"}),
    loss("as_is.per_sequence", {"class": "reduce", "mode": "mean", "axis": "T", "from": "x", "loss": "as_is"}),
    loss("as_is.scalar", {"class": "reduce", "mode": "mean", "axes": ["B", "T", "F"], "from": "x", "loss": "as_is"}),
    loss("l1", {"class": "linear", "activation": None, "n_out": 5, "from": "x", "loss": "l1", "target": "dense"}),
    loss(
        "mean_l1",
        {"class": "linear", "activation": None, "n_out": 5, "from": "x", "loss": "mean_l1", "target": "dense"},
    ),
    loss("ctc", {"class": "softmax", "from": "y", "loss": "ctc", "target": "classes"}, more={"y": ENC["x"]}),
    loss(
        "ctc.n_out",
        {"class": "softmax", "n_out": 6, "from": "y", "loss": "ctc", "target": "classes"},
        more={"y": ENC["x"]},
    ),
    loss(
        "ctc.collapse",
        {
            "class": "softmax",
            "from": "y",
            "loss": "ctc",
            "target": "classes",
            "loss_opts": {"target_collapse_repeated": True},
        },
        more={"y": ENC["x"]},
    ),
    loss(
        "ctc.collapse.beam",
        {
            "class": "softmax",
            "from": "y",
            "loss": "ctc",
            "target": "classes",
            "loss_opts": {"target_collapse_repeated": True, "beam_width": 2},
        },
        more={"y": {**ENC["x"], "activation": None}},
    ),
    loss(
        "ctc.copy",
        {"class": "copy", "from": "p", "loss": "ctc", "target": "classes"},
        more={"y": ENC["x"], "p": {"class": "softmax", "n_out": 6, "from": "y"}},
    ),
    loss(
        "ctc.too_short",
        {"class": "softmax", "from": "y", "loss": "ctc", "target": "classes"},
        more={"y": ENC["x"]},
        lengths={**DENSE_LENGTHS, "data": (2, 4, 5)},
    ),
    loss(
        "ctc.ignore_longer",
        {
            "class": "softmax",
            "from": "y",
            "loss": "ctc",
            "target": "classes",
            "loss_opts": {"beam_width": 1, "ctc_opts": {"ignore_longer_outputs_than_inputs": True}},
        },
        more={"y": ENC["x"]},
        lengths={**DENSE_LENGTHS, "data": (2, 4, 5)},
    ),
    loss(
        "ctc.opts_collapse",
        {
            "class": "softmax",
            "from": "y",
            "loss": "ctc",
            "target": "classes",
            "loss_opts": {"ctc_opts": {"preprocess_collapse_repeated": True}},
        },
        more={"y": ENC["x"]},
    ),
    loss(
        "ctc.log_space",
        LOG_SPACE_CTC,
        more={"y": ENC["x"], "p": {"class": "linear", "activation": "log_softmax", "n_out": 6, "from": "y"}},
    ),
    loss(
        "ctc.log_space.unnormalized",
        LOG_SPACE_CTC,
        more={"y": ENC["x"], "p": {"class": "linear", "activation": None, "n_out": 6, "from": "y"}},
    ),
    ctc("viterbi", use_viterbi=True),
    ctc(
        "viterbi.too_short",
        use_viterbi=True,
        lengths=SEQUENCE_LENGTHS,
        differs="a target that does not fit has no path: RETURNN trains its frames towards label 0, here it has no "
        "gradient",
    ),
    ctc("viterbi.normalized", use_viterbi=True, use_normalized_loss=True),
    ctc("auto_clip", auto_clip_target_len=True, lengths=SEQUENCE_LENGTHS),
    ctc("auto_clip.collapse", auto_clip_target_len=True, target_collapse_repeated=True, lengths=SEQUENCE_LENGTHS),
    ctc("unmerged", ctc_opts={"ctc_merge_repeated": False}),
    ctc(
        "unmerged.too_short",
        ctc_opts={"ctc_merge_repeated": False, "ignore_longer_outputs_than_inputs": True},
        beam_width=1,
        lengths=SEQUENCE_LENGTHS,
    ),
    native_ctc("unmerged", ctc_merge_repeated=False),
    native_ctc("no_label_loop", label_loop=False),
    native_ctc("blank_last", blank_index=5),
    ctc(
        "native.blank_third",
        lengths={**DENSE_LENGTHS, **dict.fromkeys(("frames", "classes", "dense"), (3, 3, 1))},
        differs="RETURNN takes the last class for the blank in the error, whatever blank_index is in the value",
        use_native=True,
        beam_width=1,
        ctc_opts={"blank_index": 2},
    ),
    native_ctc("zero_infinity", zero_infinity=True, lengths=SEQUENCE_LENGTHS),
    native_ctc("scores", logits_normalize=False),
    native_ctc("gradient_of_scores", grad_wrt_softmax_in=False),
    edit_distance("label_map", label_map={0: 1, 1: 1, 2: 1, 3: 0, 4: 2}),
    edit_distance("label_map.removed", label_map={0: None, 1: 1, 2: 1, 3: 3, 4: None}),
    edit_distance("debug_print", debug_print=True),
    edit_distance("ctc_decode", DENSE_EDIT, 6, ctc_decode=True),
    edit_distance("ctc_decode.label_map", DENSE_EDIT, 6, ctc_decode=True, label_map={0: 1, 1: 1, 2: None, 3: 3, 4: 2}),
    loss(
        "edit_distance.ctc_decode.log_space",
        {**DENSE_EDIT, "loss_opts": {"ctc_decode": True, "output_in_log_space": True}},
        more={"y": ENC["x"], "p": {"class": "linear", "activation": "log_softmax", "n_out": 6, "from": "y"}},
    ),
    loss(
        "edit_distance",
        {"class": "reduce", "mode": "argmax", "axis": "F", "from": "p", "loss": "edit_distance", "target": "classes"},
        more={"y": ENC["x"], "p": {"class": "softmax", "n_out": 5, "from": "y"}},
    ),
    in_body("body.ce", PROB),
    in_body("body.ce_normalized", {**PROB, "loss_opts": {"use_normalized_loss": True}}),
    in_body("body.ce_upper_bound", {**PROB, "loss_opts": {"fake_upper_bound": 1.5}}),
    in_body("body.ce_custom_norm", {**PROB, "loss_opts": {"custom_norm_factor": 0.25, "use_normalized_loss": True}}),
    in_body(
        "body.ce_normalized_cycle",
        {**PROB, "loss_opts": {"use_normalized_loss": True, "fake_upper_bound": 1.5}},
        s={**EMBEDDED["s"], "from": ["e", "prev:p2"]},
        p2={"class": "linear", "activation": "tanh", "n_out": 2, "from": "prob", "initial_output": 0},
    ),
    in_body("body.ce_smoothed", {**PROB, "loss_opts": {"label_smoothing": 0.1}}),
    in_body(
        "body.ce_cycle",
        PROB,
        s={**EMBEDDED["s"], "from": ["e", "prev:p2"]},
        p2={"class": "linear", "activation": "tanh", "n_out": 2, "from": "prob", "initial_output": 0},
    ),
    in_body("body.as_is", {**PROB}, aux={"class": "reduce", "mode": "mean", "axis": "F", "from": "s", "loss": "as_is"}),
]
