"""Recurrences on cuDNN without a GPU: the operation is made as it should be, and with cuDNN's formulas computed in its
place, outputs, states and gradients are those of the reference, and of the same network without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from returnn_lite.dims import DimKind, Symbol, linear_dim
from returnn_lite.ir import Graph
from returnn_lite.ir.ops.recurrent_cells import LstmCell, LstmStep
from returnn_lite.ir.ops.stacked_recurrence import Member, MemberOperands
from returnn_lite.net.network import BuiltNetwork
from returnn_lite.passes.device_kernels import device_kernels
from returnn_lite.tf.executable import Executable, input_length_dims
from returnn_lite.tf.kernels import cudnn
from returnn_lite.tf.layout import Tensor
from returnn_lite.weights import Gates, to_vector
from tests.passes.test_device_kernels import JOINED, N, built

X = np.random.default_rng(5).normal(size=(4, 5, 3))
LENGTHS = np.array([5, 1, 0, 3])
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def formulas(
    mode: str,
    alone: bool,
    source: tf.Tensor,
    states: Sequence[tf.Tensor],
    weights: tf.Tensor,
    lengths: tf.Tensor,
    training: bool,
) -> list[tf.Tensor]:
    """What cuDNN's documentation says that the kernel computes, one frame after the other."""
    assert source.shape.rank == 3 and lengths.dtype == tf.int32
    with tf.control_dependencies([tf.debugging.assert_positive(lengths), tf.debugging.assert_positive(len_of(source))]):
        source = tf.identity(source)
    directions, hidden, count = 1 if alone else 2, states[0].shape[-1], GATES[mode]
    members = states[0].shape[0]
    widths = [source.shape[-1] if i < directions else directions * hidden for i in range(members)]
    sizes = [size for width in widths for size in (*[hidden * width] * count, *[hidden * hidden] * count)]
    parts = iter(tf.split(weights, sizes + [hidden] * (2 * count * members)))
    matrices = [[tf.reshape(next(parts), [hidden, -1]) for _ in range(2 * count)] for _ in range(members)]
    biases = [[next(parts) for _ in range(2 * count)] for _ in range(members)]
    finals: list[list[tf.Tensor]] = []
    for first in range(0, members, directions):
        outputs = []
        for i in range(first, first + directions):
            init = [state[i] for state in states]
            frames, final = one_direction(mode, source, init, matrices[i], biases[i], lengths, i > first)
            outputs.append(frames)
            finals.append(final)
        source = tf.concat(outputs, -1)
    return [source, *(tf.stack([final[at] for final in finals]) for at in range(len(states)))]


def len_of(source: tf.Tensor) -> tf.Tensor:
    return tf.shape(source)[0]


def one_direction(
    mode: str,
    source: tf.Tensor,
    states: list[tf.Tensor],
    matrices: list[tf.Tensor],
    biases: list[tf.Tensor],
    lengths: tf.Tensor,
    backwards: bool,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The outputs, 0 beyond each length, and the states after the last step."""
    frames: list[Any] = [None] * X.shape[1]
    order = reversed(range(X.shape[1])) if backwards else range(X.shape[1])
    source = tf.pad(source, [[0, X.shape[1] - len_of(source)], [0, 0], [0, 0]])
    for t in order:
        there = tf.reshape(t < lengths, [-1, 1])
        after = step(mode, source[t], states, matrices, biases)
        frames[t] = tf.where(there, after[0], tf.zeros_like(after[0]))
        states = [tf.where(there, new, old) for new, old in zip(after, states, strict=True)]
    return tf.stack(frames), states


def step(
    mode: str, x: tf.Tensor, states: list[tf.Tensor], matrices: list[tf.Tensor], biases: list[tf.Tensor]
) -> list[tf.Tensor]:
    count, h = GATES[mode], states[0]
    of_x = [tf.matmul(x, w, transpose_b=True) + b for w, b in zip(matrices[:count], biases[:count], strict=True)]
    of_h = [tf.matmul(h, w, transpose_b=True) + b for w, b in zip(matrices[count:], biases[count:], strict=True)]
    if mode == "gru":
        r, i = (tf.sigmoid(of_x[k] + of_h[k]) for k in range(2))
        return [(1 - i) * tf.tanh(of_x[2] + r * of_h[2]) + i * h]
    total = [a + b for a, b in zip(of_x, of_h, strict=True)]
    if mode in ("rnn_tanh", "rnn_relu"):
        return [(tf.tanh if mode == "rnn_tanh" else tf.nn.relu)(total[0])]
    i, f, o = (tf.sigmoid(total[k]) for k in (0, 1, 3))
    c = f * states[1] + i * tf.tanh(total[2])
    return [o * tf.tanh(c), c]


def ran(graph: Graph, network: BuiltNetwork, lengths: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs and the gradients, with parameters that are the same by name."""
    executable = Executable(graph, network.extern_data.batch, "float64")
    for name, variable in executable.params.items():
        variable.assign(np.random.default_rng(sum(map(ord, name))).normal(0, 0.7, variable.shape))
    over = dict.fromkeys(input_length_dims(graph), lengths)
    feed = {value.name: X[:, : max(lengths)] for value in graph.inputs}
    outputs, gradients = executable.run_with_gradients(feed, over, of="objective")
    return {name: out.value for name, out in outputs.items()}, gradients


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", JOINED)
def test_with_the_formulas_in_place_of_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn, "cudnn_rnn", formulas)
    network, graph = built(JOINED[name][0])
    expected, found = ran(graph, network, LENGTHS), ran(device_kernels(graph), network, LENGTHS)
    for before, after in zip(expected, found, strict=True):
        for key, value in before.items():
            np.testing.assert_allclose(after[key], value, rtol=1e-8, atol=1e-11, err_msg=key)


