"""Random layers under masks."""

from __future__ import annotations

from hypothesis import strategies as st

from returnn_lite.dims import DimKind, Symbol
from tests.properties.cell_options import one_in
from tests.properties.parts import ATTENTION, SIZE, Draw, Layers, Place, a_source, combined, linear, summed
from tests.properties.recurrences import step_under_a_mask


def masked(draw: Draw, name: str, place: Place) -> Layers:
    """A layer under a mask, perhaps fed by a sequence from around, perhaps with an unmask layer."""
    unit = _unit(draw, place, place.masks)
    mask = draw(st.sampled_from(place.masks))
    masked = {"class": "masked_computation", "mask": mask, "from": a_source(draw, place), "unit": unit, "n_out": SIZE}
    form = draw(st.sampled_from(["", "unmask", "masked_from", "out_spatial_dim"]))
    if form == "unmask":
        return {f"{name}_m": masked, name: {"class": "unmask", "from": f"{name}_m", "mask": mask}}
    if form == "masked_from":
        masked["masked_from"] = "base:frames"
    if form == "out_spatial_dim":
        masked["out_spatial_dim"] = Symbol(f"{name}_masked", DimKind.SPATIAL)
    return {name: masked}


def parts_under_a_mask(draw: Draw, name: str, place: Place) -> Layers:
    """Two layers of one unit, and the step before of one of them."""
    inner = {"one": linear("data", "tanh"), "output": linear(["one", "prev:one", "data"])}
    halves = {"class": "split", "axis": "F", "size_splits": [1, SIZE - 1], "from": "data"}
    unit, parts = draw(st.sampled_from([(_sub(inner), ["one", "output"]), (halves, ["0", "1"])]))
    mask = draw(st.sampled_from(place.masks))
    computed = {"class": "masked_computation", "mask": mask, "from": a_source(draw, place), "unit": unit}
    read = [f"{name}_m/{part}" for part in parts]
    if draw(st.booleans()):
        read[0] = f"prev:{read[0]}"
    return {f"{name}_m": computed, name: linear(read)}


def _unit(draw: Draw, place: Place, masks: list[str], prefix: str = "") -> Layers:
    """A layer of `data` [SIZE]."""
    if one_in(draw, 4):
        return step_under_a_mask(draw, prefix)
    causal = {"class": "window", "window_size": 2, "window_right": 0, "from": "data"}
    units: list[Layers] = [
        linear("data", "tanh"),
        {"class": "cumsum", "from": "data", "initial_output": 0.5},
        {"class": "copy", "from": "data", "initial_output": 0.5},
        {"class": "positional_encoding", "add_to_input": True, "from": "data"},
        {**ATTENTION, "attention_left_only": True, "from": "data"},
        _sub(summed("output", causal)),
        _sub(
            {
                "shift": POSITIONS,
                "output": {**ATTENTION, "attention_left_only": True, "key_shift": "shift", "from": "data"},
            }
        ),
        _sub({"output": linear(["data", "prev:output"], "tanh")}),
        {**linear("data"), "dropout": 0.5},
        _sub({"random": DRAWN, "output": combined("mul", "data", "random")}),
        {**linear("data"), "loss": "as_is"},
    ]
    if place.ahead:
        units += [
            {"class": "batch_norm", "masked_time": True, "from": "data"},
            {**ATTENTION, "from": "data"},
            _sub(summed("output", {**causal, "window_right": 1})),
        ]
    if not prefix:  # another mask in this one
        under = _unit(draw, place, [f"base:{mask}" for mask in masks], "base:")
        mask = f"base:{draw(st.sampled_from(place.masks))}"
        inner = {"class": "masked_computation", "mask": mask, "from": "in", "unit": under, "n_out": SIZE}
        units.append(_sub({"in": linear("data"), "under": inner, "output": linear(["under", "in"])}))
    return draw(st.sampled_from(units))


POSITIONS: Layers = {"class": "relative_positional_encoding", "n_out": 2, "clipping": 2, "from": "data"}
DRAWN: Layers = {"class": "random", "distribution": "normal", "shape": ("B", SIZE)}


def _sub(layers: Layers) -> Layers:
    return {"class": "subnetwork", "from": "data", "subnetwork": layers}
