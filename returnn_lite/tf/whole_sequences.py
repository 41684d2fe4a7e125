"""Recurrences over whole sequences."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrence import Gru, Lstm, SimpleRnn
from returnn_lite.tf.cells import gate_parts
from returnn_lite.tf.context import Context
from returnn_lite.tf.layout import Tensor, common_layout
from returnn_lite.tf.mask import broadcast
from returnn_lite.tf.ops.elementwise import UNARY
from returnn_lite.tf.product import multiplied


def scan(
    c: Context,
    over: Dim,
    reverse: bool,
    inputs: list[tuple[Tensor, Dim]],
    states: list[tuple[Tensor, Dim]],
    step: Callable[[list[tf.Tensor], list[tf.Tensor]], list[tf.Tensor]],
) -> list[Tensor]:
    dims = common_layout([t for t, _ in inputs] + [t for t, _ in states])
    named = {d for _, d in inputs} | {d for _, d in states} | {over}
    batch = tuple(d for d in dims if d not in named)
    n = multiplied(c.shape(batch))
    T = c.size(over)
    def flat_in(t, d):
        t = t if over in t.dims else broadcast(c.sizes, t, (over, *t.dims))
        return tf.reshape(broadcast(c.sizes, t, (over, *batch, d)).raw, [T, n, d.size])
    xs = [flat_in(t, d) for t, d in inputs]
    hs = [tf.reshape(broadcast(c.sizes, t, (*batch, d)).raw, [n, d.size]) for t, d in states]
    mask = None
    if reverse and c.sizes.has_padding(over):
        mask = tf.reshape(broadcast(c.sizes, c.sizes.mask(over), (over, *batch)).raw, [T, n, 1])
    xa = [tf.TensorArray(x.dtype, T, element_shape=x.shape[1:]).unstack(x) for x in xs]
    out = [tf.TensorArray(h.dtype, T, element_shape=h.shape) for h in hs]
    def body(i, hs, out):
        t = T - 1 - i if reverse else i
        new = step([a.read(t) for a in xa], hs)
        if mask is not None:
            new = [tf.where(mask[t], a, b) for a, b in zip(new, hs)]
        return i + 1, [tf.ensure_shape(x, h.shape) for x, h in zip(new, hs)], [a.write(t, x) for a, x in zip(out, new)]
    _, _, out = tf.while_loop(lambda i, *_: i < T, body, (0, hs, out))
    res = []
    for (_, d), a, h in zip(states, out, hs):
        raw = tf.raw_ops.TensorListStack(input_handle=a.flow, element_shape=tf.shape(h), element_dtype=h.dtype, num_elements=-1)
        res.append(Tensor(tf.reshape(raw, [T, *c.shape(batch), d.size]), (over, *batch, d)))
    return res


def lstm_sequence(c: Context, op: Lstm, z: Tensor, w_re: Tensor, h: Tensor, cell_state: Tensor) -> tuple[Tensor, Tensor]:
    cell = op.cell
    w = w_re.in_order((cell.recurrent, cell.gates))
    def step(xs, hs):
        parts = gate_parts(cell, xs[0] + hs[0] @ w)
        new = tf.sigmoid(parts["f"]) * hs[1] + tf.sigmoid(parts["i"]) * tf.tanh(parts["j"])
        return [tf.sigmoid(parts["o"]) * tf.tanh(new), new]
    a, b = scan(c, op.over, op.reverse, [(z, cell.gates)], [(h, cell.hidden), (cell_state, cell.hidden)], step)
    return a, b


def gru_sequence(c: Context, op: Gru, z: Tensor, zc: Tensor, wg: Tensor, wc: Tensor, h: Tensor) -> Tensor:
    cell = op.cell
    w, v = wg.in_order((cell.recurrent, cell.gates)), wc.in_order((cell.recurrent, cell.hidden))
    def step(xs, hs):
        r, u = tf.split(tf.sigmoid(xs[0] + hs[0] @ w), 2, -1)
        return [u * hs[0] + (1 - u) * tf.tanh(xs[1] + (r * hs[0]) @ v)]
    return scan(c, op.over, op.reverse, [(z, cell.gates), (zc, cell.hidden)], [(h, cell.hidden)], step)[0]


def simple_rnn_sequence(c: Context, op: SimpleRnn, z: Tensor, w_re: Tensor, h: Tensor) -> Tensor:
    cell = op.cell
    w = w_re.in_order((cell.recurrent, cell.hidden))
    def step(xs, hs):
        return [UNARY[cell.activation](xs[0] + hs[0] @ w)]
    return scan(c, op.over, op.reverse, [(z, cell.hidden)], [(h, cell.hidden)], step)[0]
