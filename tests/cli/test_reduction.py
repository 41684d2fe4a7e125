"""The smallest network that still shows something: with a predicate, and through `verify` with a wrong compiler."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from returnn_lite.cli import reduction_steps as steps
from returnn_lite.cli.comparison import Difference, compare
from returnn_lite.cli.loading import load
from returnn_lite.cli.main import main
from returnn_lite.cli.reduction import Reduction
from returnn_lite.cli.verification import EQUAL_ROWS, differing, table, verify
from returnn_lite.compiler import ModeName, Network, build, optimized
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.source import parse_yaml

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


def wrong_tanh(config: Config, mode: ModeName, optimize: bool, *others: Any, **more: Any) -> Network:
    """A compiler whose optimisation takes a tanh in a loop for a sigmoid."""
    return Network(_with_sigmoid(config) if optimize else config, mode, optimize, *others, **more)


def _with_sigmoid(config: Config) -> Config:
    changed = json.loads(json.dumps(config))
    for path, layer in layers(changed):
        if len(path) > 2 and layer.get("activation") == "tanh":
            layer["activation"] = "sigmoid"
    return changed


def test_verify_finds_the_smallest_network_that_a_wrong_compiler_breaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("big.yaml").write_text(BIG)
    wrong = functools.partial(compare, batch=2, network=wrong_tanh)
    assert verify(load("big.yaml", []), 2, every_row=False, seconds=60, with_=wrong) == 1
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
