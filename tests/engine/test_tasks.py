"""The four tasks on a network written by hand: what they compute, what they leave on disk, and how they go on."""

import ast
import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.data import DataError, HDFDataset
from returnn_lite.engine import training
from returnn_lite.engine.checkpoint_options import Cleanup, cleanup_options
from returnn_lite.engine.checkpoints import Checkpoint, CheckpointError, ModelFiles
from returnn_lite.engine.error_rates import ErrorRates, edit_distance, error_rates
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.evaluation import run_eval
from returnn_lite.engine.forwarding import run_forward
from returnn_lite.engine.learning_rate_file import read_learning_rates
from returnn_lite.engine.runnable import Runnable, StepResult
from returnn_lite.engine.search import run_search
from returnn_lite.engine.training import run_train, step_seed
from tests.engine.network import SoftmaxNetwork, softmax_network

WEIGHTS = "output/W"


@pytest.fixture
def config(tmp_path: Path) -> dict:
    data = {"class": "DummyDataset", "input_dim": 3, "output_dim": 4}
    return {
        "model": str(tmp_path / "run" / "model"),
        "train": {**data, "num_seqs": 12, "seq_len": 4, "seq_ordering": "random"},
        "dev": {**data, "num_seqs": 3, "seq_len": 5},
        "batch_size": 20,
        "num_epochs": 3,
        "optimizer": {"class": "adam"},
        "learning_rate": 0.05,
    }


def names(config: dict) -> set[str]:
    return {path.name for path in Path(config["model"]).parent.iterdir()}


def test_training_leaves_everything_behind(config: dict) -> None:
    result = run_train(config, softmax_network(3, 4))
    folder = Path(config["model"]).parent
    checkpoints = {f"model.00{epoch}{end}" for epoch in (1, 2, 3) for end in (".index", ".data-00000-of-00001")}
    others = {"train.config.yaml", "train.environment.json", "train.log", "events", "learning_rates"}
    assert names(config) == checkpoints | others
    assert yaml.safe_load((folder / "train.config.yaml").read_text()) == config
    environment = json.loads((folder / "train.environment.json").read_text())
    assert environment["random_seed"] == 42 and "keras" in environment["versions"]
    assert len(list((folder / "events").iterdir())) == 1
    assert read_learning_rates(folder / "learning_rates") == result.records
    scores = [result.records[epoch].errors["dev_score"] for epoch in (1, 2, 3)]
    assert scores[0] > scores[1] > scores[2]
    assert set(result.records[1].errors) == {"train_score", "train_error", "dev_score", "dev_error"}
    log = (folder / "train.log").read_text()
    assert "epoch 1 score: " in log and " error: " in log and " elapsed: 0:0" in log and " dev: score: " in log


def test_scores_are_means_over_real_frames(config: dict) -> None:
    network = softmax_network(3, 4)
    config["dev"] = {"class": "StaticDataset", "data": [ramp(1), ramp(4), ramp(2)], "output_dim": {"classes": [4, 1]}}
    config["batch_size"] = 100
    run_train({**config, "num_epochs": 1}, network)
    (totals,) = run_eval({**config, "eval_output_file": config["model"] + ".scores"}, network).values()
    weights, bias = (variable.numpy() for variable in network("eval").params.values())
    logits = np.concatenate([ramp(n)["data"] for n in (1, 4, 2)]) @ weights + bias
    labels = np.concatenate([ramp(n)["classes"] for n in (1, 4, 2)])
    scores = np.log(np.exp(logits).sum(1)) - logits[np.arange(7), labels]
    expected = {"dev_score": scores.mean(), "dev_error": (logits.argmax(1) != labels).mean()}
    assert totals.errors("dev") == pytest.approx(expected, rel=1e-5)
    written = ast.literal_eval(Path(config["model"] + ".scores").read_text())
    assert written == {"dev": pytest.approx(expected, rel=1e-5)}


