"""`verify` on networks that draw random numbers in each step of a loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from returnn_lite.cli.loading import load
from returnn_lite.cli.verification import TOLERANCE, compare

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
    differences = compare(load(str(path), []), "train", batch=3)
    assert "output/noisy" in differences
    assert {name: far for name, far in differences.items() if far > TOLERANCE} == {}
