"""Layers that work on each element by itself."""

from ..probe import everywhere, looped, outside, padding_apart

SECOND = {"y": {"class": "linear", "activation": "sigmoid", "n_out": 6, "from": "x"}}
FLOAT = {"flat": {"class": "cast", "dtype": "float32", "from": "probe"}}
MASK = {"mask": {"class": "compare", "kind": "greater", "value": 0.1, "from": "x"}}
BOOLS = {
    "a": {"class": "compare", "kind": "greater", "value": 0.1, "from": "x"},
    "b": {"class": "compare", "kind": "less", "value": 0.3, "from": "x"},
}
POSITIVE = {  # both operands above zero, for pow and the divisions
    "p": {"class": "activation", "activation": "exp", "from": "x"},
    "y": {"class": "linear", "activation": "sigmoid", "n_out": 6, "from": "x"},
}

ACTIVATIONS = [
    *["relu", "tanh", "sigmoid", "exp", "swish", "log_sigmoid", "abs", "softmax", "log_softmax", "elu", "selu", "gelu"],
    *["softplus", "square", "softsign", "relu6", "leaky_relu", "sin", "sign", "rsqrt", "identity"],
]
COMBINE = ["add", "sub", "mul", "average", "maximum", "minimum", "squared_difference", "logaddexp"]
COMBINE_POSITIVE = ["truediv", "floordiv", "mod", "pow"]
EVAL = {
    "scale": "0.5 * source(0) + source(1)",
    "functions": "tf.nn.relu(source(0)) * tf.exp(source(1)) - tf.math.log(source(1) + 1.0)",
    "safe_log": "safe_log(tf.abs(source(0))) + source(1)",
    "where": "tf.where(tf.greater(source(0), source(1)), source(0), source(1) ** 2)",
    "clip": "tf.clip_by_value(source(0), -0.2, 0.2) + source(1)",
}
SHIFTED = {"class": "scaled_grad", "scale": 0.5, "shift": 0.3}
COMPARE = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "==", "!=", "<", "<=", ">", ">="]

