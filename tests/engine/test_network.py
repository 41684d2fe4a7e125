"""The engine on networks that the compiler made: all four tasks, parameters by name, and options per layer."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.cli.checking import mistakes
from returnn_lite.cli.loading import LoadedConfig
from returnn_lite.compiler import compile
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.config.source import Source
from returnn_lite.data import BatchOptions, DataError, HDFDataset, make_dataset
from returnn_lite.engine.checkpoints import Checkpoint, CheckpointError
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.evaluation import Evaluator, run_eval
from returnn_lite.engine.forwarding import run_forward
from returnn_lite.engine.network import NetworkCompiler
from returnn_lite.engine.search import run_search
from returnn_lite.engine.training import run_train
from returnn_lite.verification.comparison import compare


def frames(tmp_path: Path) -> dict:
    """A network that labels each frame."""
    data = {"class": "DummyDataset", "input_dim": 3, "output_dim": 4}
    return {
        "model": str(tmp_path / "run" / "model"),
        "behavior_version": 21,
        "train": {**data, "num_seqs": 12, "seq_len": 4},
        "dev": {**data, "num_seqs": 3, "seq_len": 5},
        "extern_data": {
            "data": {"dim": 3},
            "classes": {"dim": 4, "sparse": True, "same_dim_tags_as": {"t": "data"}, "available_for_inference": False},
        },
        "batch_size": 20,
        "num_epochs": 2,
        "optimizer": {"class": "adam"},
        "learning_rate": 0.01,
        "network": {
            "hidden": {"class": "linear", "activation": "tanh", "from": "data", "n_out": 5},
            "output": {"class": "softmax", "from": "hidden", "loss": "ce", "target": "classes"},
        },
    }


def test_train_eval_and_forward(tmp_path: Path) -> None:
    config = frames(tmp_path)
    result = run_train(config, NetworkCompiler(config))
    assert result.records[2].errors["train_score"] < result.records[1].errors["train_score"]
    assert {"hidden/W", "hidden/b", "output/W", "output/b"} <= set(Checkpoint(result.checkpoint).shapes)
    (totals,) = run_eval(config, NetworkCompiler(config)).values()
    assert totals.errors("dev")["dev_score"] == pytest.approx(result.records[2].errors["dev_score"], rel=1e-6)
    hidden = {**config, "forward_output_layer": "hidden"}
    found = HDFDataset(run_forward(hidden, NetworkCompiler(config))).sequence(2).data["data"]
    stored = Checkpoint(result.checkpoint)
    source = make_dataset(config["dev"]).sequence(2).data["data"]
    np.testing.assert_allclose(found, np.tanh(source @ stored.read("hidden/W") + stored.read("hidden/b")), rtol=1e-5)


@pytest.mark.one_in(4)
def test_checkpoints_have_the_states_of_stateful_layers(tmp_path: Path) -> None:
    """As they are behind the last batch of an epoch."""
    config = {**frames(tmp_path), "batch_size": 100, "num_epochs": 1}
    config["network"]["hidden"] = {"class": "rec", "unit": "gru", "n_out": 5, "from": "data", "stateful": True}
    config["network"]["other"] = {**config["network"]["hidden"], "stateful": False, "initial_state": "keep_over_epoch"}
    config["network"]["output"]["from"] = ["hidden", "other"]
    result = run_train(config, NetworkCompiler(config))
    stored = Checkpoint(result.checkpoint)
    assert "other/rec/keep_state_h" not in stored.shapes
    state = tf.io.parse_tensor(stored.read("hidden/rec/keep_state_h").item(), tf.float32).numpy()
    assert state.shape == (12, 5)
    assert np.abs(state).max() > 0.01
    assert 2 in run_train({**config, "num_epochs": 2}, NetworkCompiler(config)).records, "training goes on"


def test_streams_begin_anew_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Batches with the next piece of each of two streams, the second of which ends: as whole sequences of the same
    network without states; in another epoch all begin anew, and checkpoints know the streams of their last batch."""
    pieces = np.random.default_rng(1).normal(size=(8, 4, 3)).astype("float32")
    streams = [5, 0, 5, 0, 5, 1, 5, 1]
    sequences = [{"data": x, "classes": [0, 1, 2, 3], "stream": n} for x, n in zip(pieces, streams, strict=True)]
    config = {**frames(tmp_path), "num_epochs": 2, "max_seqs": 2, "batch_size": 100}
    config |= {"train": {"class": "StaticDataset", "data": sequences}, "forward_output_layer": "hidden"}
    config["forward_data"] = config["train"]
    del config["dev"]
    config["extern_data"]["stream"] = {"shape": (), "dtype": "int32"}
    layer = {"class": "rec", "unit": "gru", "n_out": 5, "from": "data", "stateful": True, "streams": "data:stream"}
    config["network"]["hidden"] = layer
    compiler = NetworkCompiler(config)
    stored = Checkpoint(run_train(config, compiler).checkpoint)
    numbers = tf.io.parse_tensor(stored.read("hidden/rec/keep_streams").item(), tf.int32).numpy()
    assert list(numbers) == [6, 2]
    found = HDFDataset(run_forward(config, compiler))
    whole = {"class": "rec", "unit": "gru", "n_out": 5, "from": "data", "is_output_layer": True}
    plain = compile({"hidden": whole}, {"data": {"dim": 3}}, "eval", behavior_version=21)
    for name in plain.params:
        plain.params[name].assign(stored.read(name))
    for places in ([0, 2, 4, 6], [1, 3], [5, 7]):
        source = np.concatenate([pieces[place] for place in places])[None]
        expected = plain.run({"data": source}, {"data": [source.shape[1]]}).layers["hidden"].value[0]
        joined = np.concatenate([found.sequence(place).data["data"] for place in places])
        np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-6)


