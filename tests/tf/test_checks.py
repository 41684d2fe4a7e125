"""What stops while TensorFlow runs because of the data: told as the user's, with layer, cause and sequence."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.dims import DimKind, Symbol
from returnn_lite.ir import Origin
from returnn_lite.ir.batches import BatchError
from returnn_lite.ir.host_calls import FunctionError
from returnn_lite.ir.verify import InternalError
from returnn_lite.tf import lowering
from returnn_lite.tf.checks import Check, Checks

EXTERN = {"data": {"dim": 3}, "other": {"dim": 3}, "classes": {"dim": 5, "sparse": True}}
DATA = {"data": np.ones((2, 3, 3)), "other": np.ones((2, 3, 3)), "classes": np.zeros((2, 3), int)}
UNEQUAL = {"data": [3, 3], "other": [3, 2], "classes": [1, 3]}
SOFTMAX = {"class": "softmax", "from": "data", "target": "classes", "loss": "ce"}


def copy(of: str) -> dict[str, Any]:
    return {"class": "copy", "from": of, "is_output_layer": True}


SUM = {"class": "combine", "kind": "add", "from": ["data", "data:other"], "is_output_layer": True}
SHIFTED = {"class": "eval", "eval": "source(0) + 7", "from": "data:classes", "out_type": {"dim": 5, "sparse": True}}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "a loss": ({"output": SOFTMAX}, "output: .*'output' and its target.* differ: sequence 0 has 1 and 3"),
    "a sum": ({"output": SUM}, "output: .*'other'.* differ: sequence 1 has 2 and 3"),
    "size_base": (
        {"sized": {"class": "reinterpret_data", "size_base": "data:other", "from": "data"}, "output": copy("sized")},
        "sized: 'sized' takes the lengths of 'data:other'.*: sequence 1 has 3 and 2",
    ),
    "computed labels": (
        {"shifted": SHIFTED, "output": {**SOFTMAX, "from": "data:classes", "target": "layer:shifted", "n_out": 5}},
        "output: a label is none of the 5 classes: sequence 0 has 7",
    ),
    "computed labels of ctc": (
        {"shifted": SHIFTED, "output": {**SOFTMAX, "loss": "ctc", "target": "layer:shifted", "n_out": 6}},
        "output: a label is none of the 6 classes besides 5, the blank: sequence 0 has 7",
    ),
    "what an operation refuses": (
        {"output": {"class": "eval", "eval": "1 // source(0)", "from": "data:classes", "is_output_layer": True}},
        "output: this can't be computed for the batch: Integer division by zero$",
    ),
}


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_the_cause_and_the_sequence_are_told(kind: str, optimize: bool) -> None:
    network, message = KINDS[kind]
    compiled = rl.compile(network, EXTERN, "train", optimize=optimize)
    with pytest.raises(BatchError, match=message):
        compiled.run(DATA, UNEQUAL)
    if compiled.params:
        with pytest.raises(BatchError, match=message):
            compiled.gradients(DATA, UNEQUAL)


def test_another_batch_size_for_states_that_are_kept() -> None:
    lstm = {"class": "rec", "unit": "lstm", "n_out": 2, "from": "data", "initial_state": "keep_over_epoch"}
    compiled = rl.compile({"output": lstm}, EXTERN, "forward")
    compiled.run(DATA, UNEQUAL)
    with pytest.raises(BatchError, match=r"output: .*: it has 1, the one before 2. Batches must have equally many"):
        compiled.run({"data": DATA["data"][:1]}, {"data": [3]})


def test_values_of_any_rank_are_read_back() -> None:
    batch, beam, plain = Symbol("B", DimKind.BATCH), Symbol("beam", DimKind.BEAM, 2), Symbol("n")
    checks = Checks()

    def message(holds: Any, values: list[Any], dims: tuple[Symbol, ...]) -> str:
        @tf.function(autograph=False)
        def run() -> tf.Tensor:
            check = Check(Origin("layer", "net.yaml:3:4"), "wrong", "has {0}, not {1}", "", dims)
            with tf.control_dependencies([checks.require(check, tf.constant(holds), list(map(tf.constant, values)))]):
                return tf.constant(0)

        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            run()
        return str(checks.told(caught.value))

    assert message(False, [-3, 4], ()) == "net.yaml:3:4: layer: wrong: it has -3, not 4"
    assert message([False], [[5], [6]], (plain,)) == "net.yaml:3:4: layer: wrong: it has 5, not 6"
    assert message([False, True], [[1, 2], 0], (batch,)) == "net.yaml:3:4: layer: wrong: sequence 0 has 1, not 0"
    two = [[True, True], [True, False], [False, False]]
    assert message(two, [[[1, 2], [3, -4], [5, 6]], 0], (batch, beam)) == (
        "net.yaml:3:4: layer: wrong: sequence 1 has -4, not 0; sequence 2 has 5, not 0"
    )


def test_a_batch_that_does_not_fit_into_memory() -> None:
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[7]")
    assert str(Checks().told(error)) == "the batch does not fit into memory. Take a smaller batch_size or max_seqs."


def failing(source: tf.Tensor) -> tf.Tensor:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (failing, r"output: function failed at .*test_checks.py:\d+: KeyError: 'no such thing'"),
        (lambda x: None, "output: function returned None, which is no tensor"),
        (lambda x: tf.reshape(x, [7]), r"output: function returned shape \(7,\), but \[None, None, 3\] is declared"),
    ],
)
def test_a_function_of_the_config_that_fails(function: Any, message: str) -> None:
    layer = {"class": "eval", "eval": "function(source(0))", "from": "data", "is_output_layer": True}
    compiled = rl.compile({"output": layer}, EXTERN, "forward", functions={"function": function})
    with pytest.raises(FunctionError, match=message):
        compiled.run(DATA, UNEQUAL)


def test_what_a_function_gives_that_tensorflow_cannot_compute() -> None:
    layer = {"class": "eval", "eval": "function(source(0))", "from": "data", "is_output_layer": True}
    functions = {"function": lambda x: x + tf.gather(tf.zeros([2]), tf.cast(x + 7, tf.int32))}
    compiled = rl.compile({"output": layer}, EXTERN, "forward", functions=functions)
    with pytest.raises(BatchError, match=r"output: this can't be computed for the batch: indices.* is not in"):
        compiled.run(DATA, UNEQUAL)


def test_a_mistake_of_a_lowering_names_the_layer_and_shows_the_ir(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    table = {op: broken if op.__name__ == "Softmax" else found for op, found in lowering.LOWERINGS.items()}
    monkeypatch.setattr(lowering, "LOWERINGS", table)
    unit = {"prob": {"class": "softmax", "from": ["data:source", "prev:prob"], "n_out": 4}, "output": copy("prob")}
    compiled = rl.compile({"output": {"class": "rec", "from": "data", "unit": unit}}, EXTERN, "forward")
    with pytest.raises(InternalError, match=r"^output/prob: softmax.* can't be lowered: ZeroDivisionError: oh\n .* ="):
        compiled.run(DATA, UNEQUAL)
