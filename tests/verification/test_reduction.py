"""The smallest network that still shows something: with a predicate, and through `verify` with a wrong compiler."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.cli.loading import load
from returnn_lite.cli.main import main
from returnn_lite.cli.verification import EQUAL_ROWS, differing, table, verify
from returnn_lite.compiler import ModeName, Network, build, optimized
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.source import parse_yaml
from returnn_lite.verification import reduction_steps as steps
from returnn_lite.verification.comparison import Difference, compare
from returnn_lite.verification.inlining import inlined
from returnn_lite.verification.reduction import Reduction
from tests.reference.executable import Interpreted

CONFIGS = Path(__file__).parents[2] / "configs"
Config = Mapping[str, Any]


def layers(config: Config) -> Iterator[tuple[tuple[str, ...], Config]]:
    for path in [*steps.layers(dict(config)), *steps.units(dict(config))]:
        yield path, functools.reduce(lambda value, key: value[key], path, config)


def used(config: Config, mode: ModeName, kind: str, in_loop: bool) -> bool:
    """Whether the network can be compiled and computes a layer of this class."""
    try:
        built = build(config, mode)
        optimized(built)
    except ConfigError:
        return False
    paths = ["/".join(path[1::2]) for path, layer in layers(config) if layer["class"] == kind]
    return any(path in built.layers and ("/" in path) >= in_loop for path in paths)


@pytest.mark.parametrize(
    ("name", "mode", "kind", "in_loop", "most"),
    [
        ("g2p_attention", "train", "linear", False, 1),
        ("g2p_attention", "train", "generic_attention", True, 3),
        ("g2p_transformer", "search", "layer_norm", True, 5),
        ("g2p_transformer", "train", "self_attention", True, 2),
        ("g2p_transducer", "search", "masked_computation", True, 4),
        ("g2p_transducer", "train", "softmax", True, 3),
        ("lm_lstm", "train", "rec", False, 2),
    ],
)
@pytest.mark.one_in(2)
def test_a_class_of_layers_comes_down_to_a_few(name: str, mode: ModeName, kind: str, in_loop: bool, most: int) -> None:
    config = load(str(CONFIGS / f"{name}.yaml"), []).data
    shows = functools.partial(used, mode=mode, kind=kind, in_loop=in_loop)
    assert shows(config)
    before = len(steps.layers(config))
    found = Reduction(shows).smallest(config)
    assert shows(found)
    assert len(steps.layers(found)) <= most < before
    again = Reduction(shows).smallest(found)
    assert steps.size(again) == steps.size(found)


def test_a_config_that_can_not_be_smaller_stays(tmp_path: Path) -> None:
    config = {"extern_data": {"data": {"dim": 3}}, "network": {"output": {"class": "copy", "from": "data"}}}
    assert Reduction(lambda candidate: candidate == config).smallest(config) == config


def test_no_config_is_tried_when_the_time_is_over() -> None:
    config = load(str(CONFIGS / "g2p_attention.yaml"), []).data
    tried: list[object] = []
    assert Reduction(lambda candidate: bool(tried.append(candidate)), lambda: True).smallest(config) == config
    assert tried == []


NESTED = """
network:
  a: {class: linear, from: [data, x], n_out: 3, linear: x}
  linear: {class: linear, from: [a, "data:other"], n_out: 3}
  output:
    class: rec
    from: linear
    unit:
      m: {class: compare, from: "base:a"}
      s: {class: linear, from: ["data:source", "prev:s", "base:linear", q]}
      q: {class: subnetwork, from: s, subnetwork: {output: {class: copy, from: ["base:prev:s", "base:base:a", data]}}}
      output: {class: linear, from: ["prev:s", "q/deep", s]}
