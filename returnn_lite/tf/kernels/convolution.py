"""Convolution and pooling over ragged dims: frames beyond a sequence's length take no part.

Padding is made explicit, so that TensorFlow's kernels run in "VALID" mode on [batch, spatial.., features], but where
all sizes are static and the kernel's own padding is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir.ops.contraction import Conv, Pool, SpatialDim, TransposedConv
from returnn_lite.tf.context import Context
from returnn_lite.tf.gathers import take_frames
from returnn_lite.tf.layout import Tensor, aligned
from returnn_lite.tf.mask import lowest, masked
from returnn_lite.tf.product import multiplied
from returnn_lite.tf.sizes import Size


def left_padding(c: Context, spatial: SpatialDim) -> tuple[int, Tensor | None]:
    """How many frames are added in front: the same for all sequences, or (the second) a number for each."""
    if isinstance(spatial.padding, tuple):
        return spatial.padding[0], None
    if spatial.padding == "valid":
        return 0, None
    reach = (spatial.filter.size or 1) * spatial.dilation - spatial.dilation
    if spatial.stride == 1:
        return reach // 2, None
    lengths = c.sizes.lengths(spatial.input)
    outputs = -(-lengths.raw // spatial.stride)
    total = tf.maximum((outputs - 1) * spatial.stride + reach + 1 - lengths.raw, 0)
    if spatial.input.size is not None:
        size, stride = spatial.input.size, spatial.stride
        return max((-(-size // stride) - 1) * stride + reach + 1 - size, 0) // 2, None
    return 0, Tensor(total // 2, lengths.dims)


def padded(c: Context, x: Tensor, spatial: tuple[SpatialDim, ...], fill: float | int | bool) -> Tensor:
    """x with `fill` beyond its sequences and in the padding: each spatial axis as long as the outputs need it.

    At least one output is provided for, since TensorFlow's kernels refuse to give none.
    """
    y = masked(c.sizes, x, [s.input for s in spatial], fill)
    amounts: dict[Dim, tuple[Size, Size]] = {}
    for s in spatial:
        left, each = left_padding(c, s)
        reach = ((s.filter.size or 1) - 1) * s.dilation + 1
        needed = (_at_least(c.size(s.output), 1) - 1) * s.stride + reach
        if each is not None:
            y = _shifted(c, y, s.input, each, needed, fill)
            continue
        missing = needed - c.size(s.input) - left
        right = max(missing, 0) if isinstance(missing, int) else tf.maximum(missing, 0)
        amounts[s.input] = (left, right)
    raw = y.raw
    if any(isinstance(n, tf.Tensor) or n > 0 for pair in amounts.values() for n in pair):
        paddings = [list(amounts.get(dim, (0, 0))) for dim in y.dims]
        raw = tf.pad(raw, paddings, constant_values=tf.cast(fill, raw.dtype))
    return Tensor(raw, y.dims)


def _shifted(c: Context, x: Tensor, over: Dim, left: Tensor, needed: Size, fill: float | int | bool) -> Tensor:
    """x with `left` frames added in front of each sequence."""
    raws, dims = aligned([Tensor(tf.range(needed), (over,)), left])
    return take_frames(c, x, over, Tensor(raws[0] - raws[1], dims), fill)


def _at_least(size: Size, least: int) -> Size:
    return max(size, least) if isinstance(size, int) else tf.maximum(size, least)


Kernel = Callable[[tf.Tensor], tf.Tensor]


def apply(c: Context, x: Tensor, spatial: tuple[SpatialDim, ...], features: tuple[Dim, Dim], kernel: Kernel) -> Tensor:
    """Runs `kernel` on [batch, spatial.., in feature]; other dims are merged into the batch. Outputs are trimmed."""
    inputs = tuple(s.input for s in spatial)
    batch = tuple(d for d in x.dims if d not in inputs and d is not features[0])
    raw = x.in_order((*batch, *inputs, features[0]))
    if len(batch) != 1:
        tail = [tf.shape(raw)[i] if raw.shape[i] is None else raw.shape[i] for i in range(len(batch), len(x.dims))]
        raw = tf.reshape(raw, [multiplied(c.shape(batch)), *tail])
    raw = kernel(raw)
    outputs = tuple(s.output for s in spatial)
    sizes = c.shape(outputs)
    if any(isinstance(size, tf.Tensor) or size != given for size, given in zip(sizes, raw.shape[1:-1], strict=True)):
        raw = tf.slice(raw, [0] * (len(spatial) + 2), [-1, *sizes, -1])
    if len(batch) != 1:
        raw = tf.reshape(raw, [*c.shape(batch), *sizes, c.size(features[1])])
    return Tensor(raw, (*batch, *outputs, features[1]))


def convolve(c: Context, op: Conv, x: Tensor, filters: Tensor) -> Tensor:
    """Cross-correlation; see `Conv`."""
    order = (*(s.filter for s in op.spatial), op.in_group, op.out_feature)
    weights = filters.in_order(order)
    strides, dilations = [s.stride for s in op.spatial], [s.dilation for s in op.spatial]

    if op.groups == 1 and all(_pads_itself(s) for s in op.spatial):

        def kernel(raw: tf.Tensor) -> tf.Tensor:
            return tf.nn.convolution(raw, weights, strides, "SAME")

    else:
        x = padded(c, x, op.spatial, 0)

        def kernel(raw: tf.Tensor) -> tf.Tensor:
            return grouped(raw, weights, op.groups, strides, dilations)

    return apply(c, x, op.spatial, (op.in_feature, op.out_feature), kernel)


def _pads_itself(spatial: SpatialDim) -> bool:
    """Whether TensorFlow's kernel pads as `left_padding` says: it knows no lengths."""
    return spatial.padding == "same" and spatial.dilation == 1 and spatial.input.size is not None


