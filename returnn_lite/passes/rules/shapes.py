"""What only moves values: parts of what was joined, reshapes that cancel, dims that are added for nothing."""

from __future__ import annotations

from dataclasses import replace

from returnn_lite.dims import Dim, TensorType
from returnn_lite.ir import Node, Value
from returnn_lite.ir.ops.axes import Expand, MergeDims, Relabel, Reverse, SplitDim, Squeeze
from returnn_lite.ir.ops.elementwise import Cast, Elementwise
from returnn_lite.ir.ops.indexing import Concat, Slice
from returnn_lite.passes.rules.rule import Application, Expression, ProducerOf, Rule

LOSSLESS = frozenset(
    [
        *(("bool", wide) for wide in ("uint8", "int8", "int16", "int32", "int64", "float32", "float64")),
        *(("int32", wide) for wide in ("int64", "float64")),
        ("float32", "float64"),
    ]
)
"""Pairs of dtypes of which the second holds every number of the first."""


def _relabelled(value: Value, old: Dim, new: Dim) -> Expression:
    return value if old == new else Application(Relabel(old, new), (value,))


def _is_plain(op: Slice) -> bool:
    """True for a slice of consecutive frames at a fixed place."""
    return op.step == 1 and isinstance(op.start, int) and op.start >= 0 and None not in (op.over.size, op.out.size)