"""


def _network(text: str) -> Any:
    return parse_yaml(text, "net.yaml").data


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        (
            ("network", "linear"),
            {
                ("network", "a", "class"): "linear",
                ("network", "output", "from"): ["a", "data:other"],
                ("network", "output", "unit", "s", "from"): ["data:source", "prev:s", "base:a", "base:data:other", "q"],
            },
        ),
        (
            ("network", "output", "unit", "s"),
            {
                ("network", "output", "unit", "q", "from"): ["data:source", "base:linear", "q"],
                ("network", "output", "unit", "output", "from"): [
                    "data:source",
                    "base:linear",
                    "prev:q",
                    "q/deep",
                    "q",
                ],
                ("network", "output", "unit", "q", "subnetwork", "output", "from"): [
                    "base:data:source",
                    "base:base:linear",
                    "base:prev:q",
                    "base:base:a",
                    "data",
                ],
            },
        ),
        (
            ("network", "a"),
            {
                ("network", "linear", "from"): ["data", "x", "data:other"],
                ("network", "output", "unit", "m", "from"): ["base:data", "base:x"],
                ("network", "output", "unit", "q", "subnetwork", "output", "from"): [
                    "base:prev:s",
                    "base:base:data",
                    "base:base:x",
                    "data",
                ],
            },
        ),
        (("network", "output", "unit", "output"), {("network", "output", "unit", "output", "class"): "linear"}),
    ],
)
def test_what_reads_a_layer_reads_its_sources(path: tuple[str, ...], changed: Mapping[tuple[str, ...], Any]) -> None:
    config = _network(NESTED)
    before = json.dumps(config)
    found = steps.bypassed(config, [path])
    for place, value in changed.items():
        assert functools.reduce(lambda inner, key: inner[key], place, found) == value
    assert json.dumps(config) == before


IN_SUBNETWORKS = """
network:
  s: {class: eval, eval: "source(0) * 2", from: data}
  s_x: {class: copy, from: s}
  q:
    class: subnetwork
    from: [s, data]
    dropout: 0.5
    is_output_layer: true
    subnetwork:
      x: {class: eval, eval: "source(0) + 1", from: [data]}
      x_: {class: copy, from: [x, "base:s", "base:s_x"]}
      deep: {class: subnetwork, from: x_, subnetwork: {output: {class: copy, from: [data, "base:x", "base:base:s"]}}}
      output: {class: copy, from: [deep, "data:data", data]}
  last:
    class: rec
    from: q/x
    unit:
      t:
        class: subnetwork
        from: ["data:source", "base:q/x_"]
        concat_sources: false
        subnetwork:
          m: {class: reduce, mode: max, axis: T, from: "data:1"}
          a: {class: combine, kind: add, from: ["data:0", "base:prev:output"]}
          output: {class: copy, from: [a, m]}
      output: {class: eval, eval: "source(0) - 0.5 * source(1)", from: ["t/a", "prev:t/a"]}
  output: {class: copy, from: [last, q, q/deep]}
"""


def test_the_layers_of_a_subnetwork_stand_in_its_place() -> None:
    network = _network(IN_SUBNETWORKS)["network"]
    found = inlined(network, "q")
    assert list(found) == ["s", "s_x", "q_data", "q_x", "q_x_", "q_deep", "q", "last", "output"]
    assert found["q_data"] == {"class": "copy", "from": ["s", "data"], "dropout": 0.5}
    assert found["q_x"]["from"] == ["q_data"]
    assert found["q_x_"]["from"] == ["q_x", "s", "s_x"]
    assert found["q_deep"]["from"] == "q_x_"
    assert found["q_deep"]["subnetwork"]["output"]["from"] == ["data", "base:q_x", "base:s"]
    assert found["q"] == {"class": "copy", "from": ["q_deep", "q_data", "q_data"], "is_output_layer": True}
    assert found["last"]["from"] == "q_x"
    assert found["last"]["unit"]["t"]["from"] == ["data:source", "base:q_x_"]
    assert found["output"]["from"] == ["last", "q", "q_deep"]
    inside = inlined(network["last"]["unit"], "t")
    assert inside["t_m"]["from"] == "base:q/x_"
    assert inside["t_a"]["from"] == ["data:source", "prev:output"]
    assert inside["t"]["from"] == ["t_a", "t_m"]
    assert inside["output"]["from"] == ["t_a", "prev:t_a"]


def test_names_in_a_subnetwork_that_are_taken() -> None:
    inner = {"x": {"class": "copy", "from": "data"}, "output": {"class": "copy", "from": "x"}}
    network = {"q_x": {"class": "copy", "from": "q"}, "q": {"class": "subnetwork", "subnetwork": inner}}
    assert inlined(network, "q") == {
        "q_x": {"class": "copy", "from": "q"},
        "q_x_": {"class": "copy", "from": "data"},
        "q": {"class": "copy", "from": "q_x_"},
    }


def test_a_flat_network_computes_the_same() -> None:
    config = {"behavior_version": 21, "extern_data": {"data": {"dim": 2}}, **_network(IN_SUBNETWORKS)}
    flat = steps.without_subnetworks(config, steps.subnetworks(config))
    assert steps.subnetworks(config) == [
        ("network", "q", "subnetwork", "deep"),
        ("network", "q"),
        ("network", "last", "unit", "t"),
    ]
    assert steps.subnetworks(flat) == []
    data = np.random.default_rng(0).normal(size=(2, 4, 2)).astype("float32")
    nested, other = (
        rl.compile(one["network"], extern_data={"data": {"dim": 2}}, mode="eval", behavior_version=21)
        .run({"data": data}, {"data": np.array([4, 3])})
        .layers["output"]
        for one in (config, flat)
    )
    assert nested.dims == other.dims
    np.testing.assert_allclose(nested.value, other.value, rtol=1e-6)


BIG = """\
behavior_version: 21
target: classes
learning_rate: 0.1
extern_data:
  data: {dim: 40}
  classes: {dim: 50, sparse: true, available_for_inference: false}
