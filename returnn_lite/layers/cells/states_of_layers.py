"""Values of other layers as states of a unit: with the dims that its states have."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from returnn_lite.dims import Dim, DimKind, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, Outputs
from returnn_lite.layers.cells.given_states import Entry
from returnn_lite.layers.cells.unit import Unit


def dims_around(unit: Unit, time: Dim | None) -> Collection[Dim]:
    """The dims that a unit has a state for each entry of, with those of its inputs."""
    return {dim for value in unit.inputs for dim in value.type.dims if dim is not time}


def part_of_joined(
    b: LayerBuilder, outputs: Outputs, entry: Entry, key: str, types: Mapping[str, MarkedType]
) -> Outputs:
    """What a layer gives for a state: where it has no such state, but as many features as all of the entry's states
    together, those of that one, in the order of the unit's states."""
    value, group = outputs.value, [types[one] for one in entry.group if one in types]
    if key in outputs.state or len(group) < 2 or len(group) != len(entry.group) or value.type.feature is None:
        return outputs
    features = [type_.feature for type_ in group if type_.feature is not None]
    sizes = [dim.size for dim in features if dim.size is not None]
    if sum(sizes) != value.type.feature.size or len(sizes) != len(group):
        return outputs
    place = entry.group.index(key)
    part = b.slice(value, value.type.feature, sum(sizes[:place]), features[place])
    return Outputs(b.as_features(part, features[place]))


def state_of_layer(
    b: LayerBuilder, key: str, entry: Entry, types: Mapping[str, MarkedType], around: Collection[Dim], option: str
) -> View:
    """A layer's state of the key, or its value where it has none, as a state of this unit."""
    reference = entry.value
    if not isinstance(reference, str):
        b.fail(f"state: '{key}' is not a layer: {reference!r}", "Give a layer, or one for each state.", "state")
    outputs = part_of_joined(b, b.layer_outputs(reference), entry, key, types)
    require_one(b, key, reference, outputs, around, option)
    return as_state(b, key, reference, outputs, types[key])


def require_one(
    b: LayerBuilder, key: str, reference: str, outputs: Outputs, around: Collection[Dim], option: str
) -> None:
    """Fails if a layer has frames where one state is needed."""
    type_ = outputs.state.get(key, outputs.value).type
    if any(dim.is_ragged and dim.kind is DimKind.SPATIAL and dim not in around for dim in type_.dims):
        b.fail(
            f"the state '{key}' is one for each sequence, but '{reference}' has frames: {type_}",
            "Name a recurrent layer, whose last state is taken; or reduce the frames.",
            option,
        )


def as_state(b: LayerBuilder, key: str, reference: str, outputs: Outputs, type_: MarkedType) -> View:
    """A layer's state of the key, or its value, with the dims of this unit's state: the features, and the spatial dims,
    in order where these are others. Without any it is the same at all places."""
    value, hidden = outputs.state.get(key, outputs.value), type_.feature
    if hidden is None:
        return value
    reason = f"the state '{key}' of '{b.name}' from '{reference}'"
    outer, feature = (DimKind.BATCH, DimKind.BEAM), b.feature_of(value)
    places = [dim for dim in type_.dims if dim is not hidden and dim not in value.type]
    given = [dim for dim in value.type.dims if dim.kind not in outer and dim not in (feature, *type_.dims)]
    if given and len(type_.dims) > 1:
        if [dim.size for dim in given] != [dim.size for dim in places]:
            message = f"{reason} has the dims [{_listed(given)}] where [{_listed(places)}] are needed"
            b.fail(message, "Name a layer with these.", "initial_state")
        for own, dim in zip(given, places, strict=True):
            value = b.relabel(value, own, dim, reason)
    return b.relabel(value, feature, hidden, reason)


def _listed(dims: Collection[Dim]) -> str:
    return ", ".join(map(str, dims))
