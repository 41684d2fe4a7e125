"""The table of layer classes, and defaults by behaviour version."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from returnn_lite.compiler import build
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.options import OptionInfo, Unspecified
from returnn_lite.layers import legacy
from returnn_lite.layers.base import Layer
from returnn_lite.layers.registry import LAYERS, MODULES, layers_by_name, layers_of
from returnn_lite.layers.unsupported import INSTEAD


def test_the_table_has_every_module_of_layers_and_every_name() -> None:
    folder = Path(legacy.__file__).parent
    assert set(MODULES) == {path.stem for path in folder.glob("*.py") if "\nLAYERS = (" in path.read_text("utf-8")}
    for module, names in MODULES.items():
        assert names.split() == list(layers_of(module))
    assert len(LAYERS) == sum(len(names.split()) for names in MODULES.values())


def test_a_name_imports_its_own_module_only() -> None:
    program = "import sys, returnn_lite.layers.registry as r; r.LAYERS['conv']; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "returnn_lite.layers.convolution" in done.stdout.split()
    assert "returnn_lite.layers.planes" not in done.stdout.split()


@pytest.mark.parametrize("name", ["linear", "hidden", "forward", "softmax", "copy", "identity", "eval", "conv", "dot"])
def test_names(name: str) -> None:
    assert name in LAYERS[name].class_names


def test_a_name_is_taken_once() -> None:
    class First(Layer, names=("twin",)):
        pass

    class Second(Layer, names=("twin",)):
        pass

    with pytest.raises(ValueError, match="both First and Second"):
        layers_by_name([First, Second])


@pytest.mark.parametrize("cls", sorted(set(LAYERS.values()), key=lambda cls: cls.__name__))
def test_every_layer_says_what_it_and_its_options_are(cls: type[Layer]) -> None:
    assert cls.__doc__
    for field in dataclasses.fields(cls):
        info = field.metadata["option"]
        assert isinstance(info, OptionInfo)
        assert info.description


class AtVersion:
    def __init__(self, version: int) -> None:
        self.version = version

    def behavior(self, version: int) -> bool:
        return self.version >= version


@pytest.mark.parametrize("name", legacy.DEFAULTS)
def test_defaults_change_at_their_version(name: str) -> None:
    change = legacy.DEFAULTS[name]
    assert legacy.default(AtVersion(change.version - 1), name) == change.before
    assert legacy.default(AtVersion(change.version), name) == change.since
    assert change.before != change.since


def test_what_is_given_counts() -> None:
    assert legacy.default(AtVersion(0), "conv.with_bias", True) is True
    assert legacy.default(AtVersion(0), "conv.with_bias", Unspecified) is False
    assert legacy.default(AtVersion(0), "dot.var1", None) is None


def test_what_returnn_has_and_this_has_not_is_no_misspelling() -> None:
    assert not {*INSTEAD} & {*LAYERS}
    for name in (*INSTEAD, "dct", "variable_assign", "forced_align"):
        with pytest.raises(ConfigError, match=f"RETURNN's layer class '{name}' is not supported"):
            build({"network": {"output": {"class": name, "from": "data"}}, "extern_data": {"data": {"dim": 3}}})


@pytest.mark.parametrize(("name", "meant"), [("liner", "linear"), ("sotfmax", "softmax"), ("lnear", "linear")])
def test_a_misspelling_is_told_the_nearest_class(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        build({"network": {"output": {"class": name, "from": "data"}}, "extern_data": {"data": {"dim": 3}}})


@pytest.mark.parametrize("name", ["gradients", "my_own", "teacher"])
def test_another_name_is_told_no_class_that_is_not_meant(name: str) -> None:
    with pytest.raises(ConfigError, match="schema' has all classes"):
        build({"network": {"output": {"class": name, "from": "data"}}, "extern_data": {"data": {"dim": 3}}})