def _slice_of_concat(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, joined = node.op, producer_of(node.inputs[0])
    if not isinstance(op, Slice) or not _is_plain(op) or joined is None or not isinstance(joined.op, Concat):
        return None
    if joined.op.out != op.over or any(dim.size is None for dim in joined.op.dims):
        return None
    start = 0
    for value, dim in zip(joined.inputs, joined.op.dims, strict=True):
        end = start + (dim.size or 0)
        if start <= op.first and op.first + (op.out.size or 0) <= end:
            if dim.size == op.out.size:
                return _relabelled(value, dim, op.out)
            return Application(Slice(dim, op.out, op.first - start), (value,))
        start = end
    return None


def _slice_of_slice(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, before = node.op, producer_of(node.inputs[0])
    if before is None or not isinstance(op, Slice) or not isinstance(before.op, Slice):
        return None
    if not _is_plain(op) or not _is_plain(before.op) or before.op.out != op.over:
        return None
    if op.first + (op.out.size or 0) > (op.over.size or 0):
        return None
    return Application(Slice(before.op.over, op.out, before.op.first + op.first), before.inputs)


def _slice_of_all(node: Node, _: ProducerOf) -> Expression | None:
    op = node.op
    assert isinstance(op, Slice)
    if not _is_plain(op) or op.first != 0 or op.out.size != op.over.size:
        return None
    return _relabelled(node.inputs[0], op.over, op.out)


def _concat_of_slices(node: Node, producer_of: ProducerOf) -> Expression | None:
    """All parts of one value in their order."""
    op = node.op
    assert isinstance(op, Concat)
    position, whole = 0, None
    for value, dim in zip(node.inputs, op.dims, strict=True):
        part = producer_of(value)
        if part is None or not isinstance(part.op, Slice) or not _is_plain(part.op):
            return None
        if part.op.out != dim or part.op.first != position or whole not in (None, (part.inputs[0], part.op.over)):
            return None
        whole = part.inputs[0], part.op.over
        position += dim.size or 0
    if whole is None or whole[1].size != position:
        return None
    return _relabelled(*whole, op.out)


def _concat_of_one(node: Node, _: ProducerOf) -> Expression | None:
    op = node.op
    assert isinstance(op, Concat)
    return _relabelled(node.inputs[0], op.dims[0], op.out) if len(op.dims) == 1 else None


def _relabel_of_relabel(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, before = node.op, producer_of(node.inputs[0])
    if before is None or not isinstance(op, Relabel) or not isinstance(before.op, Relabel) or before.op.new != op.old:
        return None
    if before.op.old == op.new:
        return before.inputs[0]
    return Application(replace(op, old=before.op.old), before.inputs)


def _relabel_to_itself(node: Node, _: ProducerOf) -> Expression | None:
    op = node.op
    return node.inputs[0] if isinstance(op, Relabel) and op.old == op.new else None


def _split_of_merge(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, before = node.op, producer_of(node.inputs[0])
    if before is None or not isinstance(op, SplitDim) or not isinstance(before.op, MergeDims):
        return None
    is_whole = all(dim.size is not None for dim in op.outs)
    return before.inputs[0] if is_whole and (op.dim, op.outs) == (before.op.out, before.op.dims) else None


def _merge_of_split(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, before = node.op, producer_of(node.inputs[0])
    if before is None or not isinstance(op, MergeDims) or not isinstance(before.op, SplitDim):
        return None
    is_whole = all(dim.size is not None for dim in op.dims)
    return before.inputs[0] if is_whole and (op.out, op.dims) == (before.op.dim, before.op.outs) else None


def _squeeze_of_expand(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, before = node.op, producer_of(node.inputs[0])
    if before is None or not isinstance(op, Squeeze) or not isinstance(before.op, Expand):
        return None
    if op.dim not in before.op.dims:
        return None
    others = tuple(dim for dim in before.op.dims if dim != op.dim)
    return Application(Expand(others), before.inputs) if others else before.inputs[0]


def _expand_of_squeeze(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, before = node.op, producer_of(node.inputs[0])
    if before is None or not isinstance(op, Expand) or not isinstance(before.op, Squeeze):
        return None
    return before.inputs[0] if op.dims == (before.op.dim,) else None


def _expand_of_expand(node: Node, producer_of: ProducerOf) -> Expression | None:
    op, before = node.op, producer_of(node.inputs[0])
    if before is None or not isinstance(op, Expand) or not isinstance(before.op, Expand):
        return None
    return Application(Expand((*before.op.dims, *op.dims)), before.inputs)


def _reverse_of_reverse(node: Node, producer_of: ProducerOf) -> Expression | None:
    before = producer_of(node.inputs[0])
    return before.inputs[0] if before is not None and before.op == node.op else None


def _cast_of_cast(node: Node, producer_of: ProducerOf) -> Expression | None:
    """By way of a dtype that holds every number of the first."""
    before = producer_of(node.inputs[0])
    if before is None or not isinstance(before.op, Cast):
        return None
    first, middle = before.inputs[0].type.dtype, before.op.dtype
    return Application(node.op, before.inputs) if first == middle or (first, middle) in LOSSLESS else None


def _cast_to_itself(node: Node, _: ProducerOf) -> Expression | None:
    op = node.op
    return node.inputs[0] if isinstance(op, Cast) and op.dtype == node.inputs[0].type.dtype else None


def _broadcast(node: Node, producer_of: ProducerOf) -> Expression | None:
    """An operand that is repeated along dims which another has anyway."""
    for position, value in enumerate(node.inputs):
        maker = producer_of(value)
        if maker is None or not isinstance(maker.op, Expand):
            continue
        inputs = (*node.inputs[:position], maker.inputs[0], *node.inputs[position + 1 :])
        if _dims(node.op.output_types(tuple(operand.type for operand in inputs))) == _dims((node.output.type,)):
            return Application(node.op, inputs)
    return None


def _dims(types: tuple[TensorType, ...]) -> set[Dim]:
    return {dim for type_ in types for dim in type_.dims}


SHAPES = (
    Rule("slice(concat(x, y)) = slice(x)", Slice, _slice_of_concat),
    Rule("slice(slice(x)) = slice(x)", Slice, _slice_of_slice),
    Rule("slice(x), all of it = x", Slice, _slice_of_all),
    Rule("concat(slice(x), slice(x)), all of it = x", Concat, _concat_of_slices),
    Rule("concat(x) = x", Concat, _concat_of_one),
    Rule("relabel(relabel(x)) = relabel(x)", Relabel, _relabel_of_relabel),
    Rule("relabel(x, d, d) = x", Relabel, _relabel_to_itself),
    Rule("split_dim(merge_dims(x)) = x", SplitDim, _split_of_merge),
    Rule("merge_dims(split_dim(x)) = x", MergeDims, _merge_of_split),
    Rule("squeeze(expand(x)) = x", Squeeze, _squeeze_of_expand),
    Rule("expand(squeeze(x)) = x", Expand, _expand_of_squeeze),
    Rule("expand(expand(x)) = expand(x)", Expand, _expand_of_expand),
    Rule("reverse(reverse(x)) = x", Reverse, _reverse_of_reverse),
    Rule("cast(cast(x)) = cast(x)", Cast, _cast_of_cast),
    Rule("cast(x), of the dtype = x", Cast, _cast_to_itself),
    Rule("f(expand(x), y) = f(x, y)", Elementwise, _broadcast),
)
