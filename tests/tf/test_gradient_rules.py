"""Gradients of our own: what they are, and that no graph stays behind."""

import gc
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import returnn_lite as rl
from returnn_lite.tf.gradient_rules import of_one_shape, with_gradient

LABELS = {"dim": 5, "sparse": True}
EXTERN = {"data": {"dim": 3}, "classes": LABELS | {"same_dim_tags_as": {"t": "data"}}}
SOFTMAX = {"class": "softmax", "target": "classes", "loss": "ce"}
DATA = {
    "data": np.random.default_rng(1).normal(size=(2, 4, 3)),
    "classes": np.random.default_rng(2).integers(0, 5, size=(2, 4)),
}
LENGTHS = {"data": [4, 3], "classes": [4, 3]}


def decoder(**layers: Any) -> dict[str, Any]:
    """A loop over the labels whose layers read each other's last results."""
    output = {"class": "choice", "from": "p", "target": "classes", "beam_size": 2, "initial_output": 0}
    unit = {
        "label": {"class": "linear", "n_out": 4, "from": "prev:output"},
        "state": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 6, "from": ["label", "prev:state"]},
        "p": SOFTMAX | {"from": "state"},
        "output": output,
        "end": {"class": "compare", "from": "output", "value": 0},
        **layers,
    }
    return {"output": {"class": "rec", "from": [], "target": "classes", "unit": unit, "max_seq_len": 4}}


MASKED = {"class": "masked_computation", "mask": "kept", "from": "prev:state"}
MASKED |= {"unit": {"class": "rec", "unit": "lstm", "n_out": 6, "from": "data"}}
NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "a whole sequence": (
        {
            "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 4, "from": "data"},
            "out": SOFTMAX | {"from": "lstm"},
        },
        "train",
    ),
    "a loop": (decoder(), "train"),
    "large weights, whose gradient is made after the loop": (
        decoder(state={"class": "linear", "n_out": 512, "from": ["label", "prev:state"], "activation": "tanh"}),
        "train",
    ),
    "masked": (
        decoder(
            kept={"class": "compare", "from": "prev:output", "value": 1, "kind": "not_equal", "initial_output": True},
            slow=MASKED,
            p=SOFTMAX | {"from": ["state", "slow"]},
        ),
        "train",
    ),
    "search": (decoder(), "search"),
    "changed gradients": (
        {
            "h": {"class": "linear", "n_out": 4, "from": "data"},
            "g": {"class": "scaled_grad", "scale": -0.5, "from": "h"},
            "out": SOFTMAX | {"from": "g"},
        },
        "train",
    ),
}


def graphs() -> int:
    """How many graphs of functions there are in the process."""
    gc.collect()
    return sum(type(found).__name__ in ("FuncGraph", "_WhileBodyGradFuncGraph") for found in gc.get_objects())


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", NETWORKS)
def test_no_graph_of_a_compilation_stays(case: str) -> None:
    network, mode = NETWORKS[case]
    before = graphs()
    compiled = rl.compile(network, EXTERN, mode)
    if mode == "train":
        compiled.gradients(DATA, LENGTHS)
    compiled.run(DATA, LENGTHS)
    assert graphs() > before
    del compiled
    assert graphs() <= before


def test_the_rule_replaces_the_gradient_in_nested_loops_and_when_it_is_asked_for_twice() -> None:
    def tripled(x: tf.Tensor) -> tf.Tensor:
        y = 2 * x
        (y,) = with_gradient([y], [x], lambda dy: [3 * dy * y])
        return y

    def inner(x: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, tripled(x)), (0, x))[1]

    @tf.function(autograph=False)
    def computed(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        y = tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, inner(x)), (0, x))[1]
        first, second = (tf.gradients(y, x, [tf.constant(weight)])[0] for weight in (1.0, 10.0))
        return y, first, second

    def recomputed(x: float) -> tuple[float, float]:
        slope = 1.0
        for _ in range(4):
            x *= 2
            slope *= 3 * x
        return x, slope

    for value in (0.5, 1.5):
        y, slope = recomputed(value)
        assert [float(found) for found in computed(tf.constant(value))] == [y, slope, 10 * slope]


def test_a_rule_has_no_gradient_for_an_argument() -> None:
    @tf.function(autograph=False)
    def computed(x: tf.Tensor, unused: tf.Tensor) -> list[tf.Tensor | None]:
        y, z = with_gradient([x * unused, x], [x, unused], lambda dy, dz: [dy + 5 * dz, None])
        assert tf.gradients(y, unused) == [None]
        return tf.gradients([y, z], [x])

    assert float(computed(tf.constant(2.0), tf.constant(3.0))[0]) == 6.0


@pytest.mark.parametrize(
    ("kind", "function", "expected"),
    [
        ("add", tf.add, lambda x, y, g: (g, g)),
        ("sub", tf.subtract, lambda x, y, g: (g, -g)),
        ("mul", tf.multiply, lambda x, y, g: (g * y, g * x)),
    ],
)
@pytest.mark.parametrize("constant", [False, True])
def test_of_one_shape_nothing_is_summed_up(kind: str, function: Any, expected: Any, constant: bool) -> None:
    """Nor computed to find that out, although no size is known; a constant gets no gradient."""
    x, y, upstream = np.random.default_rng(1).normal(size=(3, 2, 4)).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec([None, None])] * 3, autograph=False)
    def gradients(x: tf.Tensor, y: tf.Tensor, upstream: tf.Tensor) -> list[tf.Tensor]:
        operands = [tf.constant(3.0), y] if constant else [x, y]
        found = tf.gradients(of_one_shape(kind, function, operands), operands, upstream)
        assert not constant or found.pop(0) is None
        return found

    graph = gradients.get_concrete_function().graph
    assert not {"Sum", "BroadcastGradientArgs"} & {op.type for op in graph.get_operations()}
    wanted = expected(np.float32(3.0) if constant else x, y, upstream)
    for found, right in zip(gradients(x, y, upstream), wanted[1:] if constant else wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)
