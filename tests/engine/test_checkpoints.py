"""Model files: whole or not there, by name, and messages for those that cannot be used."""

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.engine.checkpoints import (
    Checkpoint,
    CheckpointError,
    ModelFiles,
    Preload,
    superfluous,
    write_checkpoint,
)

INDEX, DATA = ".index", ".data-00000-of-00001"


def params() -> dict[str, tf.Variable]:
    return {"enc/W": tf.Variable([[1.0, 2.0]]), "out/b": tf.Variable([3.0])}


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return ModelFiles(str(tmp_path / "model")).save(7, {**params(), "global_step": np.int64(5)})


def test_save_and_restore(tmp_path: Path, prefix: str) -> None:
    assert ModelFiles(str(tmp_path / "model")).epochs() == [7]
    assert {path.name for path in tmp_path.iterdir()} == {f"model.007{INDEX}", f"model.007{DATA}"}
    variables = {name: tf.Variable(tf.zeros_like(variable)) for name, variable in params().items()}
    checkpoint = Checkpoint(prefix + INDEX)
    checkpoint.restore(variables)
    assert variables["enc/W"].numpy().tolist() == [[1.0, 2.0]]
    assert checkpoint.read("global_step") == 5


@pytest.mark.parametrize(("ending", "size"), [(INDEX, 0), (INDEX, 40), (DATA, 0), (DATA, 3)])
def test_a_damaged_file_is_named_and_changes_nothing(prefix: str, ending: str, size: int) -> None:
    Path(prefix + ending).write_bytes(Path(prefix + ending).read_bytes()[:size])
    variables = {name: tf.Variable(tf.zeros_like(variable)) for name, variable in params().items()}
    with pytest.raises(CheckpointError, match=r"model\.007' is damaged"):
        Checkpoint(prefix).restore(variables)
    assert all((variable.numpy() == 0).all() for variable in variables.values())


def test_what_does_not_fit_is_named(prefix: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"has no 'enc/w' \[1, 2\] \(of this shape it has 'enc/W'\)\. preload_from"
    ):
        Checkpoint(prefix).restore({"enc/w": tf.Variable([[1.0, 2.0]])})
    with pytest.raises(CheckpointError, match=r"'enc/W' has shape \[1, 2\], the parameter 'enc/W' has \[3\]"):
        Checkpoint(prefix).restore({"enc/W": tf.Variable([1.0, 2.0, 3.0])})
    with pytest.raises(CheckpointError, match=r"nowhere' does not exist; in .* there are \['model.007'\]"):
        Checkpoint(prefix.replace("model.007", "nowhere"))


