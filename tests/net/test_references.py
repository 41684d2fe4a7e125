"""References in `from` and in options, from everywhere: what they stand for, and what is said of those that are wrong
(SEMANTICS 1.2, 1.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.compiler import build
from returnn_lite.config.diagnostics import ConfigError, Diagnostic

EXTERN_DATA = {"data": {"dim": 2}, "classes": {"dim": 5, "sparse": True}}
X = np.arange(12, dtype="float32").reshape(2, 3, 2)
BOTH = pytest.mark.parametrize("optimize", [True, False])


def mistakes(network: dict[str, Any]) -> list[Diagnostic]:
    with pytest.raises(ConfigError) as raised:
        build({"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}, "train")
    return list(raised.value.diagnostics)


def output(network: dict[str, Any], optimize: bool = True) -> Any:
    net = rl.compile(network, extern_data={"data": {"dim": 2}}, mode="forward", behavior_version=21, optimize=optimize)
    found = net.run({"data": X}, {"data": [3, 3]}).layers["output"]
    return np.moveaxis(np.asarray(found.value), found.dims.index("B"), 0)


def copy(*sources: str) -> dict[str, Any]:
    return {"class": "copy", "from": list(sources)}


def times(factor: int, source: str = "data") -> dict[str, Any]:
    return {"class": "eval", "eval": f"source(0) * {factor}", "from": source}


OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("boolean_mask", "mask", {"dims": ["T"]}),
    ("constant", "shape_deps", {"value": 1, "from": []}),
    ("copy", "extra_deps", {}),
    ("conv", "filter", {"filter_size": [1], "padding": "same", "n_out": 3}),
    ("conv", "bias", {"filter_size": [1], "padding": "same", "n_out": 3}),
    ("gather", "position", {"axis": "T"}),
    ("gather_nd", "position", {}),
    ("generic_attention", "weights", {"base": "data", "from": []}),
    ("generic_attention", "base", {"weights": "key", "from": []}),
    ("masked_computation", "mask", {"unit": {"class": "copy"}}),
    ("postfix_in_time", "postfix", {}),
    ("prefix_in_time", "repeat", {}),
    ("rec", "initial_state", {"unit": "nativelstm2", "n_out": 3}),
    ("reinterpret_data", "size_base", {}),
    ("repeat", "repetitions", {"axis": "T"}),
    ("scatter_nd", "position", {"position_axis": "T", "output_dim_via_time_from": "data"}),
    ("search_sorted", "sorted_sequence", {"values": "key", "axis": "T", "from": []}),
    ("seq_len_mask", "seq_len_source", {"mask_value": 0.0, "axis": "T"}),
    ("seq_len_mask", "start", {"mask_value": 0.0, "axis": "T"}),
    ("slice_nd", "start", {"size": 2}),
    ("slice_nd", "size", {"start": 0}),
    ("softmax_over_spatial", "start", {"axis": "T"}),
    ("softmax_over_spatial", "window_start", {"window_size": 2, "axis": "T"}),
    ("switch", "condition", {"true_from": "key", "false_from": "key", "from": []}),
    ("switch", "true_from", {"condition": True, "false_from": 1.0, "from": []}),
    ("switch", "false_from", {"condition": False, "true_from": 1.0, "from": []}),
    ("unmask", "mask", {}),
]
LISTS = {"shape_deps", "extra_deps"}


@pytest.mark.parametrize(
    ("class_name", "option", "others"), OPTIONS, ids=lambda item: item if isinstance(item, str) else ""
)
@pytest.mark.parametrize("around", ["outermost", "subnetwork", "loop", "overlay"])
def test_unknown_layers_in_options(around: str, class_name: str, option: str, others: dict[str, Any]) -> None:
    """Every option that names a layer says so at its own place, and what may have been meant."""
    wrong = "kay" if around in ("outermost", "overlay") else "base:kay"
    layer = {"class": class_name, "from": "data", **others, option: [wrong] if option in LISTS else wrong}
    key = {"class": "linear", "n_out": 3, "activation": None, "from": "data"}
    if around == "loop" and layer["from"] == "data":
        layer["from"] = "base:data"  # the whole sequence
    layer = {name: ("base:key" if value == "key" and "base:" in wrong else value) for name, value in layer.items()}
    path: tuple[str, ...] = ("network", "output")
    network: dict[str, Any] = {"key": key, "output": layer}
    if around == "subnetwork":
        network["output"] = {"class": "subnetwork", "from": "data", "subnetwork": {"output": layer}}
        path = ("network", "output", "subnetwork", "output")
    if around == "loop":
        network["output"] = {"class": "rec", "from": "data", "unit": {"inner": layer, "output": copy("inner")}}
        path = ("network", "output", "unit", "inner")
    if around == "overlay":
        network = {"key": key, "extra:mine": layer, "output": copy("extra:mine")}
        path = ("network", "extra:mine")
    (found,) = mistakes(network)
    assert (found.path, "no layer 'kay'" in found.message) == ((*path, option), True), found
    assert "'key'" in found.hint


@pytest.mark.parametrize(
    ("options", "option", "message"),
    [
        ({"initial_output": "base:kay"}, "initial_output", "there is no layer 'kay' in the network"),
        ({"loss": "as_is", "loss_opts": {"custom_inv_norm_factor": "kay"}}, "loss_opts", "there is no layer 'kay'"),
        ({"forward_weights_init": "glorot_unifrm"}, "forward_weights_init", "no initialiser 'glorot_unifrm'"),
        ({"bias_init": "constant(1, 2, 3)"}, "bias_init", "takes 1 arguments, not 3"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_mistakes_are_at_the_option_that_says_them(options: dict[str, Any], option: str, message: str) -> None:
    """Also where what finds the mistake is another layer, or knows nothing of options."""
    own = {"class": "linear", "n_out": 3, "from": ["data", "prev:own"], **options}
    reader = {"class": "copy", "from": "prev:own"}
    unit = {"reader": reader, "own": own, "output": {"class": "combine", "kind": "add", "from": ["own", "reader"]}}
    (found,) = mistakes({"output": {"class": "rec", "from": "data", "unit": unit}})
    assert found.path == ("network", "output", "unit", "own", option), found
    assert message in found.message


def test_all_wrong_sources_of_a_layer_are_reported() -> None:
    key = {"class": "linear", "n_out": 3, "from": "dta"}
    found = mistakes({"key": key, "output": {"class": "copy", "from": ["kay", "data", "kee", "key"]}})
    assert sorted((one.path, one.message.split(" in ")[0]) for one in found) == [
        (("network", "key", "from"), "there is no layer 'dta'"),
        (("network", "output", "from"), "there is no layer 'kay'"),
        (("network", "output", "from"), "there is no layer 'kee'"),
    ]


@pytest.mark.parametrize(("source", "own"), [("data", []), ("kay", ["from"]), ("broken", ["n_out"])])
def test_all_wrong_references_of_a_layer_are_reported(source: str, own: list[str]) -> None:
    """Also those of other options than `from`, whether or not the sources are right; those that are right are not."""
    unit = {
        "broken": {"class": "linear", "n_out": "three", "from": "data"},
        "more": {"class": "compare", "kind": "greater", "value": 0, "from": "data"},
        "output": {"class": "switch", "condition": "mroe", "true_from": "base:far", "false_from": "data:clases"},
        "g": {"class": "gather", "axis": "F", "from": source, "position": "prev:outptu", "initial_output": "base:nex"},
        "g2": {"class": "gather", "axis": "F", "from": source, "position": "more", "initial_output": "zeros"},
    }
    if source == "data":
        del unit["g"], unit["g2"], unit["broken"]
    if source == "kay":
        del unit["broken"]
    unit |= {name: {**unit[name], "is_output_layer": True} for name in ("g", "g2") if name in unit}
    found = {(one.path[3:], one.message.split(" in the ")[0], one.hint) for one in mistakes(looped(unit))}
    wanted = {
        (("output", "condition"), "there is no layer 'mroe'", "Did you mean 'more'?"),
        (("output", "true_from"), "there is no layer 'far'", ""),
        (("output", "false_from"), "there is no data key 'clases'", "Did you mean 'classes'?"),
    }
    if source != "data":
        wanted |= {
            (("g", "position"), "there is no layer 'outptu' to read the step before of", "Did you mean 'output'?"),
            (("g", "initial_output"), "there is no layer 'nex'", "Did you mean 'next'?"),
        }
    names = {"from": [("g", "from"), ("g2", "from")], "n_out": [("broken", "n_out")]}
    places = {place for name in own for place in names[name]}
    assert {one for one in found if one[0] not in places} == wanted
    assert places <= {one[0] for one in found}


def looped(unit: dict[str, Any]) -> dict[str, Any]:
    return {"next": copy("data"), "output": {"class": "rec", "from": "data", "unit": unit}}


@pytest.mark.parametrize("option", ["target", "size_target"])
@pytest.mark.parametrize(
    ("key", "message", "hint"),
    [
        ("clases", "there is no data key 'clases'", "Did you mean 'classes'?"),
        ("layer:lats", "there is no layer 'lats' in the network", "Did you mean 'last'?"),
        ("publihsed", "there is no data key 'publihsed'", "Did you mean 'published'?"),
    ],
)
def test_unknown_targets_of_layers_without_a_loss(option: str, key: str, message: str, hint: str) -> None:
    network = {
        "last": {**times(2), "register_as_extern_data": "published", "is_output_layer": True},
        "unread": {**times(2), "target": "published"},
        "output": {**times(3), option: key},
    }
    (found,) = mistakes(network)
    assert (found.path, found.message, found.hint) == (("network", "output", option), message, hint)


def test_what_is_not_there_in_every_mode_is_no_mistake_where_nobody_reads_it() -> None:
    network = {
        "eval": {**times(2), "only_on_eval": True, "is_output_layer": True},
        "x": {**times(2), "target": "layer:eval"},
        "output": {**times(3, "x"), "collocate_with": ["eval", "x"]},
    }
    build({"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}, "forward")
    network["output"]["collocate_with"] = ["evil", "x"]
    (found,) = mistakes(network)
    assert (found.path, found.hint) == (("network", "output", "collocate_with"), "Did you mean 'eval'?")


def test_targets_that_are_there() -> None:
    """Data of the config, data that a layer publishes, a layer, and the data of the network around."""
    inner = {"output": {**times(2), "target": "last"}, "last": {**times(3), "target": "classes"}}
    network = {
        "p": {**times(2), "register_as_extern_data": "published", "is_output_layer": True},
        "last": {**times(2), "target": "published"},
        "sub": {"class": "subnetwork", "from": ["last"], "concat_sources": False, "subnetwork": inner},
        "output": {**times(3, "sub"), "target": "layer:last"},
    }
    build({"network": network, "extern_data": EXTERN_DATA, "behavior_version": 21}, "train")


def test_null_that_removes_nothing() -> None:
    (found,) = mistakes({"hiden": None, "output": {"class": "copy", "from": "data"}})
    assert (found.path, found.message) == (("network", "hiden"), "there is no layer 'hiden' that null could remove")


def test_an_unknown_size_target_is_at_size_target() -> None:
    unit = {"output": {"class": "linear", "n_out": 3, "from": "prev:output"}}
    (found,) = mistakes({"output": {"class": "rec", "from": [], "size_target": "clases", "unit": unit}})
    assert found.path == ("network", "output", "size_target")
    assert "there is no data key 'clases'" in found.message


def test_a_search_as_long_as_a_target_is_there_only_with_targets() -> None:
    """It was built without, too, and stopped in TensorFlow: nothing says how long it is."""
    unit = {
        "output": {"class": "choice", "from": "p", "target": "classes", "beam_size": 2, "initial_output": 0},
        "p": {"class": "softmax", "from": "prev:output", "target": "classes"},
    }
    loop = {"class": "rec", "from": [], "target": "classes", "size_target": "classes", "unit": unit}
    data = {"data": {"dim": 2}, "classes": {"dim": 5, "sparse": True, "available_for_inference": False}}
    network = {"output": loop, "frames": {**times(1), "is_output_layer": True}}
    config = {"network": network, "extern_data": data, "behavior_version": 21}
    assert "layer:output" in build(config, "search").graph.outputs
    without = build(config, "search", targets=False)
    assert without.graph.outputs.keys() == {"layer:frames"}


@BOTH
def test_sources_of_a_subnetwork_by_number_and_by_name(optimize: bool) -> None:
    sub = {
        "class": "subnetwork",
        "from": ["data", "ten"],
        "concat_sources": False,
        "subnetwork": {
            "sum": {"class": "combine", "kind": "add", "from": ["data:0", "data:1"]},
            "output": {"class": "combine", "kind": "sub", "from": ["sum", "data:ten"]},
        },
    }
    np.testing.assert_array_equal(output({"ten": times(10), "output": sub}, optimize), X)


@BOTH
def test_paths_below_layers(optimize: bool) -> None:
    inner = {"class": "subnetwork", "from": "data", "subnetwork": {"twice": times(2), "output": times(3)}}
    outer = {"class": "subnetwork", "from": "data", "subnetwork": {"inner": inner, "output": copy("inner/twice")}}
    network = {"outer": outer, "output": {"class": "combine", "kind": "add", "from": ["outer", "outer/inner/output"]}}
    np.testing.assert_array_equal(output(network, optimize), 5 * X)


@BOTH
def test_base_through_a_subnetwork_in_a_loop(optimize: bool) -> None:
    """`base:` as often as there are networks around; `prev:` of a part of a subnetwork."""
    sub = {"twice": times(2), "output": {"class": "combine", "kind": "add", "from": ["twice", "base:base:last"]}}
    unit = {
        "s": {"class": "subnetwork", "from": "data:source", "subnetwork": sub},
        "output": {"class": "combine", "kind": "add", "from": ["s", "prev:s/twice"]},
    }
    network = {
        "last": {"class": "reduce", "mode": "max", "axis": "T", "from": "data"},
        "output": {"class": "rec", "from": "data", "unit": unit},
    }
    before = np.concatenate([np.zeros((2, 1, 2)), X[:, :-1]], axis=1)
    np.testing.assert_array_equal(output(network, optimize), 2 * X + X.max(1, keepdims=True) + 2 * before)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("prev:prev:a", "'prev:prev:a' reads two steps back"),
        ("prev:base:a", "'prev:base:a' is not a layer"),
        ("prev:extra:a", "'prev:extra:a' is not a layer"),
        ("base:base:a", "'base:a': the network is not inside another one"),
        ("a/b", "layer 'a' has no part 'b'"),
        ("data:seq_tag", "'data:seq_tag' is not supported"),
        ("data:seq_idx", "'data:seq_idx' is not supported"),
        ("data:batch_dim", "'data:batch_dim' is not supported"),
        ("data:1", "there is no data key '1'"),
        ("prev:aa", "there is no layer 'aa' to read the step before of"),
    ],
)
def test_references_that_stand_for_nothing(source: str, message: str) -> None:
    unit = {"a": times(2), "output": copy(source, "a")}
    (found,) = mistakes({"output": {"class": "rec", "from": "data", "unit": unit}})
    assert message in found.message
    assert found.path == ("network", "output", "unit", "output", "from")


@pytest.mark.parametrize("source", [":i", "prev:a"])
def test_steps_need_a_loop(source: str) -> None:
    (found,) = mistakes({"a": times(2), "output": copy(source)})
    assert "there is no" in found.message or "there is none" in found.message