def test_forward_asks_for_what_the_layer_needs(tmp_path: Path) -> None:
    """Not for targets where only others read them; in whatever mode the layer is built."""
    config = {**frames(tmp_path), "num_epochs": 1, "forward_output_layer": "hidden"}
    config["network"]["loss"] = {"class": "combine", "kind": "sub", "from": ["output", "onehot"], "loss": "as_is"}
    config["network"]["onehot"] = {"class": "linear", "n_out": 4, "from": "data:classes"}
    run_train(config, NetworkCompiler(config))
    unlabelled = {"class": "StaticDataset", "data": [{"data": np.ones((length, 3), "float32")} for length in (2, 4)]}
    config["forward_data"] = unlabelled
    found = HDFDataset(run_forward(config, NetworkCompiler(config)))
    assert [len(found.sequence(index).data["data"]) for index in (0, 1)] == [2, 4]
    with pytest.raises(EngineError, match="forward_data: the network reads the data key 'classes'"):
        run_forward({**config, "forward_output_layer": "loss"}, NetworkCompiler(config))


def test_layers_with_their_own_updates(tmp_path: Path) -> None:
    config = {**frames(tmp_path), "num_epochs": 1}
    config["network"]["hidden"]["updater_opts"] = {"learning_rate_multiplier": 0.0}
    config["network"]["output"]["trainable"] = False
    compiler = NetworkCompiler(config)
    before = {name: variable.numpy() for name, variable in compiler("train").params.items()}
    after = Checkpoint(run_train(config, compiler).checkpoint)
    assert compiler("train").trainable == ["hidden/W", "hidden/b"]
    assert all((after.read(name) == array).all() for name, array in before.items())


def scaled(config: dict, **options: bool) -> dict:
    """The network with a variable that scales the hidden layer."""
    network = {
        **config["network"],
        "scale": {"class": "variable", "shape": (5,), "init": 1.0, "from": [], **options},
        "scaled": {"class": "combine", "kind": "mul", "from": ["hidden", "scale"]},
        "output": {**config["network"]["output"], "from": "scaled"},
    }
    return {**config, "network": network}


def test_a_parameter_that_is_not_saved(tmp_path: Path) -> None:
    """Every run begins with its initial value; all others are restored."""
    config = scaled({**frames(tmp_path), "num_epochs": 1, "learning_rate": 0.5}, saveable=False)
    compiler = NetworkCompiler(config)
    trained = Checkpoint(run_train(config, compiler).checkpoint)
    assert not {"scale/scale"} & set(trained.shapes)
    assert (compiler("train").params["scale/scale"].numpy() != 1).any()
    resumed = NetworkCompiler(config)
    run_train(config, resumed)
    params = resumed("train").params
    assert (params["scale/scale"].numpy() == 1).all()
    assert (params["hidden/W"].numpy() == trained.read("hidden/W")).all()
    run_eval(config, NetworkCompiler(config))


