"""Primitives on small ragged batches, each with what it gives for one sequence alone, in NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from returnn_lite.dims import Dim, DimKind, Symbol, TensorType, conv_dim
from returnn_lite.ir import Op
from returnn_lite.ir.ops import contraction, elementwise, recurrent_cells, reduction

B = Symbol("B", DimKind.BATCH)
T = Symbol("T", varies_over=(B,))
S = Symbol("S", varies_over=(B,))
F = Symbol("F", DimKind.FEATURE, 4)
G = Symbol("G", DimKind.FEATURE, 6)
V = Symbol("V", DimKind.FEATURE, 5)
W = Symbol("W", DimKind.SPATIAL, 3)
ROW = Symbol("row", varies_over=(B,))
"""Of an edit distance table: one entry more than S has frames."""
LENGTHS = {T: [5, 3, 0, 1], S: [2, 6, 1, 0], ROW: [3, 7, 2, 1]}

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """A primitive, its operands (dims and the number of integers, 0 for floats, -1 for bool), and its meaning for one
    sequence: a function of the operands without the batch dim, in the order of their dims, to the results, laid out as
    the dims of the output type without the batch dim."""

    name: str
    op: Op
    operands: tuple[tuple[tuple[Dim, ...], int], ...]
    meaning: Callable[..., Array | tuple[Array, ...]]
    sparse: Dim | None = None

    def __str__(self) -> str:
        return self.name

    def types(self) -> list[TensorType]:
        found = []
        for dims, classes in self.operands:
            dtype = {0: "float32", -1: "bool"}.get(classes, "int32")
            found.append(TensorType(dims, dtype))
        return found


def softmax(x: Array, axis: int) -> Array:
    if x.shape[axis] == 0:
        return x
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def shifted(x: Array, amount: int, length: int, value: float) -> Array:
    result = np.full((length, *x.shape[1:]), value, x.dtype)
    for t in range(length):
        if 0 <= t - amount < len(x):
            result[t] = x[t - amount]
    return result


def correlated(x: Array, w: Array, stride: int, dilation: int, left: int, length: int) -> Array:
    """x [n, in], w [k, in, out]."""
    result = np.zeros((length, w.shape[-1]))
    for t in range(length):
        for k in range(len(w)):
            if 0 <= (i := t * stride - left + k * dilation) < len(x):
                result[t] += x[i] @ w[k]
    return result


def same(n: int, stride: int, reach: int) -> tuple[int, int]:
    """Length and left padding of "same"."""
    length = -(-n // stride)
    return length, max((length - 1) * stride + reach + 1 - n, 0) // 2


def conv_same_2(x: Array, w: Array) -> Array:
    length, left = same(len(x), 2, 2)
    return correlated(x, w, 2, 1, left, length)


def pooled(x: Array, kind: Callable[..., Array], stride: int) -> Array:
    length, left = same(len(x), stride, 2)
    windows = [x[max(t * stride - left, 0) : t * stride - left + 3] for t in range(length)]
    return np.array([kind(w, axis=0) for w in windows]).reshape(length, x.shape[1])


def windows(x: Array, left: int, stride: int) -> Array:
    if not len(x):
        return np.zeros((0, 3, x.shape[1]))
    padded = [x[i] if 0 <= i < len(x) else np.zeros_like(x[0]) for i in range(-left, len(x) + 3)]
    picked = [padded[t * stride : t * stride + 3] for t in range(-(-len(x) // stride))]
    return np.array(picked).reshape(-1, 3, x.shape[1])


def lstm(z: Array, w: Array, h: Array, c: Array, forget: float, order: str) -> tuple[Array, Array]:
    hs, cs = [], []
    for t in range(len(z)):
        parts = dict(zip(order, np.split(z[t] + h @ w, 4), strict=True))
        c = sigmoid(parts["f"] + forget) * c + sigmoid(parts["i"]) * np.tanh(parts["j"])
        h = sigmoid(parts["o"]) * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.array(hs).reshape(len(z), len(h)), np.array(cs).reshape(len(z), len(h))


def gru(z: Array, zc: Array, wg: Array, wc: Array, h: Array) -> Array:
    hs = []
    for t in range(len(z)):
        r, u = np.split(sigmoid(z[t] + h @ wg), 2)
        h = u * h + (1 - u) * np.tanh(zc[t] + (r * h) @ wc)
        hs.append(h)
    return np.array(hs).reshape(len(z), len(h))


def reset_after_gru(z: Array, w: Array, b: Array, h: Array) -> Array:
    """With the blocks u, r, c."""
    hs = []
    for t in range(len(z)):
        (zu, zr, zc), (u, r, c) = np.split(z[t], 3), np.split(h @ w + b, 3)
        u = sigmoid(zu + u)
        h = u * h + (1 - u) * np.tanh(zc + sigmoid(zr + r) * c)
        hs.append(h)
    return np.array(hs).reshape(len(z), len(h))


def rnn(z: Array, w: Array, h: Array) -> Array:
    hs = []
    for t in range(len(z)):
        h = np.tanh(z[t] + h @ w)
        hs.append(h)
    return np.array(hs).reshape(len(z), len(h))


def levenshtein(a: Array, b: Array) -> Array:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + int(x != y)))
    return np.array(row[-1])


def ctc(logits: Array, target: Array) -> Array:
    """Forward algorithm (Graves et al. 2006), the blank last."""
    p = softmax(logits, 1)
    blank = logits.shape[1] - 1
    states = [blank]
    for label in target:
        states += [label, blank]
    if not len(p):
        return np.array(0.0 if not len(target) else math.inf)
    alpha = np.zeros(len(states))
    alpha[:2] = [p[0, s] for s in states[:2]]
    for t in range(1, len(p)):
        before = alpha
        alpha = before.copy()
        alpha[1:] += before[:-1]
        for s in range(2, len(states)):
            if states[s] != blank and states[s] != states[s - 2]:
                alpha[s] += before[s - 2]
        alpha = alpha * p[t, states]
    total = alpha[-2:].sum()
    return np.array(-math.log(total) if total > 0 else math.inf)


def ctc_by_paths(combine: Callable[[list[float]], float], merge: bool) -> Callable[[Array, Array], Array]:
    """The same by all paths, one after the other: `combine` gets the probabilities of those of the target."""

    def meaning(logits: Array, target: Array) -> Array:
        p = softmax(logits, 1)
        blank = logits.shape[1] - 1
        found = []
        for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
            frames = [x for t, x in enumerate(path) if not merge or t == 0 or path[t - 1] != x]
            if [x for x in frames if x != blank] == target.tolist():
                found.append(float(np.prod([p[t, x] for t, x in enumerate(path)])))
        return np.array(-math.log(combine(found)) if found else math.inf)

    return meaning


def greedy(logits: Array) -> Array:
    best = logits.argmax(1) if len(logits) else np.zeros(0, int)
    kept = [label for t, label in enumerate(best) if label != 1 and (t == 0 or best[t - 1] != label)]
    return np.array(kept, int)


def most_probable(logits: Array) -> Array:
    """The labels with the most probability over all paths; the blank is 1."""
    p = softmax(logits, 1)
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        merged = tuple(x for t, x in enumerate(path) if x != 1 and (t == 0 or path[t - 1] != x))
        total[merged] = total.get(merged, 0.0) + float(np.prod(p[range(len(path)), list(path)]))
    return np.array(max(total, key=lambda labels: total[labels]), int)


def held(y: Array, mask: Array, init: Array) -> Array:
    position, result = -1, []
    for true in mask:
        position += bool(true)
        result.append(y[position] if position >= 0 else init)
    return np.array(result).reshape(len(mask), *init.shape)


GATES, H, R = Symbol("4H", DimKind.FEATURE, 8), Symbol("H", DimKind.FEATURE, 2), Symbol("R", DimKind.FEATURE, 2)
GATES2 = Symbol("2H", DimKind.FEATURE, 4)
ONE = Symbol("one", DimKind.FEATURE, 1)
F_IN, F_OUT = Symbol("in", DimKind.FEATURE, 2), Symbol("out", DimKind.FEATURE, 6)
K = Symbol("k", DimKind.SPATIAL, 3)
HALF = T.ceildiv(2)
LATER = Symbol("later", varies_over=(B,))
MASKED = Symbol("masked", varies_over=(B,))
F2 = Symbol("F2", DimKind.FEATURE, 2)


def floats(*dims: Dim) -> tuple[tuple[Dim, ...], int]:
    return dims, 0


def ints(classes: int, *dims: Dim) -> tuple[tuple[Dim, ...], int]:
    return dims, classes


def bools(*dims: Dim) -> tuple[tuple[Dim, ...], int]:
    return dims, -1


X = floats(B, T, F)


def spatial(stride: int, dilation: int, padding: str | tuple[int, int], out: Dim) -> contraction.SpatialDim:
    return contraction.SpatialDim(T, out, K, stride, dilation, padding)


def conv(name: str, stride: int, dilation: int, padding: str, meaning: Callable[..., Array]) -> Case:
    out = conv_dim(T, 3, stride, dilation, padding)
    op = contraction.Conv((spatial(stride, dilation, padding, out),), F, F, G)
    return Case(name, op, (X, floats(K, F, G)), meaning)


def grouped(x: Array, w: Array) -> Array:
    blocks = np.split(w, 2, -1)
    return np.concatenate([correlated(x[:, 2 * i : 2 * i + 2], blocks[i], 1, 1, 1, len(x)) for i in range(2)], -1)


def pool(kind: str, stride: int) -> Case:
    out = conv_dim(T, 3, stride, 1, "same")
    function = {"max": np.max, "avg": np.mean}[kind]
    op = contraction.Pool(kind, (spatial(stride, 1, "same", out),))
    return Case(f"pool {kind} {stride}", op, (X,), lambda x: pooled(x, function, stride))


def transposed(x: Array, w: Array) -> Array:
    """x [n, in], w [k, out, in], stride 2, one frame cropped at the left."""
    full = np.zeros((2 * len(x) + 1, w.shape[1]))
    for t in range(len(x)):
        for k in range(3):
            full[2 * t + k] += w[k] @ x[t]
    return full[1 : 2 * len(x)] if len(x) else full[:0]


def reduce(kind: str, empty: float) -> Case:
    function = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod}.get(kind)

    def meaning(x: Array) -> Array:
        if not len(x):
            return np.full(x.shape[1], empty)
        return np.log(np.exp(x).sum(0)) if function is None else function(x, 0)

    return Case(f"reduce {kind}", reduction.Reduce(kind, (T,)), (X,), meaning)


LSTM = recurrent_cells.LstmCell(H, R, GATES, "ijfo", 1.0)
LSTM_OPERANDS = (floats(B, T, GATES), floats(R, GATES), floats(B, H), floats(B, H))


CASES = [
    Case("add", elementwise.Elementwise("add"), (X, floats(B, F)), lambda x, y: x + y),
    Case("add outer", elementwise.Elementwise("add"), (X, floats(K)), lambda x, y: x[..., None] + y),
    Case("log", elementwise.Elementwise("log"), (X,), np.log),
    Case("sqrt", elementwise.Elementwise("sqrt"), (X,), np.sqrt),
    Case("truediv", elementwise.Elementwise("truediv"), (X, X), lambda x, y: x / y),
    Case("logaddexp", elementwise.Elementwise("logaddexp"), (X, X), np.logaddexp),
    Case("select", elementwise.Select(), (bools(B, T), X, floats(F)), lambda c, x, y: np.where(c[:, None], x, y)),
    Case("cast", elementwise.Cast("int32"), (X,), lambda x: x.astype(int)),
    Case("dot", contraction.Dot((F,)), (X, floats(F, G)), lambda x, w: x @ w),
    Case("dot reversed", contraction.Dot((F,)), (floats(G, F), X), lambda w, x: (x @ w.T).T),
    Case("dot over time", contraction.Dot((T,)), (floats(B, T, G), X), lambda x, y: np.einsum("tg,tf->gf", x, y)),
    Case("dot over two", contraction.Dot((T, F)), (X, X), lambda x, y: np.sum(x * y)),
    Case("dot of two times", contraction.Dot((F,)), (X, floats(B, S, F)), lambda x, y: x @ y.T),
    Case("dot elementwise", contraction.Dot(()), (X, floats(B, S)), lambda x, y: x[:, :, None] * y),
    Case("dot batched", contraction.Dot((F,)), (X, floats(T, F, G)), lambda x, w: np.einsum("tf,tfg->tg", x, w)),
    conv("conv same", 1, 1, "same", lambda x, w: correlated(x, w, 1, 1, 1, len(x))),
    conv("conv same stride", 2, 1, "same", conv_same_2),
    conv("conv valid", 1, 1, "valid", lambda x, w: correlated(x, w, 1, 1, 0, max(len(x) - 2, 0))),
    conv("conv dilated", 2, 2, "valid", lambda x, w: correlated(x, w, 2, 2, 0, -(-max(len(x) - 4, 0) // 2))),
    Case(
        "conv grouped",
        contraction.Conv((spatial(1, 1, "same", T),), F, F_IN, F_OUT, 2),
        (X, floats(K, F_IN, F_OUT)),
        grouped,
    ),
    Case(
        "conv depthwise",
        contraction.Conv((spatial(1, 1, "same", T),), F, ONE, F, 4),
        (X, floats(K, ONE, F)),
        lambda x, w: np.concatenate([correlated(x[:, [i]], w[:, :, [i]], 1, 1, 1, len(x)) for i in range(4)], -1),
    ),
    Case(
        "transposed conv",
        contraction.TransposedConv((contraction.SpatialDim(T, T * 2 - 1, K, 2),), F, G, ((1, 1),)),
        (X, floats(K, G, F)),
        transposed,
    ),
    pool("max", 1),
    pool("max", 2),
    pool("avg", 1),
    pool("avg", 2),
    reduce("sum", 0),
    reduce("mean", 0),
    reduce("max", -math.inf),
    reduce("min", math.inf),
    reduce("prod", 1),
    reduce("logsumexp", -math.inf),
    Case("reduce any", reduction.Reduce("any", (T,)), (bools(B, T, F),), lambda x: x.any(0)),
    Case("reduce all", reduction.Reduce("all", (T,)), (bools(B, T, F),), lambda x: x.all(0)),
    Case("reduce two", reduction.Reduce("mean", (T, F)), (X,), lambda x: x.mean() if x.size else np.array(0.0)),
    Case("argmax", reduction.ArgReduce("max", T), (X,), lambda x: x.argmax(0) if len(x) else np.zeros(x.shape[1], int)),
    Case("softmax", reduction.Softmax(T), (X,), lambda x: softmax(x, 0)),
    Case("log softmax", reduction.Softmax(T, log=True), (X,), lambda x: np.log(softmax(x, 0))),
    Case("softmax feature", reduction.Softmax(F), (X,), lambda x: softmax(x, 1)),
    Case(
        "normalize",
        reduction.Normalize((F,), 1e-3),
        (X,),
        lambda x: (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3),
    ),
    Case(
        "normalize time",
        reduction.Normalize((T,), 1e-3),
        (X,),
        lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) if len(x) else x,
    ),
    Case(
        "top k",
        reduction.TopK(T, F2),
        (floats(B, T),),
        lambda x: (
            np.append(np.sort(x)[::-1], [-math.inf] * 2)[:2],
            np.append(np.argsort(-x, kind="stable"), [0, 0])[:2],
        ),
    ),
    Case("last", reduction.Last(T), (X, floats(B, F)), lambda x, init: x[-1] if len(x) else init),
]