def test_an_lstm_in_another_form_is_converted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From all ways to read a checkpoint; what was read so is no variable that nothing uses."""
    generator = np.random.default_rng(1)
    native = {"lm/W": (3, 16), "lm/W_re": (4, 16), "lm/b": (16,)}
    stored = {name: generator.normal(size=shape).astype("float32") for name, shape in native.items()}
    path = ModelFiles(str(tmp_path / "model")).save(1, {**stored, "out/b": np.ones(2, "float32")})
    checkpoint = Checkpoint(path)
    shapes = {"lm/lstm_cell/kernel": [7, 16], "lm/lstm_cell/bias": [16], "out/b": [2]}
    variables = {name: tf.Variable(tf.zeros(shape)) for name, shape in shapes.items()}
    checkpoint.restore(variables, forget_biases={"lm/lstm_cell/bias": 1.0})
    j, i, f, o = np.split(np.concatenate([stored["lm/W"], stored["lm/W_re"], stored["lm/b"][np.newaxis]]), 4, axis=1)
    expected = np.concatenate([i, j, f, o], axis=1)
    expected[-1, 8:12] -= 1
    np.testing.assert_array_equal(variables["lm/lstm_cell/kernel"], expected[:-1])
    np.testing.assert_array_equal(variables["lm/lstm_cell/bias"], expected[-1])
    checkpoint.warn_of_unused(variables)
    assert "not used" not in caplog.text
    inside = {f"sub/{name}": tf.Variable(tf.zeros(shape)) for name, shape in shapes.items()}
    for options in ({}, {"ignore_missing": True}):
        found = Checkpoint(path).preload(inside, Preload(filename=path, prefix="sub/", **options))
        assert set(found) == set(inside)
    np.testing.assert_array_equal(inside["sub/lm/lstm_cell/kernel"], expected[:-1])


def test_all_that_does_not_fit_is_named_and_no_slot_of_an_optimizer(tmp_path: Path) -> None:
    """Of the parameters of the shape that is missing, those that the network has a use for are not meant."""
    square, vector = tf.zeros([2, 2]), tf.zeros([2])
    stored = {"out/W": square, "old/W": square, "old/b": vector, "enc/W": tf.zeros([3, 2])}
    slots = {f"optimizer/{name}/m": value for name, value in stored.items()}
    checkpoint = Checkpoint(ModelFiles(str(tmp_path / "model")).save(1, {**stored, **slots}))
    network = {"out/W": square, "mid/W": square, "mid/b": vector, "new/b": tf.zeros([7]), "enc/W": tf.zeros([3, 4])}
    variables = {name: tf.Variable(value) for name, value in network.items()}
    with pytest.raises(CheckpointError) as raised:
        checkpoint.restore({**variables, "optimizer/mid/W/m": tf.Variable(square)})
    told = str(raised.value).partition("': ")[2]
    parts, _, advice = told.partition(". ")
    assert parts.split("; ") == [
        "has no 'mid/W' [2, 2] (of this shape it has 'old/W')",
        "has no 'mid/b' [2] (of this shape it has 'old/b')",
        "has no 'new/b' [7]",
        "'enc/W' has shape [3, 2], the parameter 'enc/W' has [3, 4]",
    ]
    assert advice == "preload_from_files with ignore_missing or ignore_params begins with the others."
    with pytest.raises(CheckpointError, match=r"has no 'optimizer/0/rate' \[\]\. import_model_train_epoch1 begins"):
        checkpoint.restore({"out/W": variables["out/W"], "optimizer/0/rate": tf.Variable(0.0)})
    with pytest.raises(CheckpointError, match=r"has no 'w11' .*; 4 more do not fit"):
        checkpoint.restore({f"w{number}": tf.Variable(vector) for number in range(11, 23)})
    with pytest.raises(CheckpointError, match=r"has no 'old/m'\. Did you mean 'old/[Wb]'"):
        checkpoint.read("old/m")


def test_a_checkpoint_without_its_data_does_not_count(tmp_path: Path, prefix: str) -> None:
    Path(prefix + DATA).unlink()
    assert ModelFiles(str(tmp_path / "model")).epochs() == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path, prefix: str) -> None:
    left = tmp_path / f"model.008.tmp-{2**22 + 1}{DATA}"  # above the largest process number of Linux
    left.write_bytes(b"")
    files = ModelFiles(str(tmp_path / "model"))
    files.remove_unfinished()
    assert not left.exists() and files.epochs() == [7]


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / f"model{INDEX}").mkdir()
    with pytest.raises(CheckpointError, match="model' cannot be written"):
        write_checkpoint(str(tmp_path / "model"), params())
    assert not list(tmp_path.glob("*.tmp-*"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"prefix": "sub/"}, {"sub/enc/W", "sub/out/b"}),
        ({"prefix": "sub/", "ignore_params": ("out/b",)}, {"sub/enc/W"}),
        ({"prefix": "sub/", "ignore_params_prefixes": ("enc",)}, {"sub/out/b"}),
        ({"ignore_missing": True, "var_name_mapping": {"other": "out/b"}}, {"other"}),
    ],
)
def test_preload(prefix: str, options: dict, expected: set[str]) -> None:
    shapes = {"sub/enc/W": [1, 2], "sub/out/b": [1], "other": [1]}
    variables = {name: tf.Variable(tf.zeros(shape)) for name, shape in shapes.items()}
    assert set(Checkpoint(prefix).preload(variables, Preload(filename=prefix, **options))) == expected
    assert {name for name, variable in variables.items() if variable.numpy().any()} == expected


def test_preload_of_what_is_missing_is_refused(prefix: str) -> None:
    with pytest.raises(CheckpointError, match="has no 'other'"):
        Checkpoint(prefix).preload({"other": tf.Variable([1.0])}, Preload(filename=prefix))
    with pytest.raises(CheckpointError, match="no parameter of the network"):
        Checkpoint(prefix).preload({"other": tf.Variable([1.0])}, Preload(filename=prefix, ignore_missing=True))


def test_superfluous_checkpoints() -> None:
    scores = {1: 0.5, 2: 0.3, 3: 0.4, 4: 0.9, 5: 0.8, 6: 0.7}
    errors = {epoch: {"dev_score": score, "train_score": -epoch} for epoch, score in scores.items()}
    assert superfluous(range(1, 7), errors, keep_last_n=1, keep_best_n=2, keep=[4]) == [1, 5]
    assert superfluous(range(1, 7), {}, keep_last_n=2, keep_best_n=4, keep=[]) == [1, 2, 3, 4]


def test_a_score_that_is_no_number_is_the_worst() -> None:
    errors = {epoch: {"dev_score": score} for epoch, score in enumerate((0.3, math.nan, 0.1, math.nan, 0.2), start=1)}
    assert superfluous(range(1, 6), errors, keep_last_n=0, keep_best_n=2, keep=[]) == [1, 2, 4]
