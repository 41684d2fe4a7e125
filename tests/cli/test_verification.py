"""`verify` on networks that draw random numbers in each step of a loop, and what it compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from returnn_lite.cli.loading import load
from returnn_lite.compiled import LayerOutput
from returnn_lite.compiler import Network
from returnn_lite.verification.comparison import Difference, compare, largest_real

CONFIG = """
behavior_version: 21
extern_data:
  data: {dim: 3}
network:
  output:
    class: rec
    from: data
    unit:
      noisy: {class: dropout, from: "data:source", dropout: 0.4, dropout_noise_shape: %s}
      output: {class: linear, from: [noisy, "prev:output"], n_out: 3, activation: tanh}
  loss: {class: copy, from: output, loss: as_is}
"""


@pytest.mark.parametrize("shape", ["{'*': null}", "{T: null, B: 1}", "{T: 1, B: null}"])
def test_both_compilations_draw_the_same(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(CONFIG % shape)
    differences = compare(load(str(path), []).data, "train", batch=3)
    assert "output/noisy" in differences
    assert {name: far for name, far in differences.items() if far.is_one} == {}


def test_draws_of_no_step(tmp_path: Path) -> None:
    """An empty sequence has none."""
    path = tmp_path / "net.yaml"
    path.write_text(CONFIG % "{'*': null}")
    for optimize in (True, False):
        net = Network(load(str(path), []).data, "train", optimize, "float32", {}, 1, draws_by_step=True)
        out = net.run({"data": np.zeros((2, 3, 3))}, {"data": [0, 0]}, ["output/noisy"]).layers["output/noisy"]
        assert out.value.shape == (2, 0, 3)


STEPS = """
behavior_version: 21
extern_data:
  data: {dim: 4}
network:
  output:
    class: rec
    from: data
    unit:
      i: {class: cast, dtype: float32, from: ":i"}
      sum: {class: combine, kind: add, from: ["data:source", i]}
      output: {class: linear, from: [sum, "prev:output"], n_out: 4, activation: tanh}
  loss: {class: copy, from: output, loss: as_is}
"""


def test_layers_without_a_batch_are_compared_in_all_steps(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(STEPS)
    differences = compare(load(str(path), []).data, "train", batch=3)
    assert "output/i" in differences
    assert {name: far for name, far in differences.items() if far.is_one} == {}


def test_what_is_compared_are_numbers() -> None:
    """Running variances are positive, so that evaluation is not NaN in both compilations."""
    network = {"x": {"class": "batch_norm", "from": "data"}, "loss": {"class": "copy", "from": "x", "loss": "as_is"}}
    config = {"behavior_version": 21, "extern_data": {"data": {"dim": 4}}, "network": network}
    differences = compare(config, "eval", batch=3)
    assert {"x", "loss loss sum"} <= set(differences)
    assert all(np.isfinite(far.optimized) for far in differences.values())


OF_THE_TARGET = """
extern_data:
  data: {dim: 4}
  classes: {dim: 5, sparse: true}
network:
  last: {class: reduce, mode: mean, axis: T, from: data}
  output:
    class: rec
    from: []
    %s: classes
    unit: {output: {class: linear, from: ["prev:output", "base:last"], n_out: 3}}
"""


@pytest.mark.parametrize("option", ["target", "size_target"])
def test_a_loop_as_long_as_a_target_that_no_layer_reads(option: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(OF_THE_TARGET % option)
    differences = compare(load(str(path), []).data, "eval", batch=3)
    assert "output/output" in differences
    assert {name: far for name, far in differences.items() if far.is_one} == {}


def test_only_real_frames_are_compared() -> None:
    value = np.zeros((2, 3, 4))
    output = LayerOutput(value, ("B", "T", "F"), {"T": np.array([3, 1])}, {"T": ("B",)})
    padding, real = value.copy(), value.copy()
    padding[1, 1:], real[1, 0] = 5.0, 0.5
    assert largest_real(output, replace(output, value=padding)).size == 0.0
    assert largest_real(output, replace(output, value=real)) == Difference(0.5, 0.0, 0.5, (1, 0, 0))
    unbatched = LayerOutput(np.zeros((3,)), ("T",), {"T": np.array([3, 1])}, {"T": ("B",)})
    assert largest_real(unbatched, replace(unbatched, value=np.array([0.0, 0.0, 0.25]))).size == 0.25