def test_a_parameter_that_a_checkpoint_may_lack(tmp_path: Path) -> None:
    config = frames(tmp_path)
    run_train({**config, "num_epochs": 1}, NetworkCompiler(config))
    with pytest.raises(CheckpointError, match="has no 'scale/scale'"):
        run_eval(scaled(config), NetworkCompiler(scaled(config)))
    optional = scaled(config, non_critical_for_restore=True)
    (without,) = run_eval(config, NetworkCompiler(config)).values()
    (totals,) = run_eval(optional, NetworkCompiler(optional)).values()
    assert totals.errors("dev") == without.errors("dev")
    resumed = run_train(optional, NetworkCompiler(optional))
    assert "scale/scale" in Checkpoint(resumed.checkpoint).shapes
    compiler = NetworkCompiler(optional)
    run_eval(optional, compiler)
    assert (compiler("eval").params["scale/scale"].numpy() != 1).any()


def around(config: dict, model: Path, load_on_init: object) -> dict:
    """The network's hidden layer in a subnetwork that begins with what a checkpoint has."""
    hidden = config["network"]["hidden"]
    subnetwork = {"hidden": hidden, "output": {"class": "linear", "activation": None, "n_out": 5, "from": "hidden"}}
    encoder = {"class": "subnetwork", "from": "data", "subnetwork": subnetwork, "load_on_init": load_on_init}
    network = {"encoder": encoder, "output": {**config["network"]["output"], "from": "encoder"}}
    return {**config, "model": str(model), "network": network}


def test_load_on_init(tmp_path: Path) -> None:
    """A part begins with what the checkpoint of another network has; afterwards a run has its own."""
    config = {**frames(tmp_path), "num_epochs": 1}
    first = run_train(config, NetworkCompiler(config)).checkpoint
    stored, model = Checkpoint(first), tmp_path / "other" / "model"
    partial = {"filename": first, "ignore_params_prefixes": ["output/"]}
    other = around(config, model, partial)
    params = NetworkCompiler(other)("train").params
    assert (params["encoder/hidden/W"].numpy() == stored.read("hidden/W")).all()
    assert (params["encoder/hidden/b"].numpy() == stored.read("hidden/b")).all()
    fresh = NetworkCompiler({**other, "network": around(config, model, None)["network"]})("train").params
    assert (params["encoder/output/W"].numpy() == fresh["encoder/output/W"].numpy()).all()
    trained = Checkpoint(run_train(other, NetworkCompiler(other)).checkpoint)
    resumed = NetworkCompiler(other)
    run_train(other, resumed)
    restored = resumed("train").params["encoder/hidden/W"].numpy()
    assert (restored == trained.read("encoder/hidden/W")).all() and (restored != stored.read("hidden/W")).any()


def test_a_part_that_begins_with_a_checkpoint_need_not_be_in_that_of_the_run(tmp_path: Path) -> None:
    """A language model beside a model that was trained without it; its LSTM is one of another form."""
    lstm = {"class": "rec", "unit": "nativelstm2", "from": "data", "n_out": 4}
    output = {"class": "softmax", "from": "lm", "loss": "ce", "target": "classes"}
    config = {**frames(tmp_path), "num_epochs": 1, "network": {"lm": lstm, "output": output}}
    lm = run_train(config, NetworkCompiler(config)).checkpoint
    main = {**frames(tmp_path), "num_epochs": 1, "model": str(tmp_path / "main" / "model")}
    run_train(main, NetworkCompiler(main))
    unit = {"lm": {**lstm, "unit": "standardlstm"}, "output": {"class": "copy", "from": "lm"}}
    beside = {"class": "subnetwork", "from": "data", "subnetwork": unit, "load_on_init": lm, "is_output_layer": True}
    both = {**main, "network": {**main["network"], "beside": beside}, "forward_output_layer": "beside"}
    found = HDFDataset(run_forward(both, NetworkCompiler(both))).sequence(1).data["data"]
    alone = {**config, "forward_output_layer": "lm"}
    expected = HDFDataset(run_forward(alone, NetworkCompiler(alone))).sequence(1).data["data"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "'output/W' has shape"),
        ({"ignore_missing": True, "var_name_mapping": {"output/W": "x"}}, "'output/b' has shape"),
        (
            {"var_name_mapping": {"hidden/W": "w"}},
            r"has no 'w' \[3, 5\] for the parameter 'encoder/hidden/W' \(of this shape it has 'hidden/W'",
        ),
        ({"filename": "nowhere"}, "'nowhere' cannot be read"),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_subnetwork(tmp_path: Path, change: dict, message: str) -> None:
    config = {**frames(tmp_path), "num_epochs": 1}
    first = run_train(config, NetworkCompiler(config)).checkpoint
    other = around(config, tmp_path / "other" / "model", {"filename": first, **change})
    with pytest.raises(CheckpointError, match=message):
        NetworkCompiler(other)("train")