def ramp(length: int) -> dict[str, np.ndarray]:
    data = np.arange(3.0 * length, dtype=np.float32).reshape(length, 3) / 10 - length
    return {"data": data, "classes": np.arange(length) % 4}


def test_a_run_in_pieces_is_the_run_in_one(config: dict, tmp_path: Path) -> None:
    config |= {"gradient_noise": 0.1, "accum_grad_multiple_step": 2, "learning_rate_control": "newbob"}
    whole = run_train(config, softmax_network(3, 4))
    pieces = {**config, "model": str(tmp_path / "pieces" / "model")}
    for num_epochs in (1, 2, 3, 3):
        parts = run_train({**pieces, "num_epochs": num_epochs}, softmax_network(3, 4))
    assert parts.records == whole.records
    one, other = Checkpoint(whole.checkpoint), Checkpoint(parts.checkpoint)
    assert set(one.shapes) == set(other.shapes)
    assert all((one.read(name) == other.read(name)).all() for name in one.shapes)


def test_a_run_that_dies_before_its_checkpoint_is_the_run_in_one(
    config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config |= {"learning_rate_control": "newbob", "newbob_relative_error_threshold": -9.0}
    whole = run_train(config, softmax_network(3, 4))
    save, again = ModelFiles.save, {**config, "model": str(tmp_path / "again" / "model")}

    def dies(self: ModelFiles, epoch: int, variables: dict) -> str:
        if epoch == 2:
            raise KeyboardInterrupt
        return save(self, epoch, variables)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ModelFiles, "save", dies)
        run_train(again, softmax_network(3, 4))
    assert run_train(again, softmax_network(3, 4)).records == whole.records


def test_variables_of_another_optimizer_are_told(config: dict, capsys: pytest.CaptureFixture[str]) -> None:
    run_train({**config, "num_epochs": 1}, softmax_network(3, 4))
    run_train({**config, "num_epochs": 2, "optimizer": {"class": "sgd"}}, softmax_network(3, 4))
    assert "variables that are not used: optimizer/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"seq_ordering": "default_every_n:99"}, "train: the epoch visits none of the 12 sequences"),
        ({"class": "StaticDataset", "data": [{"data": np.zeros((0, 3), "float32"), "classes": np.zeros(0, "int32")}]},
         "train: in epoch 1 there is no frame to learn from"),
    ],
)  # fmt: skip
def test_an_epoch_without_data_is_an_error(config: dict, train: dict, message: str) -> None:
    base = {} if "class" in train else config["train"]
    declared = {"output_dim": {"classes": [4, 1], "data": [3, 2]}} if "class" in train else {}
    with pytest.raises((DataError, EngineError), match=message):
        run_train({**config, "train": {**base, **train, **declared}}, softmax_network(3, 4))


def test_a_dataset_to_evaluate_without_data_is_found_before_training(config: dict) -> None:
    """The sequences of `dev` have 5 frames, those to train on 4."""
    with pytest.raises(DataError, match=r"^dev: none of the 3 sequences of the epoch is left by max_seq_length 4; "):
        run_train({**config, "max_seq_length": 4}, softmax_network(3, 4))
    assert not Path(config["model"]).parent.exists()