def grouped(raw: tf.Tensor, weights: tf.Tensor, groups: int, strides: list[int], dilations: list[int]) -> tf.Tensor:
    """Convolution of consecutive blocks of features, each with its block of filters."""
    if groups == 1:
        return _strided(lambda s: tf.nn.convolution(raw, weights, s, "VALID", dilations=dilations), strides, dilations)
    if weights.shape[-2] == 1 and len(strides) <= 2:
        return _depthwise(raw, weights, groups, strides, dilations)
    parts = zip(tf.split(raw, groups, axis=-1), tf.split(weights, groups, axis=-1), strict=True)
    return tf.concat([grouped(part, block, 1, strides, dilations) for part, block in parts], -1)


def _depthwise(raw: tf.Tensor, weights: tf.Tensor, groups: int, strides: list[int], dilations: list[int]) -> tf.Tensor:
    """One input feature a group: TensorFlow's depthwise kernel, in two dims and with one stride for both."""
    filters = tf.reshape(weights, [*weights.shape[:-2], groups, weights.shape[-1] // groups])
    if len(strides) == 1:
        raw, filters = tf.expand_dims(raw, 1), tf.expand_dims(filters, 0)
    rates = dilations if len(dilations) == 2 else [1, *dilations]
    steps = strides if len(strides) == 2 else [1, *strides]
    native = steps if steps[0] == steps[1] and rates == [1, 1] else [1, 1]
    raw = tf.nn.depthwise_conv2d(raw, filters, [1, *native, 1], "VALID", dilations=rates)
    if native != steps:
        raw = raw[:, :: steps[0], :: steps[1]]
    return tf.squeeze(raw, 1) if len(strides) == 1 else raw


def _strided(kernel: Callable[[list[int]], tf.Tensor], strides: list[int], dilations: list[int]) -> tf.Tensor:
    """TensorFlow's kernels take strides or dilations; both together are the undilated steps, thinned out."""
    return kernel(strides) if max(strides) == 1 or max(dilations) == 1 else _thinned_out(kernel, strides)


def _thinned_out(kernel: Callable[[list[int]], tf.Tensor], strides: list[int]) -> tf.Tensor:
    """Of the results at all positions those at the strides."""
    dense = kernel([1] * len(strides))
    return dense[(slice(None), *(slice(None, None, stride) for stride in strides))]


def convolve_transposed(c: Context, op: TransposedConv, x: Tensor, filters: Tensor) -> Tensor:
    """The gradient of a convolution as a layer; see `TransposedConv`."""
    y = masked(c.sizes, x, [s.input for s in op.spatial])
    weights = filters.in_order((*(s.filter for s in op.spatial), op.out_feature, op.in_feature))
    strides = [s.stride for s in op.spatial]
    widths = [s.filter.size or 1 for s in op.spatial]

    def kernel(raw: tf.Tensor) -> tf.Tensor:
        # A frame of zeros behind makes an empty input one that the kernel takes; what it adds is trimmed.
        raw = tf.pad(raw, [[0, 0], *[[0, 1]] * len(strides), [0, 0]])
        sizes = [
            tf.shape(raw)[i + 1] * stride + max(width - stride, 0)
            for i, (stride, width) in enumerate(zip(strides, widths, strict=True))
        ]
        shape = tf.stack([tf.shape(raw)[0], *sizes, weights.shape[-2]])
        full = tf.nn.conv_transpose(raw, weights, shape, strides, "VALID")
        return full[(slice(None), *(slice(left, None) for left, _ in op.crop))]

    return apply(c, y, op.spatial, (op.in_feature, op.out_feature), kernel)


def pool(c: Context, op: Pool, x: Tensor) -> Tensor:
    """Maximum or mean over windows; see `Pool`."""
    feature = x.dims[-1] if not any(x.dims[-1] is s.input for s in op.spatial) else None
    if op.kind == "max":
        y = padded(c, x, op.spatial, lowest(x.dtype))
        # A window beyond the sequence has no maximum: 0 there, since 0 times infinity is no number in a gradient.
        return masked(c.sizes, _pooled(c, op, y, "MAX", feature), [s.output for s in op.spatial])
    if op.kind != "avg":
        raise ValueError(f"{c.where}: pooling is 'max' or 'avg', not {op.kind!r}")
    total = _pooled(c, op, padded(c, x, op.spatial, 0), "AVG", feature)
    varies = {d for s in op.spatial for d in c.sizes.lengths(s.input).dims}
    dims = (*(d for d in x.dims if d in varies), *(s.input for s in op.spatial))
    ones = Tensor(tf.ones(c.shape(dims), x.dtype), dims)
    share = _pooled(c, op, padded(c, ones, op.spatial, 0), "AVG", None)
    raws, layout = aligned([total, share])
    return Tensor(tf.math.divide_no_nan(raws[0], raws[1]), layout)


def _pooled(c: Context, op: Pool, x: Tensor, kind: str, feature: Dim | None) -> Tensor:
    window = [s.filter.size or 1 for s in op.spatial]
    strides, dilations = [s.stride for s in op.spatial], [s.dilation for s in op.spatial]
    channel = feature if feature is not None else Symbol("1", DimKind.FEATURE, 1)
    if feature is None:
        x = Tensor(tf.expand_dims(x.raw, -1), (*x.dims, channel))

    def kernel(raw: tf.Tensor) -> tf.Tensor:
        def pooled(steps: list[int]) -> tf.Tensor:
            return tf.nn.pool(raw, window, kind, steps, "VALID", dilations=dilations)

        if any(stride > size for stride, size in zip(strides, window, strict=True)):
            return _thinned_out(pooled, strides)  # TensorFlow leaves out no frames
        return _strided(pooled, strides, dilations)

    y = apply(c, x, op.spatial, (channel, channel), kernel)
    if feature is None:
        y = Tensor(tf.squeeze(y.raw, -1), y.dims[:-1])
    return Tensor(y.raw, y.dims, finite=kind != "MAX")
