"""Convolution and pooling over time, over a feature dim, over both."""

from dataclasses import replace

from ..probe import EQUAL_LENGTHS, inner, looped, outside, padding_apart

CONV = {"class": "conv", "n_out": 3, "filter_size": (3,), "padding": "same", "activation": None, "with_bias": True}
IMAGE = {"image": {"class": "split_dims", "axis": "F", "dims": (-1, 1), "from": "x"}}
CONV_2D = {**CONV, "filter_size": (3, 3), "in_spatial_dims": ["T", "dim:6"]}
SPLIT = {**CONV, "filter_size": (3, 3)}  # the new axis is one of the spatial axes by itself
POOL = {"class": "pool", "mode": "max", "pool_size": (2,), "padding": "same"}
LEAK = (
    "RETURNN convolves and pools over the padding of shorter sequences, and pads by the longest; here a sequence "
    "of a batch gives what it gives alone"
)
BLIND = {  # to the padding
    "conv.valid": {**CONV, "padding": "valid"},
    "conv.valid_strides": {**CONV, "padding": "valid", "strides": 2},
    "conv.masked": {**CONV, "use_time_mask": True},
    "pool.valid": {**POOL, "padding": "valid"},
    "pool.masked": {**POOL, "pool_size": (3,), "strides": 1, "use_time_mask": True},
    "pool.avg_masked": {**POOL, "mode": "avg", "pool_size": (3,), "strides": 1, "use_time_mask": True},
}
LEAKING = {
    "conv.strides": {**CONV, "strides": 2},
    "conv.dilation": {**CONV, "dilation_rate": 2},
    "conv.even_filter": {**CONV, "filter_size": (2,)},
    "conv.groups": {**CONV, "groups": 2, "n_out": 4},
    "conv.depthwise": {**CONV, "groups": 6, "n_out": 6},
    "conv.relu_no_bias": {**CONV, "activation": "relu", "with_bias": False},
    "conv.same_static": {**CONV, "padding": "same_static", "strides": 2},
    "pool.avg": {**POOL, "mode": "avg"},
    "pool.strides": {**POOL, "pool_size": (3,), "strides": 2},
}
UP = {"class": "transposed_conv", "n_out": 3, "filter_size": (3,), "activation": None}
MEAN = {"flat": {"class": "reduce", "mode": "mean", "axis": "T", "from": "probe"}}

CASES = [
    # With its loop optimiser RETURNN takes T of "flat" for the loop's own time once the layer has left: it is off here.
    replace(looped("transposed_conv", UP, encoder=True, flat=MEAN, lengths=EQUAL_LENGTHS), optimize=(False,)),
    *padding_apart(
        [
            outside("transposed_conv", UP, encoder=True),
            looped("transposed_conv", UP, encoder=True, cycle=True, flat=MEAN),
            *[
                outside(f"transposed_conv.{name}", {**UP, **options}, encoder=True)
                for name, options in {
                    "strides": {"strides": (2,)},
                    "stride_1": {"strides": (1,)},
                    "even": {"filter_size": (4,), "strides": (2,)},
                    "gaps": {"filter_size": (2,), "strides": (3,)},
                    "valid": {"strides": (2,), "padding": "valid"},
                    "remove_padding": {"strides": (2,), "remove_padding": 1},
                    "no_bias": {"with_bias": False, "activation": "relu"},
                    "output_padding": {"strides": (2,), "output_padding": 1},
                    "output_padding_0": {"strides": (3,), "output_padding": 0},
                    "output_padding_even": {"filter_size": (4,), "strides": (2,), "output_padding": [2]},
                    "output_padding_gaps": {"filter_size": (1,), "strides": (3,), "output_padding": 2},
                    "output_padding_valid": {"strides": (2,), "output_padding": 1, "padding": "valid"},
                    "output_padding_none": {"strides": (2,), "output_padding": [None], "remove_padding": 1},
                    "output_padding_removed": {"strides": (2,), "output_padding": 0, "remove_padding": 1},
                }.items()
            ],
        ],
        LEAK,
    ),
    outside("conv.of_input", CONV, source="data"),
    outside(
        "conv.bv0",
        {"class": "conv", "n_out": 3, "filter_size": (3,), "padding": "same"},
        source="data",
        behavior_version=0,
    ),
    *[outside(name, layer, encoder=True) for name, layer in BLIND.items()],
    outside("conv2d.valid", {**CONV_2D, "padding": "valid"}, source="image", more=IMAGE, encoder=True),
    outside(
        "pool.2d",
        {"class": "pool", "mode": "max", "pool_size": (2, 2), "padding": "valid", "in_spatial_dims": ["T", "dim:6"]},
        source="image",
        more=IMAGE,
        encoder=True,
    ),
    *padding_apart(
        [
            *inner("conv", CONV),
            outside("conv.of_input_strides", {**CONV, "strides": 2}, source="data"),
            outside("conv2d", CONV_2D, source="image", more=IMAGE, encoder=True),
            outside("conv2d.strides", {**CONV_2D, "strides": (1, 2)}, source="image", more=IMAGE, encoder=True),
            outside("conv2d.split", {**SPLIT, "input_split_feature_dim": 1}, encoder=True, behavior_version=0),
            outside("conv2d.add_feature", {**SPLIT, "input_add_feature_dim": True}, encoder=True, behavior_version=0),
            *inner("pool", POOL, cycle=False),
            *[outside(name, layer, encoder=True) for name, layer in LEAKING.items()],
            outside(
                "transposed_conv.filter_perm",
                {
                    **UP,
                    "filter": "w",
                    "filter_perm": {"dim:5": "dim:3", "dim:6": "dim:5", "dim:3": "dim:6"},
                    "n_out": 5,
                },
                base={"w": {"class": "variable", "shape": (5, 6, 3), "init": "glorot_uniform", "from": []}},
                encoder=True,
            ),
        ],
        LEAK,
    ),
]
