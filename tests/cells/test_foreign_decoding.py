"""How a config says a foreign cell: objects, classes, functions, names of installed packages; and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

import returnn_lite as rl
from returnn_lite.cells import LSTM
from returnn_lite.cli.main import main
from tests.cells.foreign import Nested, Plain
from tests.cells.probing import SIZE, compiled, first_values, network, refusal, shapes, weights_of

N = 3
DATA = {"data": {"dim": SIZE}}
PACKAGE = """
import keras

class Entered(keras.layers.SimpleRNNCell):
    pass

nothing = 3
"""
POINTS = """[returnn_lite.cells]
entered = entered_cells:Entered
nothing = entered_cells:nothing
lost = entered_cells:Lost
"""


@pytest.fixture(name="installed")
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that enters cells."""
    (tmp_path / "entered_cells.py").write_text(PACKAGE)
    info = tmp_path / "entered_cells-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: entered-cells\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "entered_cells", raising=False)


def test_names_of_parameters() -> None:
    assert shapes(Plain(N)) == {"kernel": (SIZE, N), "recurrent": (N, N)}
    assert shapes(Nested(N, SIZE)) == {"dense/kernel": (2 * SIZE, N), "dense/bias": (N,)}
    stack = keras.layers.StackedRNNCells([Plain(N), Plain(N)])
    assert list(shapes(stack)) == [f"cells/{i}/{name}" for i in range(2) for name in ("kernel", "recurrent")]
    assert list(shapes([Plain(N), Plain(2)])) == [f"{i}/{name}" for i in range(2) for name in ("kernel", "recurrent")]
    both = shapes(Plain(N), direction="both")
    assert list(both) == [f"{way}/{name}" for way in ("forward", "backward") for name in ("kernel", "recurrent")]


@pytest.mark.parametrize(
    "unit", [Plain(N), {"class": Plain, "units": N}, lambda: Plain(N), {"class": lambda size: Plain(size), "size": N}]
)
def test_first_values_follow_the_seed_and_the_name(unit: Any) -> None:
    values = [
        weights_of(rl.compile(network(unit), DATA, "train", behavior_version=21, seed=seed)) for seed in (1, 1, 2)
    ]
    for name, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][name])
        assert not np.allclose(value, values[2][name])
    np.testing.assert_allclose(values[0]["recurrent"] @ values[0]["recurrent"].T, np.eye(N), atol=1e-5)
    assert np.abs(values[0]["kernel"]).max() <= np.sqrt(6 / (SIZE + N))


def test_a_cell_that_was_built_before_keeps_its_weights() -> None:
    cell = keras.layers.LSTMCell(N)
    cell(np.zeros([1, SIZE], "float32"), [np.zeros([1, N], "float32")] * 2)
    found = first_values(cell)
    for weight in cell.weights:
        np.testing.assert_array_equal(found[weight.name], weight.numpy())
    assert first_values(keras.layers.LSTMCell(N))["bias"].tolist() == [0] * N + [1] * N + [0] * 2 * N


def test_what_is_frozen_is_no_trainable_parameter() -> None:
    cell = Plain(N)
    cell.trainable = False
    assert not any(parameter.trainable for parameter in compiled(cell, mode="train").params.values())


def test_a_cell_of_ours_is_its_unit() -> None:
    assert shapes(LSTM(N)) == shapes({"class": "lstm", "units": N})


def test_a_package_enters_cells_by_name(installed: None) -> None:
    config = yaml.safe_load("{class: rec, from: data, unit: {class: entered, units: 3}}")
    net = rl.compile({"output": config}, DATA, "eval", behavior_version=21)
    assert list(weights_of(net)) == ["kernel", "recurrent_kernel", "bias"]
    assert "Did you mean 'entered'?" in refusal("enterd")
    assert "the entry point 'nothing' (entered_cells:nothing) is no class of cells" in refusal("nothing")
    assert "the entry point 'lost' (entered_cells:Lost) can't be loaded: AttributeError" in refusal("lost")


def test_without_the_package_the_name_is_none() -> None:
    assert "the unit 'entered' is not supported" in refusal("entered")


def test_an_object_is_one_cell() -> None:
    cell = Plain(N)
    layers = {name: {"class": "rec", "from": "data", "unit": cell} for name in ("one", "two")}
    layers["output"] = {"class": "copy", "from": list(layers)}
    config = {"network": layers, "extern_data": DATA, "behavior_version": 21}
    with pytest.raises(rl.ConfigError, match="has the parameter one/rec/kernel already"):
        rl.check(config, "eval")
    layers["two"]["reuse_params"] = "one"
    assert list(rl.compile(layers, DATA, "eval", behavior_version=21).params) == ["one/rec/kernel", "one/rec/recurrent"]


