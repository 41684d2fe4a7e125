"""`check` on networks that train and can't be searched: every layer that is why, and only these."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from returnn_lite.cli.checking import mistakes
from returnn_lite.cli.loading import load
from returnn_lite.cli.main import main
from returnn_lite.compiler import build

CONFIG = """\
behavior_version: 21
target: classes
extern_data:
  data: {{dim: 4}}
  classes: {{dim: 5, sparse: true, available_for_inference: false}}
network:
  enc: {{class: linear, from: data, n_out: 4, activation: tanh}}
  feed: {{class: linear, from: "data:classes", n_out: 4}}
  last: {{class: reduce, mode: mean, axis: T, from: enc}}
  output:
    class: rec
    from: []
    target: classes
    max_seq_len: 6
    unit:
      output: {{class: choice, from: prob, target: classes, beam_size: 3, initial_output: 0}}
      label: {{class: linear, from: "prev:output", n_out: 4}}
      emb: {{class: linear, from: [label, "base:last"], n_out: 4, activation: tanh}}
      prob: {{class: softmax, from: [{last}], target: classes, loss: ce}}
{layers}
"""
END = "end: {class: compare, from: output, value: 0}"
SEES_ALL = "self_attention, num_heads: 1, total_key_dim: 4, n_out: 4, from: emb"
CASES = {
    "the target": ("t", [END, 't: {class: linear, from: "data:classes", n_out: 4}'], ["t"]),
    "a layer on the target": ("t", [END, 't: {class: linear, from: [emb, "base:feed"], n_out: 4}'], ["t"]),
    "the target behind others": (
        "emb, z",
        [
            END,
            't: {class: linear, from: "data:classes", n_out: 4}',
            'u: {class: linear, from: "base:feed", n_out: 4}',
            "y: {class: combine, kind: add, from: [t, u]}",
            "z: {class: linear, from: [y, emb], n_out: 4}",
        ],
        ["t", "u"],
    ),
    "no end": ("emb", [], ["unit"]),
    "all steps at once": ("x", [END, f"x: {{class: {SEES_ALL}}}"], ["x"]),
    "several times all steps at once": (
        "x, z",
        [END, f"x: {{class: {SEES_ALL}}}", "y: {class: copy, from: x}", f"z: {{class: {SEES_ALL}}}"],
        ["x", "z"],
    ),
    "all steps of a mask at once": (
        "x",
        [
            END,
            "m: {class: compare, from: output, value: 1, kind: not_equal, initial_output: false}",
            'x: {class: masked_computation, mask: "prev:m", from: emb, '
            "unit: {class: self_attention, num_heads: 1, total_key_dim: 4, n_out: 4, from: data}}",
        ],
        ["x.unit"],
    ),
    "beams that do not fit": (
        "emb, e",
        [
            END,
            "c: {class: choice, from: p, target: classes, beam_size: 4, initial_output: 0, keep_beams: true}",
            'e: {class: linear, from: "prev:c", n_out: 4}',
            "f: {class: linear, from: output, n_out: 4}",
            "p: {class: softmax, from: f, target: classes}",
        ],
        ["c"],
    ),
    "more than one end": (
        "emb",
        ["end: {class: compare, from: sum, value: 0}", 'sum: {class: reduce, mode: sum, axis: F, from: "base:enc"}'],
        ["end", "output"],
    ),
}  # fmt: skip


def write(tmp_path: Path, last: str, layers: list[str]) -> Path:
    path = tmp_path / "net.yaml"
    path.write_text(CONFIG.format(last=last, layers="\n".join(f"      {layer}" for layer in layers)))
    return path


@pytest.mark.parametrize("case", CASES)
def test_every_layer_that_is_why(case: str, tmp_path: Path) -> None:
    last, layers, reasons = CASES[case]
    path = write(tmp_path, last, layers)
    loaded = load(str(path), [])
    build(loaded.data, "train")
    found = mistakes(loaded)
    assert sorted(".".join(map(str, one.path[3:] or one.path[2:])) for one in found) == reasons
    lines = path.read_text().splitlines()
    for one in found:
        assert one.message.startswith("trains, but cannot be searched: ")
        assert one.hint or "Set a beam_size that is a multiple of 3" in one.message
        assert one.position is not None
        name = str(one.path[-1])
        assert lines[one.position.line - 1][one.position.col - 1 :].startswith(f"{name}:")


def test_the_message_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, *CASES["the target"][:2])
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"{path}:21:7: network.output.unit.t: trains, but cannot be searched: 'output/t' reads the frame of its step "
        "of 'data:classes', which is as long as the target; a search has no target. Read 'prev:output', the label that "
        "the search chose before, in place of it.\n"
    )
    assert main(["check", str(path), "--json"]) == 2
    assert [entry["path"] for entry in json.loads(capsys.readouterr().out)] == [["network", "output", "unit", "t"]]


def test_what_is_wrong_in_training_is_no_matter_of_search(tmp_path: Path) -> None:
    path = write(tmp_path, "t", [END, 't: {class: linear, from: "data:classes", n_out: four}'])
    assert [one.path[2:] for one in mistakes(load(str(path), []))] == [("unit", "t", "n_out")]
    assert "searched" not in mistakes(load(str(path), []))[0].message


def test_a_layer_that_only_a_loss_needs_may_read_the_target(tmp_path: Path) -> None:
    path = write(tmp_path, "emb", [END, 't: {class: linear, from: ["data:classes"], n_out: 1, loss: as_is}'])
    assert mistakes(load(str(path), [])) == []


def test_a_search_that_needs_targets_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "emb", [END])
    path.write_text(path.read_text().replace("from: enc", "from: feed"))
    assert main(["check", str(path)]) == 0
    assert f"{path}:8:3: can be searched only with data that has targets: 'feed' reads 'data:classes'\n" in (
        capsys.readouterr().out
    )
