"""Random layers of kinds that once were wrong: what works over the batch, what lacks it, lengths that shrink to
nothing, long ways through `prev:`, convolutions one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import strategies as st

from tests.properties.parts import SIZE, Draw, Layers, Place, a_source, combined, linear
from tests.properties.recurrences import around

# In a loop, also under its masks


def over_the_batch(draw: Draw, name: str, place: Place) -> Layers:
    """Of the sequences that run at the step, and where the mask is true."""
    one, way = f"{name}_i", draw(st.sampled_from(sorted(OVER_THE_BATCH)))
    before = {one: combined("add", "base:context", a_source(draw, place))}
    made = {f"{name}_o": {**OVER_THE_BATCH[way], "from": "data"}, "output": combined("add", f"{name}_o", "data")}
    if draw(st.booleans()):
        unit = {"class": "subnetwork", "from": "data", "subnetwork": made}
        mask = draw(st.sampled_from(place.masks))
        masked = {"class": "masked_computation", "mask": mask, "from": one, "unit": unit, "n_out": SIZE}
        return {**before, name: masked}
    return {
        **before,
        f"{name}_o": {**OVER_THE_BATCH[way], "from": one},
        f"{name}_c": combined("add", f"{name}_o", one),
        name: linear(f"{name}_c", "tanh"),
    }


OVER_THE_BATCH: dict[str, Layers] = {
    **{mode: {"class": "reduce", "mode": mode, "axis": "B"} for mode in ("sum", "mean", "max", "min")},
    "norm": {"class": "norm", "axes": "B"},
    "softmax": {"class": "eval", "eval": "tf.nn.softmax(source(0), axis=0)"},
    "sum so far": {"class": "cumsum", "axis": "B"},
    "sum from the end": {"class": "cumsum", "axis": "B", "reverse": True},
    "neighbour": {"class": "shift_axis", "axis": "B", "amount": 1, "adjust_size_info": False},
    "first": {"class": "gather", "axis": "B", "position": 0},
    "pool": {
        "class": "pool",
        "in_spatial_dims": ["B"],
        "mode": "max",
        "pool_size": (2,),
        "strides": 1,
        "padding": "same",
    },
}


def far_back(draw: Draw, name: str, place: Place) -> Layers:
    """A truth that comes from many steps ago, or through many copies."""
    count, before = draw(st.sampled_from([2, 5, 60])), draw(st.sampled_from(["prev:", ""]))
    layers: Layers = {
        f"{name}_s": {"class": "reduce", "mode": "sum", "axis": "F", "from": a_source(draw, place)},
        f"{name}_0": {"class": "compare", "kind": "greater", "value": 0, "from": f"{name}_s"},
    }
    for i in range(count):
        layers[f"{name}_{i + 1}"] = {"class": "copy", "from": f"{before}{name}_{i}"}
    chosen = {"condition": f"prev:{name}_{count}", "true_from": a_source(draw, place), "false_from": "base:context"}
    return {**layers, f"{name}_b": {"class": "switch", **chosen}, name: linear(f"{name}_b")}


# Around the loop


def shrunk(draw: Draw, name: str) -> Layers:
    """Convolutions and what else changes lengths, one after the other, each on what may be nothing."""
    return _chain(draw, name, "frames", LENGTHS, 4)


def alike(draw: Draw, name: str) -> Layers:
    """What is the same for all sequences, but has as many frames as each."""
    start = draw(st.sampled_from([POSITIONS, RANGE]))
    return {f"{name}_a": start, **_chain(draw, name, f"{name}_a", ALIKE if start is POSITIONS else ALONG, 2)}


def _chain(draw: Draw, name: str, source: str, steps: Mapping[str, Layers], most: int) -> Layers:
    """The sum of frames beside the context, bounded."""
    layers: Layers = {}
    for i, step in enumerate(draw(st.lists(st.sampled_from(sorted(steps)), min_size=1, max_size=most))):
        layers[f"{name}_{i}"] = {**steps[step], "from": source}
        source = f"{name}_{i}"
    total = {"class": "reduce", "mode": draw(st.sampled_from(["sum", "mean"])), "axis": "T", "from": source}
    return {
        **layers,
        f"{name}_t": total,
        f"{name}_c": combined("add", "context", f"{name}_t"),
        name: linear(f"{name}_c", "tanh"),
    }


CONV: Layers = {"class": "conv", "n_out": SIZE, "activation": "tanh", "with_bias": True}
POOL: Layers = {"class": "pool", "in_spatial_dims": ["T"]}
LENGTHS: dict[str, Layers] = {
    **{f"valid {n}": {**CONV, "filter_size": (n,), "padding": "valid"} for n in (2, 3, 6)},
    "valid, strides": {**CONV, "filter_size": (2,), "padding": "valid", "strides": 2},
    "same": {**CONV, "filter_size": (3,), "padding": "same"},
    "same, strides": {**CONV, "filter_size": (3,), "padding": "same", "strides": 2},
    "same, dilation": {**CONV, "filter_size": (2,), "padding": "same", "dilation_rate": 2},
    "transposed": {"class": "transposed_conv", "n_out": SIZE, "filter_size": (3,), "strides": (2,), "activation": None},
    "transposed, less": {
        "class": "transposed_conv", "n_out": SIZE, "filter_size": (2,), "strides": (1,), "remove_padding": 1,
        "activation": None,
    },
    "max": {**POOL, "mode": "max", "pool_size": (2,), "padding": "valid"},
    "avg": {**POOL, "mode": "avg", "pool_size": (3,), "strides": (2,), "padding": "same"},
    "max, leaving out": {**POOL, "mode": "max", "pool_size": (1,), "strides": (3,), "padding": "valid"},
    "avg, leaving out": {**POOL, "mode": "avg", "pool_size": (2,), "strides": (3,), "padding": "same"},
    "pad": {"class": "pad", "axes": "T", "padding": [2, 3], "mode": "constant", "value": 0.5},
    "slice": {"class": "slice", "axis": "T", "slice_start": 2},
    "slice to": {"class": "slice", "axis": "T", "slice_end": -1},
    "slice step": {"class": "slice", "axis": "T", "slice_step": 2},
    "prefix": {"class": "prefix_in_time", "prefix": 0.5},
    "postfix": {"class": "postfix_in_time", "postfix": 0.5},
    "repeat": {"class": "repeat", "repetitions": 2},
    "shift": {"class": "shift_axis", "axis": "T", "amount": -1},
    "backwards": {"class": "rec", "unit": "nativelstm2", "n_out": SIZE, "direction": -1},
}  # fmt: skip
POSITIONS: Layers = {"class": "positional_encoding", "n_out": SIZE, "from": "frames"}
RANGE: Layers = {"class": "range_in_axis", "axis": "T", "dtype": "float32", "from": "frames"}
ALONG: dict[str, Layers] = {
    "softmax": {"class": "softmax_over_spatial"},
    "sum": {"class": "cumsum", "axis": "T", "reverse": True},
    "shift": LENGTHS["shift"],
    "slice": LENGTHS["slice"],
    "mask": {"class": "seq_len_mask", "axis": "T", "mask_value": 0.0},
}
ALIKE: dict[str, Layers] = {
    **ALONG,
    **{name: LENGTHS[name] for name in ("valid 2", "same", "max", "backwards", "postfix", "pad", "repeat", "slice to")},
    "norm": {"class": "norm", "axes": ["T", "F"]},
    "norm of time": {"class": "norm", "axes": "T"},
}

In = Callable[[Draw, str, Place], Layers]
Around = Callable[[Draw, str], Layers]
IN_LOOP: list[In] = [over_the_batch, far_back]
AROUND: list[Around] = [shrunk, alike, around]