CASES = [
    *[
        case
        for name in ACTIVATIONS
        for case in everywhere(
            f"activation.{name}",
            {"class": "activation", "activation": name},
            source="p" if name == "rsqrt" else "x",
            more=POSITIVE if name == "rsqrt" else None,
            cycle=name in {"relu", "softmax"},
        )
    ],
    outside("activation.none", {"class": "activation", "activation": None}),
    outside("activation.opts", {"class": "activation", "activation": "leaky_relu", "opts": {"alpha": 0.3}}),
    *[
        case
        for kind in COMBINE
        for case in everywhere(
            f"combine.{kind}", {"class": "combine", "kind": kind}, source=["x", "y"], more=SECOND, cycle=kind == "add"
        )
    ],
    *[
        case
        for kind in COMBINE_POSITIVE
        for case in everywhere(
            f"combine.{kind}", {"class": "combine", "kind": kind}, source=["p", "y"], more=POSITIVE, cycle=False
        )
    ],
    *[
        case
        for kind in ("logical_and", "logical_or")
        for case in everywhere(
            f"combine.{kind}", {"class": "combine", "kind": kind}, source=["a", "b"], more=BOOLS, flat=FLOAT, loss=False
        )
    ],
    outside("combine.three", {"class": "combine", "kind": "sub"}, source=["x", "y", "x"], more=SECOND),
    outside("combine.average_three", {"class": "combine", "kind": "average"}, source=["x", "y", "x"], more=SECOND),
    outside(
        "combine.bias_activation",
        {"class": "combine", "kind": "add", "with_bias": True, "activation": "tanh"},
        source=["x", "y"],
        more=SECOND,
    ),
    outside(
        "combine.eval",
        {"class": "combine", "kind": "eval", "eval": "source(0) * factor + source(1)", "eval_locals": {"factor": 0.3}},
        source=["x", "y"],
        more=SECOND,
    ),
    *everywhere(
        "combine.broadcast",
        {"class": "combine", "kind": "add"},
        source=["x", "m"],
        more={"m": {"class": "reduce", "mode": "mean", "axis": "F", "from": "x"}},
    ),
    *[
        case
        for name, text in EVAL.items()
        for case in everywhere(
            f"eval.{name}", {"class": "eval", "eval": text}, source=["x", "y"], more=SECOND, cycle=name == "scale"
        )
    ],
    outside(
        "eval.out_type",
        {"class": "eval", "eval": "tf.cast(tf.greater(source(0), 0.0), tf.int32)", "out_type": {"dtype": "int32"}},
        loss=False,
    ),
    looped("eval.axis", {"class": "eval", "eval": "tf.nn.softmax(source(0), axis=-1)"}),
    *[
        case
        for kind in COMPARE
        for case in everywhere(
            f"compare.{kind}",
            {"class": "compare", "kind": kind},
            source=["x", "y"],
            more=SECOND,
            flat=FLOAT,
            loss=False,
            cycle=kind == "less",
        )
    ],
    outside("compare.value_int", {"class": "compare", "value": 2}, source="data:classes", loss=False),
    outside(
        "compare.chain", {"class": "compare", "kind": "less", "value": 0.8}, source=["x", "y"], more=SECOND, loss=False
    ),
    *everywhere(
        "switch",
        {"class": "switch", "condition": "mask", "true_from": "x", "false_from": "y", "from": []},
        more={**SECOND, **MASK},
    ),
    *everywhere(
        "switch.number",
        {"class": "switch", "condition": "mask", "true_from": "x", "false_from": 0.25, "from": []},
        more=MASK,
    ),
    *everywhere("copy", {"class": "copy"}),
    outside("copy.two_sources", {"class": "copy"}, source=["x", "y"], more=SECOND),
    outside("copy.identity", {"class": "identity"}),
    *everywhere(
        "constant",
        {"class": "combine", "kind": "add"},
        source=["x", "c"],
        more={"c": {"class": "constant", "value": 0.75, "from": []}},
    ),
    outside("constant.batch", {"class": "constant", "value": 2, "with_batch_dim": True, "from": []}, loss=False),
    outside("constant.shape", {"class": "constant", "value": 0.5, "shape": (3,), "from": []}, loss=False),
    *everywhere(
        "variable",
        {"class": "combine", "kind": "mul"},
        source=["x", "v"],
        more={"v": {"class": "variable", "shape": (6,), "init": 0.5, "from": []}},
    ),
    outside("variable.param_name", {"class": "variable", "shape": (2, 3), "param_name": "w", "from": []}, loss=False),
    outside(
        "variable.add_batch_axis", {"class": "variable", "shape": (3,), "add_batch_axis": True, "from": []}, loss=False
    ),
    outside(
        "variable.add_time_axis",
        {"class": "variable", "shape": (3,), "add_batch_axis": True, "add_time_axis": True, "from": []},
        loss=False,
    ),
    outside(
        "variable.init_by_layer",
        {"class": "combine", "kind": "mul"},
        source=["x", "w"],
        base={
            "numbers": {"class": "variable", "shape": (6,), "init": "glorot_uniform", "from": []},
            "w": {
                "class": "variable",
                "shape": (6,),
                "init_by_layer": "numbers",
                "non_critical_for_restore": True,
                "from": [],
            },
        },
    ),
    *everywhere("gating", {"class": "gating", "activation": "tanh"}),
    *everywhere(
        "gating.identity_relu", {"class": "gating", "activation": None, "gate_activation": "relu"}, cycle=False
    ),
    outside("gating.two_sources", {"class": "gating", "activation": "tanh"}, source=["x", "y"], more=SECOND),
    *everywhere("cast", {"class": "cast", "dtype": "int32"}, flat=FLOAT, loss=False),
    *everywhere("print", {"class": "print"}),
    *everywhere("scaled_grad", {"class": "scaled_grad", "scale": -0.5}),
    *everywhere("scaled_grad.clip", {"class": "scaled_grad", "scale": 1.7, "clip_max_axis": "F"}),
    *everywhere("scaled_grad.clip_sum", {**SHIFTED, "scale_shift_by_sum_over_axis": "F", "clip_max_axis": "F"}),
    *everywhere("scaled_grad.sum", {**SHIFTED, "scale_shift_by_sum_over_axis": "F"}),
    *everywhere(
        "scaled_grad.layers",
        {"class": "scaled_grad", "scale": "factor", "shift": "factor", "scale_shift_by_sum_over_axis": "F"},
        more={"factor": {"class": "activation", "activation": "sigmoid", "from": "x"}},
    ),
    *padding_apart(
        everywhere("scaled_grad.shift", SHIFTED), "RETURNN shifts the gradient of the padding, too, which has none here"
    ),
]