def test_wrong_options_of_load_on_init(tmp_path: Path) -> None:
    for given, message in [
        (3, "expected the name of a checkpoint"),
        ({"filename": "x", "prefix": ""}, "unknown option"),
    ]:
        other = around(frames(tmp_path), tmp_path / "model", given)
        with pytest.raises(ConfigError, match=message):
            NetworkCompiler(other)("train")


def test_lengths_that_must_agree_are_checked(tmp_path: Path) -> None:
    config = frames(tmp_path)
    evaluator = Evaluator(NetworkCompiler(config)("eval"))
    data = [{"data": np.zeros((3, 3), np.float32), "classes": np.zeros(2, np.int32)}]
    dataset = make_dataset({"class": "StaticDataset", "data": data, "output_dim": {"classes": [4, 1]}})
    with pytest.raises(DataError, match=r"dev: .*: sequence .seq-0. has 3 frames of .data. and 2 of .classes."):
        evaluator.evaluate(dataset, BatchOptions(batch_size=99), "dev")


def decoder(tmp_path: Path) -> dict:
    """A network that generates labels until it chooses the end label, without looking at its input's order."""
    unit = {
        "state": {"class": "rnn_cell", "unit": "BasicRNN", "from": ["prev:embed", "base:summary"], "n_out": 6},
        "prob": {"class": "softmax", "from": "state", "target": "classes", "loss": "ce"},
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0},
        "embed": {"class": "linear", "from": "output", "n_out": 4, "activation": None, "initial_output": 0},
        "end": {"class": "compare", "from": "output", "value": 0},
    }
    return {
        **frames(tmp_path),
        "train": {"class": "CmuDictDataset", "part": "dev", "max_words": 40},
        "dev": {"class": "CmuDictDataset", "part": "test", "max_words": 11},
        "extern_data": {
            "data": {"dim": 29, "sparse": True},
            "classes": {"dim": 40, "sparse": True, "available_for_inference": False},
        },
        "batch_size": 100,
        "num_epochs": 1,
        "network": {
            "encoder": {"class": "linear", "from": "data", "n_out": 5, "activation": None},
            "summary": {"class": "reduce", "mode": "mean", "axis": "T", "from": "encoder"},
            "output": {
                "class": "rec",
                "from": [],
                "unit": unit,
                "target": "classes",
                "max_seq_len": "max_len_from('base:encoder')",
            },
            "decision": {"class": "decide", "from": "output", "only_on_search": True},
        },
    }


def test_search_with_one_and_with_all_hypotheses(tmp_path: Path) -> None:
    config = decoder(tmp_path)
    run_train(config, NetworkCompiler(config))
    layers = {"search_output_layer": ["decision", "output"], "batch_size": 30}
    result = run_search({**config, **layers}, NetworkCompiler(config))
    best, beams = result.decoded["decision"], result.decoded["output"]
    dataset = make_dataset(config["dev"])
    assert [one.tag for one in best] == [dataset.tag(index) for index in range(11)]
    for one, beam in zip(best, beams, strict=True):
        assert beam.is_beam and len(beam.labels) == 3
        assert list(beam.scores) == sorted(beam.scores, reverse=True)
        assert one.labels[0] == beam.labels[0]
        assert 0 not in one.labels[0]
    assert result.rates["decision"].sequences == 11
    alone = run_search({**config, "max_seqs": 1}, NetworkCompiler(config)).decoded["decision"]
    assert [one.labels for one in alone] == [one.labels for one in best]


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = frames(tmp_path)
    run_train({**config, "num_epochs": 1}, NetworkCompiler(config))
    with pytest.raises(ConfigError, match=r"no layer 'hiden' .* Did you mean 'hidden'"):
        run_forward({**config, "forward_output_layer": "hiden"}, NetworkCompiler(config))