network:
  enc: {class: linear, from: data, n_out: 32, activation: relu}
  context: {class: reduce, mode: mean, axis: T, from: enc}
  output:
    class: rec
    from: []
    target: classes
    unit:
      s: {class: rnn_cell, unit: standardlstm, n_out: 16, from: ["prev:readout", "base:context"]}
      readout: {class: linear, from: [s, "prev:readout"], n_out: 16, activation: tanh}
      output: {class: softmax, from: readout, target: classes, loss: ce}
"""


class Values(Network):
    """A network of which only values are compared: NumPy has no gradients."""

    def gradients(self, *_: Any) -> dict[str, np.ndarray]:
        return {}


@pytest.fixture
def numpy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of networks are compared: in TensorFlow each would take half a second."""
    monkeypatch.setattr("returnn_lite.tf.executable.Executable", Interpreted)


def wrong_tanh(config: Config, mode: ModeName, optimize: bool, *others: Any, **more: Any) -> Network:
    """A compiler whose optimisation takes a tanh in a loop for a sigmoid."""
    return Values(_with_sigmoid(config) if optimize else config, mode, optimize, *others, **more)


def _with_sigmoid(config: Config) -> Config:
    changed = json.loads(json.dumps(config))
    for path, layer in layers(changed):
        if len(path) > 2 and layer.get("activation") == "tanh":
            layer["activation"] = "sigmoid"
    return changed


@pytest.mark.usefixtures("numpy_only")
def test_verify_finds_the_smallest_network_that_a_wrong_compiler_breaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("big.yaml").write_text(BIG)
    wrong = functools.partial(compare, batch=2, network=wrong_tanh)
    assert verify(load("big.yaml", []), 2, every_row=False, seconds=math.inf, with_=wrong) == 1
    told = capsys.readouterr()
    assert "the difference starts in: output/readout or output/s\n" in told.out
    assert "networks compared" in told.err
    for mode in ("train", "eval"):
        assert f"big.smallest-{mode}.yaml" in told.out
        found = load(f"big.smallest-{mode}.yaml", []).data
        assert differing(wrong(found, mode))
        assert [layer["class"] for _, layer in layers(found) if layer.get("activation") == "tanh"] == ["linear"]
        assert len(steps.layers(found)) == 2
        assert not any(difference.is_one for difference in compare(found, mode, 2).values())


@pytest.mark.usefixtures("numpy_only")
def test_the_smallest_network_is_flat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What differs is a layer in two subnetworks of a loop."""
    monkeypatch.chdir(tmp_path)
    readout = '      readout: {class: linear, from: [s, "prev:readout"], n_out: 16, activation: tanh}\n'
    inner = '{t: {class: linear, from: "data:1", n_out: 16, activation: tanh}, output: {class: copy, from: [data, t]}}'
    outer = (
        f'{{in: {{class: subnetwork, from: [data, "base:prev:readout"], concat_sources: false, subnetwork: {inner}}}, '
    )
    outer += "output: {class: copy, from: in/t}}"
    Path("deep.yaml").write_text(
        BIG.replace(readout, f"      readout: {{class: subnetwork, from: s, subnetwork: {outer}}}\n")
    )
    assert "tanh" in (text := Path("deep.yaml").read_text())
    assert text != BIG
    wrong = functools.partial(compare, batch=2, network=wrong_tanh)
    assert verify(load("deep.yaml", []), 2, every_row=False, seconds=math.inf, with_=wrong) == 1
    found = load("deep.smallest-train.yaml", []).data
    assert sorted(layer["class"] for _, layer in layers(found)) == ["linear", "rec"]
    assert differing(wrong(found, "train"))


def test_verify_of_a_right_compiler_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text("extern_data: {data: {dim: 3}}\nnetwork: {output: {class: copy, from: data}}\n")
    assert main(["verify", "net.yaml"]) == 0
    assert "train: 1 values compared, equal (largest difference 0.00e+00)" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["net.yaml"]


def test_the_table_has_all_that_differ_first_and_few_others() -> None:
    differences = {f"l{index}": Difference(1e-9 * index, 1.0, 1.0, (0, index)) for index in range(200)}
    lines = table("eval", differences, every_row=False).splitlines()
    assert len(lines) == EQUAL_ROWS + 3
    assert lines[-2:] == [
        "... and 190 more, none above 1.89e-07",
        "eval: 200 values compared, equal (largest difference 1.99e-07)",
    ]
    differences |= {f"bad{index}": Difference(0.5 + index, 1.25, 0.75, (2, index)) for index in range(12)}
    lines = table("eval", differences, every_row=False).splitlines()
    assert len(lines) == 12 + 3
    assert lines[1].split() == ["bad11", "1.15e+01", "1.25", "0.75", "[2,", "11]"]
    assert lines[-1] == "eval: 212 values compared, 12 of them DIFFERENT (largest difference 1.15e+01)"
    assert len(table("eval", differences, every_row=True).splitlines()) == 212 + 2
