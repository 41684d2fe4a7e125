"""The functions that expressions in configs may call, by TensorFlow's names, as primitives.

Each has TensorFlow's argument names, and takes what `expression_items` explains. Where TensorFlow keeps a reduced axis
with `keepdims`, a dim of size 1 stays; it disappears when it meets the dim it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.ops import elementwise
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.ops.indexing import OneHot, Sort
from returnn_lite.ir.ops.reduction import ArgReduce
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.activations import activation_names, apply_activation
from returnn_lite.layers.align import align
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.expression_items import Item, ShapeOf, dim_of, dims_of, dtype_name, number, pair, tensor

Function = Callable[..., Item]


# Element by element


def where(b: LayerBuilder, condition: Item, x: Item, y: Item) -> Item:
    condition = tensor(b, condition)
    values = [item for item in (x, y) if isinstance(item, View)]
    aligned = iter(align(b, [*values, condition]))
    x, y = (next(aligned) if isinstance(item, View) else number(b, item) for item in (x, y))
    return b.select(next(aligned), x, y)


def cast(b: LayerBuilder, x: Item, dtype: Item) -> Item:
    return b.cast(tensor(b, x), dtype_name(b, dtype))


def clip_by_value(b: LayerBuilder, t: Item, clip_value_min: Item, clip_value_max: Item) -> Item:
    return pair(b, "minimum", pair(b, "maximum", t, clip_value_min), clip_value_max)


def ones_like(b: LayerBuilder, input: Item, dtype: Item = None) -> Item:
    return _filled(b, tensor(b, input), 1, dtype)


def zeros_like(b: LayerBuilder, input: Item, dtype: Item = None) -> Item:
    return _filled(b, tensor(b, input), 0, dtype)


def _filled(b: LayerBuilder, x: View, value: int, dtype: Item) -> View:
    name = x.type.dtype if dtype is None else dtype_name(b, dtype)
    filled = b.constant(bool(value) if name == "bool" else value, name, x.type.dims)
    sparse = x.type.sparse if name.startswith("int") else None
    return b.marked(b.as_index(filled, sparse), x.type.feature, x.type.time)


def add_n(b: LayerBuilder, inputs: Item) -> Item:
    if not isinstance(inputs, list) or not inputs:
        b.fail(f"add_n takes a list of tensors, not {inputs!r}")
    result = inputs[0]
    for item in inputs[1:]:
        result = pair(b, "add", result, item)
    return result


def gelu(b: LayerBuilder, features: Item, approximate: Item = False) -> Item:
    return apply_activation(b, "gelu", tensor(b, features), {"approximate": int(bool(approximate))})


def leaky_relu(b: LayerBuilder, features: Item, alpha: Item = 0.2) -> Item:
    return apply_activation(b, "leaky_relu", tensor(b, features), {"alpha": float(number(b, alpha))})


def _activation(name: str) -> Function:
    def function(b: LayerBuilder, x: Item) -> Item:
        return apply_activation(b, name, tensor(b, x))

    return function


def _binary(kind: str) -> Function:
    def function(b: LayerBuilder, x: Item, y: Item) -> Item:
        return pair(b, kind, x, y)

    return function


# Over axes


def _reduction(kind: str) -> Function:
    def function(b: LayerBuilder, input_tensor: Item, axis: Item = None, keepdims: Item = False) -> Item:
        return _reduced(b, kind, tensor(b, input_tensor), axis, keepdims)

    return function


def _reduced(b: LayerBuilder, kind: str, x: View, axis: Item, keepdims: Item) -> View:
    over = dims_of(b, x, axis)
    y = b.reduce(kind, x, over)
    return kept(b, x, y, over) if keepdims else y


def kept(b: LayerBuilder, x: View, y: View, over: Sequence[Dim]) -> View:
    """y with a dim of size 1 for each of the reduced dims of x but batch and beam."""
    feature = y.type.feature
    for i, dim in enumerate(over):
        if dim.kind in (DimKind.BATCH, DimKind.BEAM):
            continue
        is_feature = dim == x.type.feature
        one = b.new_feature(1, f"kept{i}") if is_feature else b.new_dim(f"kept{i}", 1)
        y = b.expand(y, one)
        feature = one if is_feature else feature
    return b.with_feature(y, feature)


def _arg_reduction(kind: str) -> Function:
    def function(b: LayerBuilder, input: Item, axis: Item = None, output_type: Item = None) -> Item:
        x = tensor(b, input)
        index = b.apply(ArgReduce(kind, dim_of(b, x, axis if axis is not None else 0)), x)
        return index if output_type is None else b.cast(index, dtype_name(b, output_type))

    return function


def _softmax(log: bool) -> Function:
    def function(b: LayerBuilder, logits: Item, axis: Item = -1) -> Item:
        x = tensor(b, logits)
        return b.softmax(x, dim_of(b, x, axis), log)

    return function


def norm(b: LayerBuilder, tensor_: Item, ord: Item = "euclidean", axis: Item = None, keepdims: Item = False) -> Item:
    if ord not in ("euclidean", 2):
        b.fail(f"norm: only the Euclidean one exists, not {ord!r}")
    x = tensor(b, tensor_)
    return b.unary("sqrt", _reduced(b, "sum", b.unary("square", x), axis, keepdims))


def l2_normalize(b: LayerBuilder, x: Item, axis: Item = None, epsilon: Item = 1e-12) -> Item:
    x = tensor(b, x)
    total = b.reduce("sum", b.unary("square", x), dims_of(b, x, axis))
    return b.mul(x, b.unary("rsqrt", b.binary("maximum", total, float(number(b, epsilon)))))


def argsort(
    b: LayerBuilder, values: Item, axis: Item = -1, direction: Item = "ASCENDING", stable: Item = False
) -> Item:
    x = tensor(b, values)
    if direction not in ("ASCENDING", "DESCENDING"):
        b.fail(f"direction is ASCENDING or DESCENDING, not {direction!r}")
    return b.apply(Sort(dim_of(b, x, axis), direction == "DESCENDING"), x)


def cumsum(b: LayerBuilder, x: Item, axis: Item = 0, reverse: Item = False) -> Item:
    x = tensor(b, x)
    return b.cumsum(x, dim_of(b, x, axis), reverse=bool(reverse))


def squeeze(b: LayerBuilder, input: Item, axis: Item = None) -> Item:
    x = tensor(b, input)
    over = [dim for dim in x.type.dims if dim.size == 1] if axis is None else dims_of(b, x, axis)
    for dim in over:
        x = b.apply(Squeeze(dim), x)
    return x


def expand_dims(b: LayerBuilder, input: Item, axis: Item) -> Item:
    x = tensor(b, input)
    if axis not in (-1, len(x.type.dims)):
        b.fail("tf.expand_dims adds a last axis only", "write axis=-1, or use the layer expand_dims")
    one = b.new_feature(1, "expanded") if x.type.feature is None else b.new_dim("expanded", 1)
    y = b.expand(b.with_feature(x, None), one)
    return b.with_feature(y, one if x.type.feature is None else x.type.feature)


def one_hot(b: LayerBuilder, indices: Item, depth: Item, dtype: Item = "float32") -> Item:
    x = tensor(b, indices)
    sparse, size = x.type.sparse, number(b, depth)
    dim = sparse if sparse is not None and sparse.size == size else b.new_feature(int(size), "one_hot")
    return b.with_feature(b.apply(OneHot(dim, dtype_name(b, dtype)), x), dim)


# Shapes and random numbers


def shape(b: LayerBuilder, input: Item) -> Item:
    return ShapeOf(tensor(b, input))


def random_uniform(
    b: LayerBuilder, shape: Item, minval: Item = 0, maxval: Item = None, dtype: Item = "float32", seed: Item = None
) -> Item:
    name = dtype_name(b, dtype)
    if maxval is None and name.startswith("int"):
        b.fail("random.uniform of ints needs maxval")
    high = 1.0 if maxval is None else number(b, maxval)
    return _drawn(b, "uniform", float(number(b, minval)), float(high), shape, name, seed)


def random_normal(
    b: LayerBuilder, shape: Item, mean: Item = 0.0, stddev: Item = 1.0, dtype: Item = "float32", seed: Item = None
) -> Item:
    return _drawn(b, "normal", float(number(b, mean)), float(number(b, stddev)), shape, dtype_name(b, dtype), seed)


def _drawn(
    b: LayerBuilder, distribution: str, first: float, second: float, shape: Item, dtype: str, seed: Item
) -> View:
    if not isinstance(shape, ShapeOf):
        b.fail("the shape of random numbers must be that of a source", "write tf.shape(source(0))")
    example = shape.value.type
    nodes = b.ir.outermost_nodes if b.ir.body is None else b.ir.body.nodes
    count = sum(1 for node in nodes if isinstance(node.op, RandomDraw) and node.origin.layer == b.name)
    name = f"{b.name}:{distribution}:{seed if seed is not None else count}:{first}:{second}"
    drawn = b.apply(RandomDraw(distribution, first, second, example.dims, name, dtype, fresh=b.loop is not None))
    return b.marked(drawn, example.feature, example.time)


def _dtype_cast(dtype: str) -> Function:
    def function(b: LayerBuilder, x: Item) -> Item:
        return b.cast(tensor(b, x), dtype)

    return function


SAME_AS: Mapping[str, str] = {
    "divide": "truediv",
    "div": "truediv",
    "multiply": "mul",
    "subtract": "sub",
    "floormod": "mod",
    "floor_mod": "mod",
    "floor_div": "floordiv",
}
"""TensorFlow's names of functions of two operands, where they differ from the primitive's."""
BINARY: Mapping[str, str] = {
    **{kind: kind for kind in elementwise.BINARY | elementwise.BINARY_COMPARE | elementwise.BINARY_BOOL},
    **SAME_AS,
}
REDUCED = {"sum", "mean", "max", "min", "prod", "logsumexp", "any", "all"}

FUNCTIONS: Mapping[str, Function] = {
    **{name: _activation(name) for name in activation_names()},
    **{name: _binary(kind) for name, kind in BINARY.items()},
    **{f"reduce_{kind}": _reduction(kind) for kind in REDUCED},
    **{f"to_{name}": _dtype_cast(dtype) for name, dtype in (("float", "float32"), ("int32", "int32"))},
    "add_n": add_n,
    "argmax": _arg_reduction("max"),
    "argmin": _arg_reduction("min"),
    "argsort": argsort,
    "cast": cast,
    "clip_by_value": clip_by_value,
    "cumsum": cumsum,
    "expand_dims": expand_dims,
    "gelu": gelu,
    "l2_normalize": l2_normalize,
    "leaky_relu": leaky_relu,
    "log_softmax": _softmax(log=True),
    "norm": norm,
    "one_hot": one_hot,
    "ones_like": ones_like,
    "random.normal": random_normal,
    "random.uniform": random_uniform,
    "random_normal": random_normal,
    "random_uniform": random_uniform,
    "shape": shape,
    "softmax": _softmax(log=False),
    "squeeze": squeeze,
    "where": where,
    "where_bc": where,
    "zeros_like": zeros_like,
}
"""By the name without `tf.`, `tf.nn.`, `tf.math.`, `tf.compat.v1.`."""
