"""The public interface as DESIGN section 8 documents it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import returnn_lite as rl

EXTERN_DATA: dict[str, Any] = {
    "data": {"dim": 4},
    "classes": {"dim": 5, "sparse": True, "available_for_inference": False},
}
NETWORK: dict[str, Any] = {
    "encoder": {"class": "linear", "from": "data", "n_out": 3, "activation": "tanh", "L2": 0.5},
    "context": {"class": "reduce", "mode": "mean", "axis": "T", "from": "encoder"},
    "output": {
        "class": "rec",
        "from": [],
        "target": "classes",
        "max_seq_len": "max_len_from('base:encoder')",
        "unit": {
            "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": 3, "initial_output": 0},
            "end": {"class": "compare", "from": "output", "value": 0},
            "embed": {"class": "linear", "from": "output", "n_out": 3, "activation": None, "initial_output": 0},
            "s": {"class": "rnn_cell", "unit": "LSTMBlock", "from": ["prev:embed", "base:context"], "n_out": 3},
            "prob": {"class": "softmax", "from": "s", "target": "classes", "loss": "ce"},
        },
    },
    "decision": {"class": "decide", "from": "output", "only_on_search": True, "is_output_layer": True},
}
DATA = {
    "data": np.random.default_rng(1).normal(size=(2, 6, 4)),
    "classes": np.array([[1, 2, 3, 4], [4, 3, 0, 0]]),
}
SEQ_LENS = {"data": [6, 5], "classes": [4, 2]}


def test_train() -> None:
    """Layers, dims, lengths, losses, the objective, gradients, placement, and the graph as text."""
    net = rl.compile(NETWORK, extern_data=EXTERN_DATA, mode="train", behavior_version=21)
    assert net.params["encoder/W"].shape == (4, 3)
    assert "output/rec/s/rec/lstm_cell/kernel" in net.params
    out = net.run(DATA, SEQ_LENS)
    encoder = out.layers["encoder"]
    assert encoder.value.shape == (2, 6, 3)
    assert encoder.dims[0] == "B"
    assert encoder.seq_lens["data:time"].tolist() == [6, 5]
    loss = out.losses["output/prob"]
    assert loss.count == 6
    assert loss.sum is not None
    assert loss.error is not None
    l2 = 0.5 * sum(float(np.square(net.params[f"encoder/{name}"].numpy()).sum()) for name in ("W", "b"))
    assert out.objective == pytest.approx(loss.sum + l2, rel=1e-5)
    gradients = net.gradients(DATA, SEQ_LENS)
    assert set(gradients) == set(net.params)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())
    assert net.placement["output/prob"] == "before"
    assert "lstm(" in str(net.graph)


def test_padding_has_no_influence() -> None:
    """What stands in the padding changes nothing."""
    net = rl.compile(NETWORK, extern_data=EXTERN_DATA, mode="eval", behavior_version=21)
    padded = {key: array.copy() for key, array in DATA.items()}
    padded["data"][1, 5:] = 1e3
    padded["classes"][1, 2:] = 4
    assert net.run(DATA, SEQ_LENS).objective == net.run(padded, SEQ_LENS).objective


def test_search() -> None:
    """Batch, beam and time in this order; hypotheses best first; targets are not needed."""
    net = rl.compile(NETWORK, extern_data=EXTERN_DATA, mode="search", behavior_version=21)
    out = net.run({"data": DATA["data"]}, {"data": SEQ_LENS["data"]})
    hypotheses = out.layers["output"]
    assert hypotheses.dims[:2] == ("B", "output/output:beam")
    assert hypotheses.value.shape[:2] == (2, 3)
    best = out.layers["decision"]
    length = int(best.seq_lens["decision:time"][0])
    assert best.value[0, :length].tolist() == hypotheses.value[0, 0, :length].tolist()


def test_shared_dims() -> None:
    """`same_dim_tags_as`, or one `rl.Dim`, makes keys share their time."""
    time = rl.Dim("time", rl.DimKind.SPATIAL, None)
    network = {"output": {"class": "softmax", "from": "data", "loss": "ce", "target": "classes"}}
    for shared in ({"same_dim_tags_as": {"t": "data"}}, {"same_dim_tags_as": {"t": time}}):
        first = {"dim": 4, **(shared if isinstance(shared["same_dim_tags_as"]["t"], rl.Dim) else {})}
        entries = {"data": first, "classes": {"dim": 5, "sparse": True, **shared}}
        graph = rl.check({"network": network, "extern_data": entries, "behavior_version": 21})
        times = {dim for value in graph.inputs for dim in value.type.dims if dim.is_dynamic and dim.name != "B"}
        assert len(times) == 1


def test_a_bad_config_is_a_config_error() -> None:
    """All independent mistakes at once."""
    network = {**NETWORK, "encoder": {**NETWORK["encoder"], "n_ot": 3}, "more": {"class": "linaer", "from": "data"}}
    with pytest.raises(rl.ConfigError) as error:
        rl.compile(network, extern_data=EXTERN_DATA, behavior_version=21)
    texts = [str(diagnostic) for diagnostic in error.value.diagnostics]
    assert any("'n_ot'" in text and "n_out" in text for text in texts)
    assert any("'linaer'" in text and "linear" in text for text in texts)
    assert len(texts) == 2


def test_wrong_feeds_are_told() -> None:
    """A missing key, a wrong rank, lengths that do not fit."""
    net = rl.compile(NETWORK, extern_data=EXTERN_DATA, mode="eval", behavior_version=21)
    with pytest.raises(ValueError, match="seq_lens has no 'data'"):
        net.run(DATA, {"classes": [4, 2]})
    with pytest.raises(ValueError, match="'data' has shape"):
        net.run({**DATA, "data": DATA["data"][0]}, SEQ_LENS)
    with pytest.raises(ValueError, match="the batch has 2"):
        net.run(DATA, {**SEQ_LENS, "data": [6]})


def test_checking_needs_no_tensorflow() -> None:
    """Importing the package and checking a config leave TensorFlow alone."""
    config = {
        "network": {"output": {"class": "linear", "from": "data", "n_out": 2}},
        "extern_data": {"data": {"dim": 3}},
    }
    code = f"import sys, returnn_lite as rl; rl.check({config!r}); "
    code += "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_layers_that_need_no_targets_are_computed_without() -> None:
    """In every mode; those that need some say so."""
    data, lengths = {"data": DATA["data"]}, {"data": SEQ_LENS["data"]}
    for mode in ("train", "eval", "forward", "search"):
        for optimize in (True, False):
            net = rl.compile(NETWORK, EXTERN_DATA, mode, target="classes", behavior_version=21, optimize=optimize)  # type: ignore[arg-type]
            found = net.run(data, lengths, layers=["encoder"]).layers["encoder"]
            np.testing.assert_array_equal(found.seq_lens["data:time"], SEQ_LENS["data"])
            with_targets = net.run(DATA, {**SEQ_LENS, "classes:time": SEQ_LENS["classes"]}, layers=["encoder"])
            np.testing.assert_array_equal(with_targets.layers["encoder"].value, found.value)
    net = rl.compile(NETWORK, EXTERN_DATA, "eval", target="classes", behavior_version=21)
    with pytest.raises(ValueError, match="data has no 'classes'"):
        net.run(data, lengths, layers=["output"])