def test_one_trace_for_batches_of_all_lengths(config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    original = SoftmaxNetwork.run_eval

    def counted(self: SoftmaxNetwork, *args: object) -> object:
        traced.append(1)
        return original(self, *args)

    monkeypatch.setattr(SoftmaxNetwork, "run_eval", counted)
    data = [ramp(n) for n in (1, 5, 2, 7, 3)]
    static = {"class": "StaticDataset", "data": data, "output_dim": {"classes": [4, 1]}}
    run_train({**config, "train": static, "dev": static, "batch_size": 8}, softmax_network(3, 4))
    assert len(traced) == 2  # once in training, once in evaluation


class Interrupted(SoftmaxNetwork):
    """Stops as a user does, or computes something that is no number, after some steps."""

    steps = 0
    after = 0
    infinite = False

    def run_train(self, data: dict, seq_lens: dict, seed: tf.Tensor) -> StepResult:
        result = super().run_train(data, seq_lens, seed)
        with tf.control_dependencies([tf.py_function(self._step, [], [])]):
            factor = tf.py_function(self._factor, [], tf.float32)
        loss = result.losses["output"]
        losses = {"output": type(loss)(loss.sum * factor, loss.count, loss.error)}
        return StepResult(result.objective, losses, result.gradients)

    def _step(self) -> None:
        self.steps += 1

    def _factor(self) -> float:
        return float("nan") if self.infinite and self.steps > self.after else 1.0


def interrupted(after: int) -> tuple[Interrupted, object]:
    base = softmax_network(3, 4)("train")
    network = Interrupted(base.params, {})
    network.after = after
    return network, lambda mode, layers=(): network


def test_a_score_that_is_no_number_stops_and_keeps_the_model(config: dict) -> None:
    network, compile_mode = interrupted(after=4)  # three batches an epoch
    network.infinite = True
    message = r"not finite in epoch 2, step 1 \(sequences seq-.*The model of epoch 1 is kept"
    with pytest.raises(EngineError, match=message):
        run_train(config, compile_mode)
    assert {"model.001.index"} == {name for name in names(config) if name.endswith(".index")}
    assert list(read_learning_rates(Path(config["model"]).parent / "learning_rates")) == [1]


def test_an_interrupted_run_goes_on(config: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = run_train({**config, "model": str(tmp_path / "whole" / "model")}, softmax_network(3, 4))
    original, calls = training.feeds, []

    def stopping(*arguments: object) -> Iterator:
        for item in original(*arguments):
            calls.append(item)
            if len(calls) == 5:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(training, "feeds", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_train(config, softmax_network(3, 4))
    handlers = logging.getLogger("returnn_lite").handlers
    assert not any(isinstance(handler, logging.FileHandler) for handler in handlers)
    assert run_train(config, softmax_network(3, 4)).records == whole.records


def test_scores_that_a_killed_run_did_not_reach_are_made_up_for(config: dict) -> None:
    whole = run_train(config, softmax_network(3, 4))
    rates = Path(config["model"]).parent / "learning_rates"
    lines = rates.read_text().split("\n")
    rates.write_text("\n".join(line for n, line in enumerate(lines) if n < len(lines) - 8 or "dev_" not in line))
    assert "dev_score" not in read_learning_rates(rates)[3].errors
    assert run_train(config, softmax_network(3, 4)).records == whole.records


def test_old_models_are_removed(config: dict) -> None:
    cleanup = {"keep_last_n": 1, "keep_best_n": 1, "keep": [2]}
    run_train({**config, "num_epochs": 5, "cleanup_old_models": cleanup}, softmax_network(3, 4))
    assert {name for name in names(config) if name.endswith(".index")} == {"model.002.index", "model.005.index"}


def test_begin_with_another_model(config: dict, tmp_path: Path) -> None:
    first = run_train(config, softmax_network(3, 4))
    trained = Checkpoint(first.checkpoint).read(WEIGHTS)
    frozen = {**config, "model": str(tmp_path / "other" / "model"), "num_epochs": 1, "learning_rate": 1e-30}
    for key, value in {
        "import_model_train_epoch1": first.checkpoint,
        "load": first.checkpoint,
        "preload_from_files": {"x": {"filename": first.checkpoint, "init_for_train": True}},
    }.items():
        frozen["model"] = str(tmp_path / key / "model")
        found = run_train({**frozen, key: value}, softmax_network(3, 4))
        assert (Checkpoint(found.checkpoint).read(WEIGHTS) == trained).all()


def test_search_writes_hypotheses_in_corpus_order(config: dict, tmp_path: Path) -> None:
    run_train(config, softmax_network(3, 4))
    data = [ramp(n) for n in (1, 4, 2)]
    config["search_data"] = {"class": "StaticDataset", "data": data, "output_dim": {"classes": [4, 1]}}
    config["batch_size"] = 4
    network = softmax_network(3, 4)
    result = run_search({**config, "search_output_file": str(tmp_path / "best.gz")}, network)
    weights, bias = (variable.numpy() for variable in network("eval").params.values())
    best = [tuple((frames["data"] @ weights + bias).argmax(1).tolist()) for frames in data]
    assert [one.labels for one in result.decoded["decision"]] == [(labels,) for labels in best]
    written = ast.literal_eval(gzip.decompress((tmp_path / "best.gz").read_bytes()).decode())
    assert written == {f"seq-{n}": " ".join(map(str, labels)) for n, labels in enumerate(best)}
    wrong = sum((np.array(labels) != frames["classes"]).sum() for labels, frames in zip(best, data, strict=True))
    assert 0 < result.rates["decision"].edits <= wrong and result.rates["decision"].labels == 7


def test_search_output_forms(config: dict, tmp_path: Path) -> None:
    run_train(config, softmax_network(3, 4))
    lines_of_text = {"search_output_file": str(tmp_path / "x.txt"), "search_output_file_format": "txt"}
    run_search({**config, **lines_of_text}, softmax_network(3, 4))
    lines = (tmp_path / "x.txt").read_text().splitlines()
    assert len(lines) == 3 and all(len(line.split()) == 5 for line in lines)
    beam = {"search_output_layer": "beam", "search_output_file": str(tmp_path / "x.py")}
    run_search({**config, **beam}, softmax_network(3, 4))
    written = ast.literal_eval((tmp_path / "x.py").read_text())
    assert [len(hypotheses) for hypotheses in written.values()] == [2, 2, 2]
    assert written["seq-0"][0] == (0.0, lines[0])
    both = {"search_output_layer": ["beam", "decision"], "search_output_file": str(tmp_path / "both.py")}
    run_search({**config, **both}, softmax_network(3, 4))
    assert set(ast.literal_eval((tmp_path / "both.py").read_text())) == {"beam", "decision"}


def test_search_refuses_to_overwrite(config: dict, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("precious")
    with pytest.raises(EngineError, match="x' exists already"):
        run_search({**config, "search_output_file": str(tmp_path / "x")}, softmax_network(3, 4))
    assert (tmp_path / "x").read_text() == "precious"


def test_forward_writes_hdf(config: dict) -> None:
    network = softmax_network(3, 4)
    run_train(config, network)
    found = HDFDataset(run_forward(config, network))
    assert found.num_seqs == 3 and found.keys["data"].dim == 4
    np.testing.assert_allclose(found.sequence(1).data["data"].sum(1), np.ones(5), rtol=1e-5)
    labels = HDFDataset(run_forward({**config, "forward_output_layer": "decision"}, network))
    assert (labels.keys["data"].dim, labels.keys["data"].sparse) == (4, True)
    assert labels.sequence(1).data["data"].tolist() == found.sequence(1).data["data"].argmax(1).tolist()
    mean = {**config, "forward_output_layer": "mean"}
    assert HDFDataset(run_forward(mean, network)).lengths("data").tolist() == [1, 1, 1]
    with pytest.raises(EngineError, match="exists already"):
        run_forward(mean, network)
    run_forward({**mean, "forward_override_hdf_output": True}, network)


def test_a_model_that_is_not_there_is_named(config: dict) -> None:
    with pytest.raises(CheckpointError, match="run task train first"):
        run_eval(config, softmax_network(3, 4))
    run_train({**config, "num_epochs": 1}, softmax_network(3, 4))
    with pytest.raises(CheckpointError, match=r"model.009' does not exist; in .* there are \['model.001'\]"):
        run_eval({**config, "load_epoch": 9}, softmax_network(3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": None}, "batch_size: expected a dict or an int, got None"),
        ({"num_epochs": "3"}, "num_epochs: expected an int, got '3'"),
        ({"optimizer": {"class": "adm"}}, "Did you mean 'adam'"),
        ({"pretrain": {"repetitions": 5}}, "'pretrain' is not supported"),
        ({"chunking": "5:x"}, "'5:x' is not 'size:step'"),
        ({"cleanup_old_models": {"keep_last": 2}}, "cleanup_old_models.keep_last: there is no option"),
        ({"train": {"class": "DumyDataset"}}, "train: there is no dataset class 'DumyDataset'. Did you mean"),
        (
            {"train": {"class": "DummyDataset", "input_dim": 2, "output_dim": 4, "num_seqs": 3}},
            r"train: data key 'data': the dataset has arrays of shape \[None, None, 2\] \(batch first\), "
            r"the network takes \[None, None, 3\]",
        ),
        (
            {"dev": {"class": "DummyDataset", "input_dim": 3, "output_dim": 5, "num_seqs": 3}},
            "dev: data key 'classes': the network takes 4 classes, the dataset has 5 classes",
        ),
        (
            {"train": {"class": "StaticDataset", "data": [{"data": np.ones((2, 3))}]}},
            "train: the network reads the data key 'classes', the dataset has",
        ),
        ({"preload_from_files": {"x": {"file": "a"}}}, "no option 'file'. Did you mean 'filename'"),
    ],
)
def test_wrong_options_are_refused(config: dict, change: dict, message: str) -> None:
    with pytest.raises((ConfigError, EngineError, ValueError), match=message):
        run_train({**config, **change}, softmax_network(3, 4))


def test_a_network_without_parameters_cannot_be_trained(config: dict) -> None:
    network: Runnable = softmax_network(3, 4)("train")
    network.trainable = []
    with pytest.raises(EngineError, match="no trainable parameters"):
        run_train(config, lambda mode, layers=(): network)


def test_step_seeds_differ() -> None:
    seeds = {step_seed(seed, step) for seed in range(10) for step in range(100)}
    assert len(seeds) == 1000 and max(seeds) < 2**31


def test_cleanup_options() -> None:
    assert cleanup_options(False) is None
    assert cleanup_options(True) == Cleanup(keep_last_n=2, keep_best_n=4, keep=[])
    assert cleanup_options({"keep": [3]}) == Cleanup(keep=[3])


@pytest.mark.parametrize("wrong", [{"keep_last_n": 0}, {"keep_last": 1}, {"keep": 3}, {"keep_best_n": -1}])
def test_wrong_cleanup_options_are_refused_at_their_key(wrong: dict) -> None:
    with pytest.raises(ConfigError) as caught:
        cleanup_options(wrong)
    assert [one.path for one in caught.value.diagnostics] == [("cleanup_old_models", *wrong)]


@pytest.mark.parametrize(
    ("hypothesis", "reference", "edits"),
    [("", "", 0), ("a", "", 1), ("", "a b", 2), ("a b c", "a c", 1), ("b a", "a b", 2), ("x y", "a b", 2)],
)
def test_edit_distance(hypothesis: str, reference: str, edits: int) -> None:
    assert edit_distance(hypothesis.split(), reference.split()) == edits


def test_error_rates_take_the_nearest_reference() -> None:
    pairs = [("AB", ["ABC", "AB"]), ("AB", ["XYZ", "ABC", "A"]), ("", ["A"])]
    assert error_rates(pairs) == ErrorRates(edits=2, labels=2 + 3 + 1, wrong=2, sequences=3)
    assert error_rates(pairs).sequence_error_rate == pytest.approx(2 / 3)
    with pytest.raises(EngineError, match="no reference labels"):
        error_rates([])


def test_labels_may_hold_spaces() -> None:
    assert edit_distance([" ", "a b"], ["a b"]) == 1