class Changed(Plain):
    """A cell that does what `does` says in its call."""

    def __init__(self, does: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__(N)
        self.does = does

    def call(self, inputs: Any, states: Any) -> Any:
        h, after = super().call(inputs, states)
        return self.does(self, h, after)


def draws(cell: Any, h: Any, after: Any) -> Any:
    return h + keras.random.normal((N,)), after


def assigns(cell: Any, h: Any, after: Any) -> Any:
    cell.kernel.assign(cell.kernel * 2)
    return h, after


def loses(cell: Any, h: Any, after: Any) -> Any:
    cell.add_loss(keras.ops.mean(h))
    return h, after


class Beginning(Plain):
    """A cell that begins with ones."""

    def get_initial_state(self, batch_size: int) -> Any:
        return [keras.ops.ones((batch_size, N))]


class Learned(Plain):
    """A cell that begins with what it learns, which is 0 at first."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.begin = self.add_weight(shape=(N,), initializer="zeros", name="begin")

    def get_initial_state(self, batch_size: int) -> Any:
        return [keras.ops.broadcast_to(self.begin, (batch_size, N))]


class WithoutStates(keras.layers.Layer):  # type: ignore[misc]
    """A layer that is no cell."""


def sized(**sizes: Any) -> Plain:
    cell = Plain(N)
    for name, value in sizes.items():
        setattr(cell, name, value)
    return cell


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a layer over sequences": (lambda: keras.layers.LSTM(N), "Give its cell, such as keras.layers.LSTMCell"),
    "no cell": (lambda: WithoutStates(), "WithoutStates is no cell: it has no state_size"),
    "no layer": (lambda: {"class": dict, "units": 3}, "dict is no cell"),
    "a size that is none": (lambda: sized(state_size=[N, "x"]), "state_size has 'x', which is no size of features"),
    "no states": (lambda: sized(state_size=[]), "Plain has no states"),
    "another output": (lambda: sized(output_size=5), "the output with the shape [None, 3], but output_size says 5"),
    "another state": (lambda: sized(state_size=(N, N)), "state_size is (3, 3), but call returns the states [tensor"),
    "wrong options": (lambda: {"class": Plain, "size": 3}, "Plain can't be made: TypeError"),
    "a call that fails": (lambda: Changed(lambda cell, h, after: h.nothing), f"failed at {__file__}:"),
    "no pair": (lambda: Changed(lambda cell, h, after: h), "returns no pair of output and states"),
    "a weight that changes": (lambda: Changed(assigns), "changes what is no state of it"),
    "numbers of nobody": (lambda: Changed(draws), "changes what is no state of it"),
    "a loss": (lambda: Changed(loses), "adds a loss of its own"),
    "a regulariser": (lambda: keras.layers.LSTMCell(N, kernel_regularizer="l2"), "has a regularizer of 'kernel'"),
    "a constraint": (lambda: keras.layers.LSTMCell(N, bias_constraint="non_neg"), "has a constraint of 'bias'"),
    "a beginning": (lambda: Beginning(N), "get_initial_state gives something else than zeros"),
    "a learned beginning": (lambda: Learned(N), "get_initial_state gives something else than zeros"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    unit, message = REFUSED[name]
    found = refusal(unit())
    assert found.startswith("network.output.unit") and message in found and found.count("\n") <= 1, found


def test_what_the_layer_says_of_weights_is_refused() -> None:
    assert "says itself what its weights start with" in refusal(Plain(N), forward_weights_init=0.0)
    assert "the unit has 3 features, but n_out is 4" in refusal(Plain(N), n_out=4)


def test_two_directions_need_a_copy() -> None:
    found = refusal(Changed(lambda cell, h, after: (h, after)), direction="both")
    assert "Changed can't be copied" in found and "Write get_config" in found


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert "Keras runs on jax" in refusal(Plain(N))


CONFIG = """\
import keras


class Sum(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.state_size = units

    def call(self, inputs, states):
        y = inputs + states[0]
        return y, [y]


extern_data = {"data": {"dim": 4}}
behavior_version = 21
network = {
    "output": {"class": "rec", "from": "data", "unit": [{"class": Sum, "units": 4}, keras.layers.GRUCell(2)]},
}
"""


def test_commands_name_the_cell_and_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.py"
    path.write_text(CONFIG)
    assert main(["explain", str(path), "--mode", "eval"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["output", "0", "Sum", "0"] in lines and ["output", "1", "GRUCell", "0"] in lines
    path.write_text(CONFIG.replace("inputs + ", "inputs.sum + "))
    assert main(["check", str(path)]) == 2
    place, what = f"{path}:17:48: network.output.unit", f"Sum failed at {path}:10: AttributeError"
    assert place in (found := capsys.readouterr().err) and what in found
