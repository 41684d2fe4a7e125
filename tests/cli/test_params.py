"""`rnn.py params`: from a model to files, in the layouts of other systems too, and back; what does not fit is told."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl
from returnn_lite.cli.main import main
from returnn_lite.engine.archives import read_archive, write_archive
from returnn_lite.engine.checkpoints import Checkpoint, write_checkpoint

Array = np.ndarray[Any, Any]
CONFIG = """\
task: forward
model: {folder}/run/net
extern_data: {{data: {{dim: 3}}}}
behavior_version: 21
network:
  enc: {{class: rec, unit: [lstm, lstm], direction: both, n_out: 8, from: data}}
  proj: {{class: rec, unit: {{class: tf.lstm, units: 5, projection: 4, forget_bias: 0.5}}, n_out: 4, from: enc}}
  mi: {{class: rec, unit: milstm, n_out: 4, from: enc}}
  bare: {{class: rec, unit: {{class: milstm, use_bias: false}}, n_out: 4, from: mi}}
  plain: {{class: rec, unit: {{class: lstm, use_bias: false}}, n_out: 4, from: bare}}
  keras: {{class: rec, unit: keras.gru, n_out: 4, from: enc}}
  loop:
    class: rec
    from: [proj, plain, keras]
    unit:
      s: {{class: rnn_cell, unit: gru, n_out: 4, from: 'data:source'}}
      normed: {{class: rnn_cell, unit: layernormmilstm, n_out: 4, from: s}}
      output: {{class: linear, activation: null, n_out: 2, from: normed}}
  output: {{class: copy, from: loop}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, and a checkpoint of its network with random numbers."""
    folder = tmp_path_factory.mktemp("params")
    (folder / "net.yaml").write_text(CONFIG.format(folder=folder))
    assert main(["params", "export", str(folder / "net.yaml"), str(folder / "initial.npz")]) == 0
    generator = np.random.default_rng(1)
    arrays = {
        name: generator.normal(size=array.shape).astype("float32")
        for name, array in read_archive(folder / "initial.npz").items()
    }
    slots = {f"{where}mi/rec/W/Adam": arrays["mi/rec/W"] for where in ("", "optimize/")}
    of_training = {"optimizer/0/iteration": np.int64(3), "global_step": np.int64(3), "text": np.array("words"), **slots}
    write_checkpoint(str(folder / "run" / "net.002"), {**arrays, **of_training})
    write_archive(folder / "net.npz", arrays)
    return folder


def stored(prefix: Path) -> dict[str, Array]:
    checkpoint = Checkpoint(str(prefix))
    return {name: checkpoint.read(name) for name in checkpoint.shapes}


def same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def run(*arguments: object) -> int:
    return main(["params", *map(str, arguments)])


def test_all_parameters_of_whatever_has_them(model: Path, tmp_path: Path) -> None:
    """A config, the folder of its run, its checkpoint, and a file of one of these; without what is of the training."""
    run_ = model / "run"
    sources = [model / "net.yaml", run_, run_ / "net", run_ / "net.002", run_ / "net.002.index"]
    for number, source in enumerate([*sources, model / "net.npz"]):
        assert run("export", source, tmp_path / f"{number}.npz") == 0
        same(read_archive(tmp_path / f"{number}.npz"), read_archive(model / "net.npz"))


def test_a_new_checkpoint_of_a_file(model: Path, tmp_path: Path) -> None:
    """For a config whose model has no checkpoint yet; task forward could use it."""
    override = f"model={tmp_path}/other/net"
    assert run("import", model / "net.npz", model / "net.yaml", tmp_path / "other" / "net.001", override) == 0
    same(stored(tmp_path / "other" / "net.001"), read_archive(model / "net.npz"))
    assert run("export", model / "net.yaml", tmp_path / "back.npz", override) == 0
    same(read_archive(tmp_path / "back.npz"), read_archive(model / "net.npz"))


WAYS = [
    *((layer, "gates") for layer in ("enc", "proj", "mi", "bare", "plain", "keras", "loop/s")),
    *(
        ("enc", system)
        for system in ("returnn", "tensorflow_block", "tensorflow", "keras", "pytorch", "caffe2", "cudnn")
    ),
    *(("proj", system) for system in ("pytorch", "tensorflow", "cudnn")),
    *(("mi", system) for system in ("caffe2", "returnn")),
    *(("plain", system) for system in ("pytorch", "caffe2", "keras", "cudnn", "tensorflow")),
    *(("bare", system) for system in ("caffe2", "returnn")),
    *(("keras", system) for system in ("keras", "tensorflow", "cudnn", "pytorch", "returnn")),
    *(("loop/s", system) for system in ("tensorflow", "returnn", "keras")),
]


@pytest.mark.parametrize(("layer", "system"), WAYS)
def test_to_another_system_and_back(
    model: Path, tmp_path: Path, layer: str, system: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit, with what is added at run time as here; but where both biases are a sum, which is told."""
    forget_bias = {"enc": "0", "proj": "1"}.get(layer, "0") if system not in ("cudnn", "gates") else None
    options = ["--layer", layer, "--layout", system, *(["--forget-bias", forget_bias] if forget_bias else [])]
    base = model / "run" / "net.002"
    assert run("export", base, tmp_path / "a.npz", *options) == 0
    is_rounded = "does not give the same bits" in capsys.readouterr().err
    assert is_rounded == ((layer, system) in {("keras", "tensorflow"), ("keras", "returnn")})
    other = tmp_path / "other"
    zeros = {name: np.zeros_like(array) for name, array in read_archive(model / "net.npz").items()}
    write_checkpoint(str(other), zeros)
    assert run("import", tmp_path / "a.npz", other, tmp_path / "new", *options) == 0
    of_layer = {"loop/s": "loop/rec/s/"}.get(layer, f"{layer}/")
    expected = {
        name: array if name.startswith(of_layer) else zeros[name]
        for name, array in read_archive(model / "net.npz").items()
    }
    found = stored(tmp_path / "new")
    if is_rounded:
        found["keras/rec/bias"], expected["keras/rec/bias"] = (
            np.concatenate([bias[:, :8].sum(0), bias[0, 8:], bias[1, 8:]])
            for bias in (found["keras/rec/bias"], expected["keras/rec/bias"])
        )
    same(found, expected)


def test_a_config_says_what_is_added_at_run_time(model: Path, tmp_path: Path) -> None:
    """In a bias of another system, where nothing is added; the network adds 0.5."""
    assert run("export", model / "net.yaml", tmp_path / "a.npz", "--layer", "proj", "--layout", "cudnn") == 0
    vector = read_archive(tmp_path / "a.npz")["opaque_kernel"]
    (cell,) = rl.weights.from_vector(vector, "lstm", 8, 5, projection=4)
    bias = dict(zip("ijfo", np.split(read_archive(model / "net.npz")["proj/rec/lstm_cell/bias"], 4), strict=True))
    np.testing.assert_array_equal(cell.bias["forget"], bias["f"])
    np.testing.assert_array_equal(cell.recurrent_bias["forget"], np.full(5, 0.5, "float32"))
    assert (
        run("import", tmp_path / "a.npz", model / "net.yaml", tmp_path / "b", "--layer", "proj", "--layout", "cudnn")
        == 0
    )
    same(stored(tmp_path / "b"), read_archive(model / "net.npz"))


def test_all_recurrent_layers_at_once(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each below its path; those that are more than an LSTM keep their names, and that is told."""
    arrays = {name: array for name, array in read_archive(model / "net.npz").items() if "/s/" not in name}
    kept = {name: array for name, array in arrays.items() if not name.startswith(("proj", "mi", "bare", "keras"))}
    write_archive(tmp_path / "base.npz", kept)
    assert run("export", tmp_path / "base.npz", tmp_path / "a.npz", "--layout", "pytorch") == 0
    shown = capsys.readouterr()
    assert (
        "'loop/normed' keeps its own names: it has parameters that no milstm has: 'loop/rec/normed/rec/norm/beta'"
        in shown.err
    )
    found = read_archive(tmp_path / "a.npz")
    assert {"enc/weight_ih_l1_reverse", "loop/rec/normed/rec/W", "loop/rec/output/W"} < set(found)
    assert run("import", tmp_path / "a.npz", tmp_path / "base.npz", tmp_path / "b.npz", "--layout", "pytorch") == 0
    same(read_archive(tmp_path / "b.npz"), kept)


def test_without_a_network(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From one system to others in turn, and back."""
    base = model / "run" / "net.002"
    assert run("export", base, tmp_path / "a.npz", "--layer", "enc", "--layout", "pytorch") == 0
    named = {f"encoder.{name}": array for name, array in read_archive(tmp_path / "a.npz").items()}
    write_archive(tmp_path / "pytorch.npz", {**named, "bridge.weight": np.zeros((2, 3))})
    first = ("convert", tmp_path / "pytorch.npz", tmp_path / "cudnn.npz", "--from", "pytorch", "--to", "cudnn")
    assert run(*first) == 1
    assert "'bridge.weight' [2, 3]: no part of a cell (lstm, gru) of the layout 'pytorch'" in capsys.readouterr().err
    assert run(*first, "--layer", "encoder") == 0
    sizes = ("--cell", "lstm", "--units", 4, "--layers", 2, "--directions", 2)
    assert (
        run("convert", tmp_path / "cudnn.npz", tmp_path / "caffe2.npz", "--from", "cudnn", "--to", "caffe2", *sizes)
        == 0
    )
    assert run("convert", tmp_path / "caffe2.npz", tmp_path / "b.npz", "--from", "caffe2", "--to", "pytorch") == 0
    same(read_archive(tmp_path / "b.npz"), read_archive(tmp_path / "a.npz"))
    capsys.readouterr()
    given = ("convert", tmp_path / "b.npz", tmp_path / "tf.npz", "--from", "pytorch", "--to", "tensorflow")
    assert run(*given) == 0
    assert "the forget gate's bias has -1 added" in capsys.readouterr().err
    assert "stack_bidirectional_rnn/cell_1/bidirectional_rnn/bw/lstm_cell/kernel" in read_archive(tmp_path / "tf.npz")


def test_list(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", model / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["parameter", "dims", "dtype", "numbers"]
    assert ["keras/rec/bias", "2", "x", "12", "float32", "24"] in [
        line.replace(" x ", "_x_").replace("_x_", " x ").split() for line in lines
    ]
    assert re.fullmatch(r"\d+ parameters, \d+ numbers, of checkpoint '.*/net.002'", lines[-8])
    assert lines[-7:] == [
        "recurrent layer 'bare': milstm, 1 layer of one direction",
        "recurrent layer 'enc': lstm, 2 layers of 2 directions",
        "recurrent layer 'keras': gru, 1 layer of one direction",
        "recurrent layer 'loop/s': gru, 1 layer of one direction",
        "recurrent layer 'mi': milstm, 1 layer of one direction",
        "recurrent layer 'plain': lstm, 1 layer of one direction",
        "recurrent layer 'proj': lstm, 1 layer of one direction",
    ]
    assert run("list", model / "net.npz", "--layer", "loop/s") == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_files_are_read_without_tensorflow(model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from returnn_lite.cli.main import main\n"
        "assert main(['params', 'list', sys.argv[1]]) == 0\n"
        "assert main(['params', 'export', sys.argv[1], sys.argv[2], '--layer', 'enc', '--layout', 'keras']) == 0\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    given = [sys.executable, "-c", code, str(model / "net.npz"), str(tmp_path / "a.npz")]
    assert subprocess.run(given, capture_output=True, check=False).returncode == 0


def export(*options: str) -> Sequence[str]:
    return ("export", "{model}/run/net.002", "{out}", *options)


REFUSED: Mapping[str, tuple[Sequence[str], int, str]] = {
    "no action": (("exprot",), 2, "invalid choice: 'exprot'"),
    "no source": (("list", "{out}"), 2, "there is no '{out}'"),
    "no checkpoint": (("list", "{model}/run/net.003"), 2, "nor a checkpoint '{model}/run/net.003.index'"),
    "an empty folder": (("list", "{empty}"), 1, "the folder '{empty}' has no checkpoint"),
    "not an archive": (("export", "{model}/run", "{model}/x.npy"), 2, "does not end in .npz"),
    "it is there": (("export", "{model}/run", "{model}/net.npz"), 2, "exists, and nothing is replaced"),
    "a checkpoint is there": (
        ("import", "{model}/net.npz", "{model}/run", "{model}/run/net.002"),
        2,
        "'{model}/run/net.002.index' exists, and nothing is replaced",
    ),
    "overrides": (("list", "{model}/run", "a=3"), 2, "'a=3' overrides a config, and '{model}/run' is none"),
    "no layer": (export("--layer", "encc"), 2, "there is no layer 'encc'. Did you mean 'enc'?"),
    "a loop": (
        export("--layer", "loop", "--layout", "keras"),
        2,
        "has several recurrent layers, 'loop/normed', 'loop/s'",
    ),
    "no lstm": (export("--layer", "loop/output", "--layout", "keras"), 2, "'loop/output' is no LSTM, GRU or"),
    "more": (export("--layer", "loop/normed", "--layout", "caffe2"), 1, "it has parameters that no milstm has"),
    "elsewhere reset": (
        export("--layer", "loop/s", "--layout", "pytorch"),
        1,
        "'loop/s' in the layout 'pytorch': a GRU that",
    ),
    "no such cell": (export("--layer", "mi", "--layout", "keras"), 1, "a milstm has no layout 'keras'"),
    "no projection": (export("--layer", "proj", "--layout", "keras"), 1, "no place for projection"),
    "a forget bias alone": (export("--forget-bias", "1"), 2, "needs --layout"),
    "a forget bias of cuDNN": (
        export("--layer", "enc", "--layout", "cudnn", "--forget-bias", "1"),
        2,
        "cuDNN adds nothing",
    ),
    "sizes": (
        ("convert", "{model}/net.npz", "{out}", "--from", "cudnn", "--to", "keras"),
        2,
        "--from cudnn needs --cell and --units",
    ),
    "sizes of what has shapes": (
        ("convert", "{model}/net.npz", "{out}", "--from", "keras", "--to", "keras", "--units", "3"),
        2,
        "--units is for --from cudnn",
    ),
    "no prefix": (
        ("convert", "{model}/net.npz", "{out}", "--from", "keras", "--to", "keras", "--layer", "x"),
        2,
        "has nothing whose name begins with 'x/' or 'x.'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, message = REFUSED[name]
    (tmp_path / "empty").mkdir()
    places = {"model": model, "out": tmp_path / "out.npz", "empty": tmp_path / "empty"}
    try:
        found = run(*(argument.format(**places) for argument in arguments))
    except SystemExit as left:  # argparse's
        assert isinstance(left.code, int)
        found = left.code
    assert found == code
    assert message.format(**places) in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


BY_GATE: Mapping[str, tuple[Mapping[str, Array | None], str]] = {
    "missing": ({"recurrent/forget": None}, "there is no 'recurrent/forget'"),
    "of another cell": ({"bias/reset": np.zeros(4)}, "'bias/reset' is no part of a lstm"),
    "of none": ({"bias/froget": np.zeros(4)}, "'bias/froget' [4] is no array of a gate, such as 'recurrent/forget'"),
    "no matrix": ({"recurrent/cell": np.zeros(4)}, "recurrent of the gate 'cell' has shape [4] and is no matrix"),
    "shape": ({"input/forget": np.zeros((3, 4))}, "input of the gate 'forget' has shape [3, 4], not [4, 4]"),
    "no number": ({"forget_bias": np.zeros(4)}, "'forget_bias' has shape [4] and is one number"),
}


@pytest.mark.parametrize("name", BY_GATE)
def test_what_is_no_cell_by_gate(model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--layer", "plain", "--layout", "gates")
    assert run("export", model / "run", tmp_path / "a.npz", *options) == 0
    changed, message = BY_GATE[name]
    arrays = {**read_archive(tmp_path / "a.npz"), **changed}
    write_archive(tmp_path / "b.npz", {name: array for name, array in arrays.items() if array is not None})
    assert run("import", tmp_path / "b.npz", model / "run", tmp_path / "new", *options) == 1
    assert f"'plain' from the layout 'gates': {message}" in capsys.readouterr().err


MISFITS: Mapping[str, tuple[Mapping[str, Array | None], str]] = {
    "missing": ({"mi/rec/b": None}, "has no 'mi/rec/b' [16]"),
    "unknown": ({"mi/rec/bias": np.zeros(2, "float32")}, "'mi/rec/bias' [2] is no parameter"),
    "misspelt": (
        {"mi/rec/alhpa": np.zeros(16, "float32"), "mi/rec/alpha": None},
        "'mi/rec/alhpa' [16] is no parameter. Did you mean 'mi/rec/alpha'?",
    ),
    "shape": ({"mi/rec/b": np.zeros(15, "float32")}, "'mi/rec/b' has shape [15], the parameter has [16]"),
    "dtype": ({"mi/rec/b": np.zeros(16, "int32")}, "'mi/rec/b' is int32, the parameter float32"),
    "no numbers": ({"mi/rec/b": np.full(16, np.nan, "float32")}, "'mi/rec/b' has 16 of 16 numbers that are infinite"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit(model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    changed, message = MISFITS[name]
    arrays = {**read_archive(model / "net.npz"), **changed}
    write_archive(tmp_path / "in.npz", {name: array for name, array in arrays.items() if array is not None})
    assert run("import", tmp_path / "in.npz", model / "run", tmp_path / "new") == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


def test_a_bias_for_a_layer_without(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", model / "run", tmp_path / "a.npz", "--layer", "mi", "--layout", "returnn") == 0
    write_archive(tmp_path / "b.npz", {**read_archive(tmp_path / "a.npz"), "W": np.zeros((4, 16), "float32")})
    options = ("--layer", "bare", "--layout", "returnn")
    assert run("import", tmp_path / "b.npz", model / "run", tmp_path / "new", *options) == 1
    assert (
        "'bare' from the layout 'returnn': there is a bias that is not 0, and no place for one"
        in capsys.readouterr().err
    )


def test_names_of_another_system_are_known(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", model / "run", tmp_path / "a.npz", "--layer", "enc", "--layout", "pytorch") == 0
    assert run("import", tmp_path / "a.npz", model / "run", tmp_path / "new") == 1
    assert "The names are those of a layer of pytorch: --layer PATH --layout pytorch" in capsys.readouterr().err
    options = ("--layer", "proj", "--layout", "pytorch")
    assert run("import", tmp_path / "a.npz", model / "run", tmp_path / "new", *options) == 1
    assert "there are 2 layers of 2 directions, and 'proj' has 1 layer of one direction" in capsys.readouterr().err


def test_what_is_rounded_is_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = read_archive(model / "net.npz")
    exact = arrays["mi/rec/b"].astype("float64")
    write_archive(tmp_path / "in.npz", {**arrays, "mi/rec/b": exact})
    assert run("import", tmp_path / "in.npz", model / "run", tmp_path / "new") == 0
    assert "'mi/rec/b' is rounded from float64 to float32" in capsys.readouterr().err
    same(stored(tmp_path / "new"), arrays)


def bytes_of(save: Any, *arrays: Array) -> bytes:
    written = io.BytesIO()
    save(written, *arrays)
    return written.getvalue()


GOOD = bytes_of(np.savez, np.arange(1000.0))
DAMAGED: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "is damaged, or no .npz file"),
    "text": (b"import os", "is damaged, or no .npz file"),
    "truncated": (GOOD[:-100], "is damaged, or no .npz file"),
    "a wrong byte": (GOOD[:500] + b"?" + GOOD[501:], "is damaged, or no .npz file"),
    "one array": (bytes_of(np.save, np.arange(3.0)), "has one array without a name"),
    "code": (bytes_of(np.savez, np.array([{}], dtype=object)), "is damaged, or no .npz file of arrays of numbers"),
    "words": (bytes_of(np.savez, np.array(["a"])), "'arr_0' is of <U1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = DAMAGED[name]
    (tmp_path / "a.npz").write_bytes(content)
    assert run("list", tmp_path / "a.npz") == 1
    assert message in capsys.readouterr().err


def test_another_file_in_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "words")
    assert run("list", tmp_path / "a.npz") == 1
    assert "'readme.txt' is no array" in capsys.readouterr().err


def test_a_damaged_checkpoint(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.001.index").write_bytes((model / "run" / "net.002.index").read_bytes()[:-20])
    (tmp_path / "net.001.data-00000-of-00001").write_bytes(b"")
    assert run("export", tmp_path, tmp_path / "a.npz") == 1
    assert f"checkpoint '{tmp_path}/net.001' is damaged" in capsys.readouterr().err
    assert not (tmp_path / "a.npz").exists()


def test_a_folder_of_two_models(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.001", "b.001"):
        write_checkpoint(str(tmp_path / name), {"x": np.zeros(2)})
    assert run("list", tmp_path) == 1
    assert "has checkpoints of several models, a, b: name one" in capsys.readouterr().err


def test_what_is_not_finite_is_exported_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_archive(tmp_path / "a.npz", {"file": np.array([np.inf, 1.0]), "b": np.arange(3)})
    assert run("export", tmp_path / "a.npz", tmp_path / "b.npz") == 0
    assert "not all numbers are finite in file" in capsys.readouterr().err
    same(read_archive(tmp_path / "b.npz"), read_archive(tmp_path / "a.npz"))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_archive(tmp_path / "a.npz", {"x": np.zeros(2)})
    (tmp_path / "file").write_text("")
    assert run("export", tmp_path / "a.npz", tmp_path / "file" / "b.npz") == 1
    assert "b.npz' can't be written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "file"]


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as it stands there, on weights as PyTorch would have them."""
    page = (Path(__file__).parents[2] / "docs" / "weights.rst").read_text()
    examples = [one.partition("\n\n.. ")[0] for one in page.split(".. code-block:: python\n\n")[1:]]
    code = "\n".join(textwrap.dedent(example) for example in examples)
    generator = np.random.default_rng(1)
    shapes = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_ih_l0": (16,), "bias_hh_l0": (16,)}
    arrays = {name: generator.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    write_archive(tmp_path / "pytorch.npz", arrays)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    found = read_archive(tmp_path / "keras.npz")
    np.testing.assert_array_equal(found["kernel"][:, 4:8], arrays["weight_ih_l0"][4:8].T)
    bias = (arrays["bias_ih_l0"][4:8] + np.float32(1)) + arrays["bias_hh_l0"][4:8]
    np.testing.assert_array_equal(found["bias"][4:8], bias)
    stack = read_archive(tmp_path / "stack.npz")
    assert len(stack) == 16 and stack["weight_ih_l1_reverse"].shape == (16, 8)
    assert set(stack["bias_ih_l1"][4:8]) == {1.0} and not stack["bias_ih_l1_reverse"].any()
