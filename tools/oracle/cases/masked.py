"""Computations on masked frames, and back."""

from ..case import Case, Net, objective

LINEAR = {"class": "linear", "activation": "tanh", "n_out": 3}
# False in the padding, which is zero: RETURNN fails on a True there (SEMANTICS 5.1).
MASK = {
    "first": {"class": "gather", "axis": "F", "position": 0, "from": "data:source"},
    "second": {"class": "gather", "axis": "F", "position": 1, "from": "data:source"},
    "mask": {"class": "compare", "kind": "greater", "value": 0.01, "from": "first", "initial_output": True},
}
X = {"x": {"class": "linear", "activation": "tanh", "n_out": 6, "from": "data:source"}}
UNITS = {
    "linear": {**LINEAR, "from": "data"},
    "copy": {"class": "copy", "from": "data"},
    "rnn_cell": {"class": "rnn_cell", "unit": "lstmblock", "n_out": 3, "from": "data"},
    "lstm": {"class": "rec", "unit": "lstm", "n_out": 3, "from": "data"},
    "gru": {"class": "rec", "unit": "gru", "n_out": 3, "from": "data"},
    "cumsum": {"class": "cumsum", "from": "data"},
    "positional_encoding": {"class": "positional_encoding", "add_to_input": True, "from": "data"},
    "self_attention": {
        "class": "self_attention",
        "num_heads": 2,
        "total_key_dim": 4,
        "n_out": 6,
        "attention_left_only": True,
        "from": "data",
    },
    "subnetwork": {
        "class": "subnetwork",
        "from": "data",
        "subnetwork": {
            "h": {**LINEAR, "from": "data"},
            "output": {"class": "rnn_cell", "unit": "gru", "n_out": 3, "from": "h"},
        },
    },
}


def in_loop(name: str, unit: Net, **options) -> Case:
    network: Net = {"output": {"class": "rec", "from": "data:frames", "unit": {**X, **MASK, **unit}}}
    return Case(name, network | objective(), ("output",), optimize=(True, False), **options)


def masked(unit: dict, source: str = "x", mask: str = "mask") -> dict:
    return {"class": "masked_computation", "mask": mask, "from": source, "unit": unit}


def whole(name: str, network: Net, layers: tuple[str, ...], **options) -> Case:
    base: Net = {
        "x": {**LINEAR, "n_out": 6, "from": "data:frames"},
        "mask": {"class": "compare", "kind": "not_equal", "value": 0, "from": "data:classes"},
        "output": {"class": "copy", "from": "u"},
    }
    return Case(name, base | network | objective(), layers, **options)


FEEDBACK: Net = {  # the masked value takes part in the next step
    "z": {**LINEAR, "from": ["x", "prev:u"]},
    "m": masked({**LINEAR, "from": "data"}, "z"),
    "u": {"class": "unmask", "mask": "mask", "from": "m", "initial_output": 0},
    "output": {"class": "copy", "from": "u"},
}

FROM_AROUND: Net = {
    "here": {"class": "compare", "kind": "not_equal", "value": 0, "from": "data:classes"},
    "u": {"class": "unmask", "mask": "here", "from": "base:m"},
    "output": {**LINEAR, "from": ["u", "data:source"]},
}
CYCLE_FROM_AROUND: Net = {"output": {**LINEAR, "from": ["u", "data:source", "prev:output"]}}

CASES = [
    *[
        in_loop(
            f"masked_computation.{name}.loop",
            {"m": masked(unit), "output": {"class": "unmask", "mask": "mask", "from": "m"}},
        )
        for name, unit in UNITS.items()
    ],
    in_loop("masked_computation.no_unmask", {"m": masked(UNITS["lstm"]), "output": {"class": "copy", "from": "m"}}),
    in_loop(
        "masked_computation.with_unmasked",
        {
            "m": masked(UNITS["rnn_cell"]),
            "u": {"class": "unmask", "mask": "mask", "from": "m"},
            "output": {**LINEAR, "from": ["u", "x"]},
        },
    ),
    in_loop(
        "masked_computation.two",
        {
            "m": masked(UNITS["linear"]),
            "n": masked(UNITS["rnn_cell"], "m"),
            "u": {"class": "unmask", "mask": "mask", "from": "n"},
            "output": {"class": "copy", "from": "u"},
        },
    ),
    in_loop(
        "masked_computation.two_masks",
        {
            "other": {"class": "compare", "kind": "greater", "value": 0.01, "from": "second"},
            "m": masked(UNITS["lstm"]),
            "u": {"class": "unmask", "mask": "mask", "from": "m"},
            "n": masked(UNITS["lstm"], "u", "other"),
            "v": {"class": "unmask", "mask": "other", "from": "n"},
            "output": {"class": "copy", "from": "v"},
        },
    ),
    in_loop(
        "masked_computation.prev_mask",
        {
            "m": masked(UNITS["rnn_cell"], "x", "prev:mask"),
            "output": {"class": "unmask", "mask": "prev:mask", "from": "m"},
        },
    ),
    in_loop(
        "masked_computation.prev_of_unmasked",
        {
            "m": masked(UNITS["rnn_cell"]),
            "u": {"class": "unmask", "mask": "mask", "from": "m", "initial_output": 0},
            "output": {"class": "copy", "from": "prev:u"},
        },
    ),
    in_loop(
        "masked_computation.initial_output",
        {
            "m": masked({**UNITS["linear"], "initial_output": 0.5}),
            "output": {"class": "unmask", "mask": "mask", "from": "m"},
        },
    ),
    *[
        Case(
            f"unmask.from_around.{name}",
            {
                "x": {**LINEAR, "n_out": 3, "from": "data:frames"},
                "mask": {"class": "compare", "kind": "not_equal", "value": 0, "from": "data:classes"},
                "m": masked(UNITS["lstm"]),
                "output": {"class": "rec", "from": "data:frames", "unit": {**FROM_AROUND, **unit}},
                **objective(),
            },
            ("output",),
            optimize=(True, False),
        )
        for name, unit in (("loop", {}), ("cycle", CYCLE_FROM_AROUND))
    ],
    in_loop("masked_computation.cycle", FEEDBACK),
    in_loop("masked_computation.cycle_cell", {**FEEDBACK, "m": masked(UNITS["rnn_cell"], "z")}),
    in_loop(
        "masked_computation.all_true_padding",
        {
            "mask": {"class": "compare", "kind": "less", "value": 0.01, "from": "first", "initial_output": True},
            "m": masked(UNITS["lstm"]),
            "output": {"class": "unmask", "mask": "mask", "from": "m"},
        },
    ),
    *[
        whole(
            f"masked_computation.{name}.outside",
            {
                "m": masked(unit),
                "c": {"class": "copy", "from": "m"},
                "u": {"class": "unmask", "mask": "mask", "from": "c"},
            },
            ("m", "output"),
        )
        for name, unit in UNITS.items()
    ],
]