@pytest.mark.one_in(3)
def test_of_no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN refuses them: it gets one, of zeros."""
    monkeypatch.setattr(cudnn, "cudnn_rnn", formulas)
    network, graph = built(JOINED["stack of both"][0])
    nothing = np.zeros(4, int)
    expected, found = ran(graph, network, nothing)[0], ran(device_kernels(graph), network, nothing)[0]
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, err_msg=key)


@pytest.mark.parametrize("name", ["stack of both", "gru"])
def test_the_operation(name: str) -> None:
    """As traced: its attributes, and the shapes of what it gets."""
    network, graph = built(JOINED[name][0])
    executable = Executable(device_kernels(graph), network.extern_data.batch)

    @tf.function(input_signature=(executable.feed_signature(), executable.length_signature()), autograph=False)
    def run(feed: dict[str, tf.Tensor], lengths: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return executable.call(feed, lengths, tf.constant(1), "objective").gradients

    made = run.get_concrete_function().graph.get_operations()
    (op,) = (one for one in made if one.type == "CudnnRNNV3")
    ((mode, layers, directions, _),) = JOINED[name][1]
    assert op.get_attr("rnn_mode") == mode.encode()
    assert op.get_attr("direction") == (b"bidirectional" if directions == 2 else b"unidirectional")
    assert op.get_attr("time_major") and op.get_attr("is_training")
    assert (op.get_attr("num_proj"), op.get_attr("dropout"), op.get_attr("input_mode")) == (0, 0.0, b"linear_input")
    source, h, c, _, lengths = op.inputs
    assert source.shape.as_list() == [None, None, 3]
    assert h.shape.as_list() == [layers * directions, None, N]
    assert c.shape.as_list() == ([layers * directions, None, N] if mode == "lstm" else [])
    assert lengths.shape.as_list() == [None] and lengths.dtype == tf.int32
    assert [one.type for one in made].count("CudnnRNNBackpropV3") == 1


def test_the_vector_of_weights() -> None:
    """It is that of `rl.weights`; what is added to the forget gate stands in the bias of h."""
    generator = np.random.default_rng(1)
    hidden, rows, recurrent = (Symbol(name, DimKind.FEATURE, size) for name, size in (("h", 2), ("x", 3), ("r", 2)))
    gates = linear_dim([(hidden, 4)], 0)
    cell = LstmCell(hidden, recurrent, gates, "ijfo", 1.0)
    shapes = ((rows, gates), (gates,), (recurrent, gates))
    arrays = [generator.normal(size=[dim.size for dim in dims]) for dims in shapes]
    of_x, bias, of_h = (Tensor(tf.constant(array), dims) for array, dims in zip(arrays, shapes, strict=True))
    found = cudnn.parameters([Member(LstmStep(cell), rows)], [MemberOperands(of_x, bias, (of_h,), ())])
    order = ("input", "cell", "forget", "output")
    by_gate = [dict(zip(order, np.split(array, 4, -1), strict=True)) for array in arrays]
    expected = to_vector([Gates("lstm", by_gate[0], by_gate[2], by_gate[1], forget_bias=1.0)])
    np.testing.assert_array_equal(found.numpy(), expected)
