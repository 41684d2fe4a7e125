"""Random networks with a loop: what it runs over and how it ends, its choices, what is read from around, and what
nothing needs of what is read outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tests.properties.corners import AROUND
from tests.properties.layers import layer
from tests.properties.parts import SIZE, Place, linear

Network = dict[str, Any]
CLASSES = 5


@st.composite
def networks(draw: st.DrawFn, risk: bool = False, alone: bool = False) -> Network:
    """A config with a decoder over the target's time, or over the input's (then every frame has a target).

    With `risk`, training may search as well. `alone`: no sequence sees another.
    """
    framewise = draw(st.booleans())
    risk = risk and draw(st.sampled_from([False, False, False, True]))
    names = [f"l{index}" for index in range(draw(st.integers(1, 4)))]
    free = [f"f{index}" for index in range(draw(st.integers(0, 2)))] if framewise else []
    corners = draw(st.lists(st.sampled_from(AROUND), max_size=1))
    corner = {name: layer for kind in corners for name, layer in kind(draw, "corner").items()}
    unit = _masks(draw, framewise) | _free_layers(draw, free, alone)
    masks = ["prev:mask", "prev:other"]
    later = ["prev:embed", *(f"prev:{name}" for name in names)]
    around = [*(["data:source"] if framewise else []), "base:context", *free, *(["base:corner"] if corner else [])]
    for index, name in enumerate(names):
        place = Place([*names[:index], *around, *later], masks, names[:index], alone=alone)
        unit |= draw(layer(name, place))
    if draw(st.booleans()):  # search needs none of this
        place = Place([*names, *around, "embed", "prev:embed"], ["mask", "prev:other"], names, ahead=True, alone=alone)
        unit |= draw(layer("behind", place))
        unit["behind"]["is_output_layer"] = True
    if draw(st.booleans()):
        unit[draw(st.sampled_from(names))] |= {"loss": "as_is", "loss_scale": 0.5}
    last = draw(st.lists(st.sampled_from([*names, *around, "prev:embed"]), min_size=1, max_size=2, unique=True))
    unit |= _choices(draw, sorted({*last, names[-1]}))
    if risk:
        _search_in_training(unit)
    loop = {"class": "rec", "target": "classes", "unit": unit, **_length(draw, framewise)}
    if not framewise:
        unit["end"] = {"class": "compare", "from": "output", **draw(st.sampled_from(ENDS))}
    shared = {"same_dim_tags_as": {"t": "data"}} if framewise else {}
    return {
        "behavior_version": 21,
        "recompute": draw(st.sampled_from(["none", "all"])),
        "target": "classes",
        "extern_data": {
            "data": {"dim": SIZE},
            "classes": {"dim": CLASSES, "sparse": True, "available_for_inference": False, **shared},
        },
        "network": {
            "frames": {"class": "linear", "from": "data", "n_out": SIZE, "activation": "tanh"},
            "context": {"class": "reduce", "mode": "mean", "axis": "T", "from": "frames"},
            "scores": {**linear("frames"), "n_out": CLASSES},
            "right": {"class": "reduce", "mode": "argmax", "axis": "F", "from": "scores"},
            **corner,
            "output": loop,
            "decision": {"class": "decide", "from": "output", "only_on_search": True, "is_output_layer": True},
            **({"risk": RISK} if risk else {}),
        },
    }


RISK: Network = {
    "class": "copy",
    "from": "output",
    "target": "classes",
    "loss": "expected_loss",
    "loss_opts": {"loss": {"class": "edit_distance"}, "loss_kind": "error"},
}
ENDS: list[Network] = [{"kind": "equal", "value": 0}, {"kind": "greater_equal", "value": 0}]
"""At label 0, or at once."""
LIMITS = [5, 0, "max_len_from('base:frames')"]


def _length(draw: st.DrawFn, framewise: bool) -> Network:
    """How many steps the loop has."""
    if framewise:
        return {"from": "data", **draw(st.sampled_from([{}, {"axis": "T"}]))}
    return {
        "from": [],
        "max_seq_len": draw(st.sampled_from(LIMITS)),
        "include_eos": draw(st.booleans()),
        **draw(st.sampled_from([{}, {}, {"size_target": "classes"}])),
    }


def _masks(draw: st.DrawFn, framewise: bool) -> Network:
    """Of the labels; some are never true, some always, also in padding. And one of the frames."""
    masks: Network = {
        "mask": {"class": "compare", "from": "output", "kind": "not_equal", "value": draw(st.integers(0, 5)),
                 "initial_output": draw(st.booleans())},
        "other": {"class": "compare", "from": "output", "kind": "less", "value": draw(st.integers(0, 5)),
                  "initial_output": draw(st.booleans())},
    }  # fmt: skip
    if framewise:
        masks["sum"] = {"class": "reduce", "mode": "sum", "axis": "F", "from": "data:source"}
        masks["positive"] = {"class": "compare", "from": "sum", "kind": "greater", "value": 0}
    return masks


def _free_layers(draw: st.DrawFn, names: list[str], alone: bool) -> Network:
    """Layers that depend on nothing but the frames, so that in search they are in no cycle either."""
    layers: Network = {}
    for index, name in enumerate(names):
        before = names[:index]
        sources = ["data:source", "base:context", *before, *(f"prev:{other}" for other in before)]
        place = Place(sources, ["positive"], before, labels="", ahead=True, alone=alone)
        layers |= draw(layer(name, place))
    return layers


@st.composite
def _choice(draw: st.DrawFn, name: str, source: str, sums: bool, beam: int) -> Network:
    """A choice and the scores it is made from."""
    input_type = draw(st.sampled_from(["prob", "log_prob", "logits"]))
    activation = {"prob": "softmax", "log_prob": "log_softmax", "logits": None}[input_type]
    options = {"input_type": input_type, **draw(st.sampled_from(SCORES))}
    if sums:
        options["length_normalization"] = False
    else:
        options |= draw(st.sampled_from([{}, {"length_normalization_exponent": 0.5}]))
    choice = {"class": "choice", "from": source, "target": "classes", "beam_size": beam, "initial_output": 1}
    return {source: {"class": "linear", "activation": activation, "n_out": CLASSES}, name: {**choice, **options}}


SCORES: list[Network] = [
    {},
    {"prob_scale": 0.5},
    {"base_beam_score_scale": 0.9},
    {"custom_score_combine": "0.5 * scores_in + scores_base"},
    {"custom_score_combine": "scores_in + 0.9 * scores_base - 0.1 * tf.cast(t, tf.float32)"},
    {"custom_score_combine": "scores_base + tf.where(end_flags, scores_in, 2.0 * scores_in)"},
]
"""How the scores of a step and of the hypotheses combine."""
SAMPLING: list[Network] = [
    {},
    {},
    {"scheduled_sampling": True},
    {"scheduled_sampling": {"gold_mixin_prob": 0.5}},
]
"""What is drawn is the same whatever runs it: draws depend on the step, the sequence and the layer alone."""


def _choices(draw: st.DrawFn, sources: list[str]) -> Network:
    """The choice of each step, perhaps with another before it; and the vectors of what they chose."""
    sums = draw(st.booleans())
    layers = draw(_choice("output", "prob", sums, 3)) | {"embed": {**linear("output"), "initial_output": 0}}
    layers["prob"]["from"] = sources
    if layers["output"]["input_type"] != "logits":
        layers["prob"] |= {"loss": "ce", "target": "classes"}
    final = draw(st.sampled_from([{}, {}, {"cheating": True}, {"cheating": "exclusive"}, {"keep_beams": True}]))
    if draw(st.sampled_from([False, False, True])):
        layers |= draw(_choice("first", "prob_first", sums, 2))
        layers["prob_first"]["from"] = ["prev:embed", "prev:embed_first"]
        layers["embed_first"] = {**linear("first"), "initial_output": 0}
        layers["first"]["is_output_layer"] = True
        if draw(st.booleans()):
            layers["first"]["search"] = False
            layers["first"]["add_to_beam_scores"] = sums
            layers["first"].pop("custom_score_combine", None)
        if draw(st.booleans()):
            layers["prob"]["from"] = [*sources, "embed_first"]
        else:
            layers["output"]["explicit_search_sources"] = ["first"]
        if "keep_beams" in final:
            layers["output"]["beam_size"] = 4
        layers["first"] |= draw(st.sampled_from(SAMPLING))
    layers["output"] |= final | draw(st.sampled_from(SAMPLING))
    if not layers["output"].get("cheating") and draw(st.sampled_from([False, False, False, True])):
        layers["prob_second"] = {**layers["prob"], "from": ["prev:embed_second", *sources]}
        layers["prob_second"].pop("loss", None)
        second = {"from": ["prob", "prob_second"], "target": ["classes", "classes"], "source_beam_sizes": [3, 2]}
        layers["output"] |= second
        layers["embed_second"] = {**linear("output/out_1"), "initial_output": 0}
    return layers


def _search_in_training(unit: Network) -> None:
    """Minimum-risk training."""
    for choice in [one for one in unit.values() if one["class"] == "choice"]:
        choice.setdefault("search", True)
        choice.pop("scheduled_sampling", None)


def needs_targets(config: Mapping[str, Any]) -> bool:
    """Whether search needs the targets: for its lengths, or a choice reads them."""
    loop = config["network"]["output"]
    choices = [one for one in loop["unit"].values() if one["class"] == "choice"]
    return "size_target" in loop or any("cheating" in one or "search" in one for one in choices)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """The lengths of data and targets of three sequences; of some there is nothing."""
    return draw(st.sampled_from([([4, 2, 3], [3, 4, 1]), ([4, 0, 3], [3, 0, 1]), ([1, 3, 2], [0, 0, 0])]))