def test_a_layer_of_a_search_that_needs_targets_is_told(tmp_path: Path) -> None:
    """As long as its target (size_target) it can't be without. It stopped in TensorFlow."""
    config = decoder(tmp_path)
    config["network"]["output"]["size_target"] = "classes"
    with pytest.raises(ConfigError, match=r"search_output_layer: 'decision' can't be output: it needs targets"):
        NetworkCompiler(config)("search", ["decision"])
    with pytest.raises(ConfigError, match="no layer 'decided' that could be output"):
        NetworkCompiler(config)("search", ["decided"])


def test_one_trace_whatever_the_lengths(tmp_path: Path) -> None:
    evaluator = Evaluator(NetworkCompiler(frames(tmp_path))("eval"))
    lengths = np.random.RandomState(1).randint(1, 30, 60)
    data = [{"data": np.zeros((n, 3), np.float32), "classes": np.zeros(n, np.int32)} for n in lengths]
    dataset = make_dataset({"class": "StaticDataset", "data": data, "output_dim": {"classes": [4, 1]}})
    totals = evaluator.evaluate(dataset, BatchOptions(batch_size=40), "dev")
    assert totals.sums["output"]["count"] == lengths.sum()
    assert evaluator.trace_count() == 1


@pytest.mark.parametrize(
    "output",
    [
        {"class": "softmax", "from": "hidden", "n_out": 4},
        {"class": "reduce", "mode": "argmax", "axis": "F", "from": "hidden", "loss": "edit_distance"},
        {"class": "softmax", "from": "hidden", "loss": "ce", "target": "classes", "loss_scale": 0},
    ],
)
def test_training_needs_something_to_minimise(tmp_path: Path, output: dict) -> None:
    config = frames(tmp_path) | {"target": "classes", "task": "train"}
    config["network"]["output"] = output
    config["network"]["hidden"]["n_out"] = 4
    message = "network: there is nothing to train for: no layer has a loss with a value, or all have loss_scale 0"
    with pytest.raises(ConfigError, match=message):
        run_train(config, NetworkCompiler(config))
    loaded = LoadedConfig(Source("net.config", config), is_code=True)
    assert [str(one).startswith(message) for one in mistakes(loaded)] == [True]
    differences = compare(config, "train", batch=2, functions=loaded.functions)
    assert not any(difference.is_one for difference in differences.values())
    net = compile(config["network"], config["extern_data"], target="classes", behavior_version=21)
    with pytest.raises(ConfigError, match="there is nothing to train for"):
        net.gradients({"data": np.zeros((1, 2, 3)), "classes": np.zeros((1, 2))}, {"data": [2], "classes": [2]})


def test_lengths_of_a_second_dynamic_axis(tmp_path: Path) -> None:
    """Words of characters: a batch of a dataset knows how long both are in each sequence."""
    rng = np.random.default_rng(0)
    shapes = [(3, 2, 1), (2, 4, 1), (1, 1, 1)]
    data = [{"data": rng.normal(size=shape).astype("float32")} for shape in shapes]
    config = {
        **frames(tmp_path),
        "train": {"class": "StaticDataset", "data": data},
        "dev": {"class": "StaticDataset", "data": data},
        "extern_data": {"data": {"shape": (None, None, 1)}},
        "num_epochs": 1,
        "batch_size": 100,
        "network": {
            "mean": {"class": "reduce", "mode": "mean", "axes": ["T", "spatial:1"], "from": "data"},
            "output": {"class": "linear", "n_out": 1, "activation": None, "with_bias": False, "from": "mean",
                       "forward_weights_init": 1.0, "loss": "as_is"},
        },
        "learning_rate": 1e-9,
    }  # fmt: skip
    run_train(config, NetworkCompiler(config))
    (totals,) = run_eval(config, NetworkCompiler(config)).values()
    expected = np.mean([sequence["data"].mean() for sequence in data])
    assert totals.errors("dev")["dev_score"] == pytest.approx(expected, rel=1e-5)
