"""What `explain` says of recurrences: their cells as decoded, the kernels that run them, and what in the config keeps
one from a faster kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from returnn_lite.cli.main import main
from returnn_lite.explain.recurrences import RecurrenceKernels

CONFIG = """\
extern_data: {data: {dim: 5}, classes: {dim: 3, sparse: true}}
network:
  both: {class: rec, unit: lstm, n_out: 8, direction: both}
  stack:
    class: rec
    unit:
    - {class: lstm, num_units: 4}
    - {class: gru}
    - class: residual
      cell:
        class: lstm
        use_peepholes: true
        cell_clip: 3.0
    - sru
    n_out: 4
    from: both
  old: {class: rec, unit: lstm, unit_opts: {activation: relu}, n_out: 4, from: stack}
  drop: {class: rec, unit: {class: dropout, state_dropout: 0.1, cell: lstm}, n_out: 4, from: old}
  drops: {class: rec, unit: {class: dropout, state_dropout: 0.1, cell: sru}, n_out: 4, from: drop}
  seen: {class: rec, unit: {class: attention, encoder: both, cell: keras.lstm}, n_out: 4, from: drops}
  sum: {class: cumsum, from: seen}
  loop:
    class: rec
    from: sum
    unit:
      s: {class: rnn_cell, unit: lstm, n_out: 4, from: ["data:source", "prev:output"]}
      free: {class: rnn_cell, unit: lstm, n_out: 4, from: "data:source"}
      output: {class: linear, n_out: 4, activation: tanh, from: [s, free]}
  output: {class: softmax, from: loop, target: classes, loss: ce}
"""
ROWS = [
    ("both forward", "lstm", "fused", "cuDNN, both directions", ""),
    ("both backward", "lstm", "fused", "cuDNN, both directions", ""),
    ("stack 0", "lstm", "fused", "cuDNN", ""),
    ("stack 1", "gru", "fused", "fused", "on a GPU: cuDNN's GRU resets after the product (FILE:8:7)"),
    ("stack 2/cell", "lstm", "loop", "loop", "peephole (FILE:12:9); cell_clip (FILE:13:9)"),
    ("stack 3", "sru", "loop", "loop", "there is no primitive for sru"),
    ("old", "lstm", "loop", "loop", "activation (FILE:17:45)"),
    ("drop cell", "lstm", "loop", "loop", "state_dropout (FILE:18:45)"),
    ("drops cell", "sru", "loop", "loop", "state_dropout (FILE:19:46); there is no primitive for sru"),
    ("seen", "attention", "loop", "loop", "there is no primitive for attention"),
    ("seen cell", "keras.lstm", "loop", "loop", "the cell around it is between its states"),
    ("loop/s", "lstm", "loop", "loop", "it is in the loop loop: it needs prev:output, which needs s"),
    ("loop/free", "lstm", "fused", "cuDNN", ""),
    ("sum", "cumsum", "fused", "fused", "on a GPU: cuDNN has no such recurrence"),
    (
        "loop",
        "loop over layers",
        "loop",
        "loop",
        "its layers need each other from step to step: explain without --kernels says how",
    ),
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


def told(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["explain", *options, str(config)]) == 0
    return capsys.readouterr().out


def test_kernels_and_what_keeps_from_faster_ones(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[dict[str, Any]] = json.loads(told(config, capsys, "--kernels", "--json"))
    rows = [
        (*(one[key] for key in ("name", "kind", "cpu", "gpu")), "; ".join(RecurrenceKernels(**one).all_obstacles))
        for one in found
    ]
    expected = [(*row[:-1], row[-1].replace("FILE", str(config))) for row in ROWS]
    assert sorted(rows) == sorted(expected)
    lines = told(config, capsys, "--kernels").splitlines()
    assert lines[0].split()[:4] == ["recurrence", "cell", "CPU", "GPU"]
    assert len(lines) == 1 + len(ROWS)


def test_out_of_training_nothing_is_dropped(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(config, capsys, "--kernels", "--json", "--mode", "eval"))
    (dropped,) = (one for one in found if one["name"] == "drop cell")
    assert (dropped["cpu"], dropped["gpu"], dropped["obstacles"]) == ("fused", "cuDNN", [])


def test_what_is_computed_again_is_still_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its nodes are in a body of their own."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.replace("    n_out: 4\n    from: both", "    n_out: 4\n    recompute: all\n    from: both"))
    found = {one["name"]: one for one in json.loads(told(file, capsys, "--kernels", "--json"))}
    assert found["stack 2/cell"]["obstacles"] == [f"peephole ({file}:12:9)", f"cell_clip ({file}:13:9)"]
    assert found["stack 3"]["obstacles"] == ["there is no primitive for sru"]
    why = "it is computed again when gradients are taken: cuDNN keeps what it needs"
    assert found["stack 0"]["obstacles_on_gpu"] == [why]


def test_cells_are_told_as_decoded(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(config, capsys).splitlines()
    start = next(i for i, line in enumerate(lines) if line.split() == ["layer", "inside", "cell", "states"])
    found = [line.rstrip() for line in lines[start + 1 : start + 16]]
    cell, states = (lines[start].index(name) for name in ("cell", "states"))
    assert [(line[cell:states].rstrip(), line[states:]) for line in found if line.startswith("stack")] == [
        ("stack", ""),
        ("  lstm units=4", "h, c"),
        ("  gru", "h"),
        ("  residual", ""),
        ("    lstm peephole=True cell_clip=3.0", "h, c"),
        ("  sru", "c"),
    ]
    assert [line.split() for line in found if line.startswith("both")] == [
        ["both", "forward", "lstm", "h,", "c"],
        ["both", "backward", "lstm", "h,", "c"],
    ]
    as_json = json.loads(told(config, capsys, "--json"))
    assert as_json["old"]["cells"] == [
        {"path": "", "name": "lstm", "options": {"activation": "relu"}, "states": ["h", "c"]}
    ]
    assert "cells" not in as_json["output"]
