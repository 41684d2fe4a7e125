"""Units as names, dicts and lists, in any nesting; and what is said of one that is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.layers.cells.registry import NAMES, cell_class, known_name

DATA = {"data": {"dim": 3}}
SOURCE = np.random.default_rng(1).normal(size=(2, 5, 3))


def run(unit: Any, *, optimize: bool = True, in_loop: bool = False, **options: Any) -> tuple[np.ndarray, list[str]]:
    """The output of a unit whose parameters are drawn by the order of their names, and these names."""
    layer = {"class": "rec", "from": "data", "unit": unit, **options}
    if in_loop:
        step = {"class": "rnn_cell", "from": "data:source", "unit": unit, **options}
        layer = {"class": "rec", "from": "data", "unit": {"output": step}}
    net = rl.compile({"output": layer}, DATA, "eval", behavior_version=21, optimize=optimize)
    for seed, name in enumerate(sorted(net.params)):
        net.params[name].assign(np.random.default_rng(seed).normal(size=net.params[name].shape))
    output = net.run({"data": SOURCE}, {"data": [5, 3]}).layers["output"].value
    scope = "output/rec/output/rec/" if in_loop else "output/rec/"
    return output, [name.removeprefix(scope) for name in sorted(net.params)]


UNITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dict": ({"class": "lstm", "forget_bias": 1.0}, {"n_out": 4}),
    "size of the unit": ({"class": "gru", "units": 4}, {}),
    "stack": (["lstm", {"class": "gru"}], {"n_out": 4}),
    "stack of sizes": ([{"class": "lstm", "units": 5}, {"class": "basicrnn", "units": 2, "activation": "relu"}], {}),
    "residual in a stack": (["gru", {"class": "residual", "cell": {"class": "lstm"}}], {"n_out": 4}),
    "stack in a residual": ({"class": "residual", "cell": ["gru", "lstm"]}, {"n_out": 3}),
    "stack in a stack": ([["basicrnn", "gru"], "lstm"], {"n_out": 4}),
}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_the_same_in_all_forms(name: str) -> None:
    unit, options = UNITS[name]
    expected, names = run(unit, **options)
    for other in ({"optimize": False}, {"in_loop": True}, {"in_loop": True, "optimize": False}):
        found, same = run(unit, **other, **options)
        assert same == names
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_stack_is_layers_one_on_the_other() -> None:
    stacked, names = run([{"class": "lstm", "units": 5}, {"class": "gru", "units": 4}])
    assert [name for name in names if name.startswith("0/")] == ["0/W", "0/W_re", "0/b"]
    layers = {
        "below": {"class": "rec", "from": "data", "unit": "lstm", "n_out": 5},
        "output": {"class": "rec", "from": "below", "unit": "gru", "n_out": 4},
    }
    net = rl.compile(layers, DATA, "eval", behavior_version=21)
    own = {name: f"below/rec/{name[2:]}" if name.startswith("0/") else f"output/rec/{name[2:]}" for name in names}
    for seed, name in enumerate(names):
        shape = net.params[own[name]].shape
        net.params[own[name]].assign(np.random.default_rng(seed).normal(size=shape))
    output = net.run({"data": SOURCE}, {"data": [5, 3]}).layers["output"].value
    np.testing.assert_allclose(stacked, output, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unit", ["lstm", ["gru", "lstm"], {"class": "residual", "cell": "basicrnn"}], ids=str)
def test_a_unit_reads_its_own_output(unit: Any) -> None:
    """Of the step before: the source has the feature dim of the output, which no weights can have twice."""
    step = {"class": "rnn_cell", "from": "prev:output", "unit": unit, "n_out": 4}
    layers = {"output": {"class": "rec", "from": "data", "unit": {"output": step}}}
    graph = rl.check({"network": layers, "extern_data": DATA, "behavior_version": 21}, "eval")
    assert [dim.size for dim in graph.outputs["layer:output"].type.dims if dim.size is not None] == [4]


def test_states_of_cells_inside_have_names() -> None:
    layers = {
        "rnn": {"class": "rec", "from": "data", "unit": ["lstm", {"class": "residual", "cell": "gru"}], "n_out": 4},
        "output": {"class": "get_last_hidden_state", "from": "rnn", "key": "1/cell/h"},
    }
    graph = rl.check({"network": layers, "extern_data": DATA, "behavior_version": 21}, "eval")
    assert [dim.size for dim in graph.outputs["layer:output"].type.dims][1:] == [4]


@pytest.mark.parametrize("direction", [1, -1])
def test_the_last_state_of_no_frames_is_the_first_one(direction: int) -> None:
    layers = {
        "rec": {
            "class": "rec",
            "from": "data",
            "unit": "gru",
            "n_out": 2,
            "initial_state": 0.5,
            "direction": direction,
        },
        "output": {"class": "get_last_hidden_state", "from": "rec", "n_out": 2, "is_output_layer": True},
    }
    net = rl.compile(layers, DATA, "eval", behavior_version=21)
    found = net.run({"data": SOURCE}, {"data": [5, 0]}).layers["output"].value
    np.testing.assert_array_equal(found[1], 0.5)
    assert (found[0] != 0.5).all()


def test_a_masked_state_is_the_first_one_until_the_mask_is_true() -> None:
    step = {"class": "rnn_cell", "from": "data", "unit": "basicrnn", "n_out": 2, "initial_state": 0.5}
    unit = {
        "chosen": {"class": "eval", "from": "data:source", "eval": "tf.reduce_max(source(0), axis=-1) > 0"},
        "masked": {"class": "masked_computation", "mask": "chosen", "from": "data:source", "unit": step},
        "output": {"class": "get_last_hidden_state", "from": "masked", "n_out": 2},
    }
    layers = {"output": {"class": "rec", "from": "data", "unit": unit}}
    net = rl.compile(layers, DATA, "eval", behavior_version=21)
    signs = np.array([[-1.0, -1.0, 1.0, -1.0, 1.0], [-1.0] * 5])
    found = net.run({"data": signs[:, :, None] * np.ones(3)}, {"data": [5, 5]}).layers["output"].value
    assert ((found == 0.5).all(-1) == (np.cumsum(signs > 0, 1) == 0)).all()


def test_names_of_learned_initial_states() -> None:
    for unit, keys in (("lstm", ["c", "h"]), ("gru", ["var"]), (["gru", "gru"], ["0/h", "1/h"])):
        _, names = run(unit, n_out=4, initial_state="var")
        assert [name for name in names if "initial_" in name] == [f"initial_{key}" for key in keys]
        layer = {"class": "rnn_cell", "from": "data:source", "unit": unit, "n_out": 4, "initial_state": "var"}
        net = rl.compile({"output": {"class": "rec", "from": "data", "unit": {"output": layer}}}, DATA, "eval")
        in_loop = [f"output/rec/output/initial_{key}" for key in keys]  # beside the scope of the unit, as in RETURNN
        assert sorted(name for name in net.params if "initial_" in name) == in_loop


REFUSED = {
    "unknown option": ({"class": "lstm", "foo": 1}, r"output\.unit\.foo: 'foo' is not an option of lstm"),
    "unknown cell inside": (["lstm", {"class": "grux"}], r"unit\.1\.class: the unit 'grux' .* Did you mean 'gru'"),
    "wrong type": (
        {"class": "residual", "cell": {"class": "lstm", "forget_bias": "a"}},
        r"unit\.cell\.forget_bias: expected a number, got 'a'",
    ),
    "no cell": ({"class": "residual"}, r"unit\.cell: 'cell' is missing"),
    "a number": (3, r"output\.unit: expected a cell or a dict of layers, got 3"),
    "an empty list": ([], r"output\.unit: 'cells' is a list of cells"),
    "sizes": ({"class": "gru", "units": 5}, "the unit has 5 features, but n_out is 4"),
    "residual of another size": ({"class": "residual", "cell": "gru"}, "a residual needs a source of 4 features"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    layer = {"class": "rec", "from": "data", "unit": unit, "n_out": 4}
    with pytest.raises(rl.ConfigError, match=message):
        rl.check({"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}, "eval")


def test_all_mistakes_of_a_unit_are_told_at_once() -> None:
    """Those of all cells, and of other options of the layer."""
    unit = ["lstmx", {"class": "residual", "cell": {"class": "gru", "foo": 3, "units": "x"}}, {"class": "dropout"}]
    for more in ({"recompute": ["stepz"]}, {"recompute": "sometimes", "unroll": 0}):
        layer = {"class": "rec", "from": "data", "unit": unit, "n_out": 4, **more}
        config = {"network": {"output": layer}, "extern_data": {"data": {"dim": 3}}, "behavior_version": 21}
        with pytest.raises(rl.ConfigError) as error:
            rl.check(config, "eval")
        paths = {tuple(diagnostic.path[2:]) for diagnostic in error.value.diagnostics}
        of_unit = {("unit", 0), ("unit", 1, "cell", "foo"), ("unit", 1, "cell", "units"), ("unit", 2, "cell")}
        others = {("recompute", 0)} if len(more) == 1 else {("recompute",), ("unroll",)}
        assert paths == of_unit | others


def test_options_beside_a_dict_are_refused() -> None:
    layer = {"class": "rec", "from": "data", "unit": {"class": "gru"}, "unit_opts": {"activation": "relu"}, "n_out": 4}
    with pytest.raises(rl.ConfigError, match=r"unit_opts is for units with a name"):
        rl.check({"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}, "eval")


@pytest.mark.parametrize(
    "option",
    [{"forward_weights_init": 0.1}, {"recurrent_weights_init": 0.1}, {"bias_init": 1.0}, {"input_projection": False}],
)
def test_options_of_a_named_unit_are_refused_for_a_network(option: dict[str, Any]) -> None:
    layer = {"class": "rec", "from": "data", "unit": {"output": {"class": "copy", "from": "data:source"}}, **option}
    with pytest.raises(rl.ConfigError, match=rf"output\.{next(iter(option))}"):
        rl.check({"network": {"output": layer}, "extern_data": DATA, "behavior_version": 21}, "eval")


def test_every_name_is_a_cell() -> None:
    for name in NAMES:
        cls = cell_class(name)
        assert name in cls.cell_names, name
        assert known_name(name.upper()) == name
        assert cls.__doc__, name
        assert cls.paper, name
    assert known_name("BasicLSTMCell") == known_name("tf.nn.rnn_cell.BasicLSTMCell") == "basiclstm"
