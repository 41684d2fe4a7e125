"""What a batch may be: arrays and lengths for the inputs of a graph, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from returnn_lite.dims import Dim, DimKind, TensorType, display_order
from returnn_lite.ir.graph import Value
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BatchError(ValueError):
    """What of a batch a network cannot take.

    `where` is the layer that cannot, with its place in the config; "" for data that no layer has seen yet. `facts` are
    about single sequences, which are numbered as in the batch.
    """

    def __init__(self, what: str, facts: Mapping[int, str] | None = None, where: str = "", advice: str = "") -> None:
        self.what, self.facts, self.where, self.advice = what, dict(facts or {}), where, advice
        super().__init__(self.told())

    def told(self, tags: Sequence[str] | None = None, shown: int = 3) -> str:
        """The message, with the tags of the sequences in place of their numbers."""
        names = {row: f"sequence {row}" if tags is None else f"sequence '{tags[row]}'" for row in self.facts}
        facts = [f"{names[row]} {fact}" for row, fact in list(self.facts.items())[:shown]]
        if len(self.facts) > shown:
            facts.append(f"so do {len(self.facts) - shown} more")
        told = "; ".join(facts)
        text = f"{self.where}: {self.what}" if self.where else self.what
        text = f"{text}: {told}" if told else text
        return f"{text}. {self.advice}" if self.advice else text


@dataclass(frozen=True)
class Batch:
    """Arrays by the names of inputs, in their types and with their axes in the order of `display_order`; and lengths,
    int32, by dim."""

    arrays: Mapping[str, NDArray[Any]]
    lengths: Mapping[Dim, NDArray[Any]]


def checked_batch(inputs: Sequence[Value], data: Mapping[str, Any], seq_lens: Mapping[str, Any]) -> Batch:
    """The batch that the inputs of a graph are fed with, from arrays and lengths by data key.

    Raises BatchError if something is missing, has another shape or dtype, or is no possible value: at real frames
    alone, padding may be anything.
    """
    arrays = {value.name: _array(value, data, inputs) for value in inputs}
    _require_one_size(inputs, arrays)
    lengths: dict[Dim, NDArray[Any]] = {}
    keys: dict[Dim, str] = {}
    for value in inputs:
        for dim in (d for d in value.type.dims if d.is_ragged and d.kind is not DimKind.BATCH):
            given = _lengths(value, dim, arrays[value.name], seq_lens)
            if given is None:
                continue
            if dim in lengths:
                _require_equal(dim, (keys[dim], lengths[dim]), (value.name, given))
            lengths.setdefault(dim, given)
            keys.setdefault(dim, value.name)
            break  # seq_lens has one entry a key: that of its first ragged dim
    for value in inputs:
        _require_lengths(value, arrays[value.name], lengths)
        _require_classes(value, arrays[value.name], lengths)
    return Batch(arrays, lengths)


def named_axes(type_: TensorType) -> str:
    """The axes of an array in words: `[B, time, 3]`."""
    return f"[{', '.join(str(dim.size) if dim.size is not None else dim.name for dim in display_order(type_))}]"


def _array(value: Value, data: Mapping[str, Any], inputs: Sequence[Value]) -> NDArray[Any]:
    """The array of an input in its dtype, of the right shape as far as it is static."""
    if value.name not in data:
        raise BatchError(f"data has no '{value.name}'; the network needs {', '.join(other.name for other in inputs)}")
    try:
        array = np.asarray(data[value.name])
    except ValueError as error:
        raise BatchError(f"'{value.name}' is no array: {error}") from error
    dims = display_order(value.type)
    if array.ndim != len(dims):
        raise BatchError(
            f"'{value.name}' has shape {list(array.shape)}, but the network takes {named_axes(value.type)}"
        )
    for axis, dim in enumerate(dims):
        if dim.size is not None and array.shape[axis] != dim.size:
            raise BatchError(
                f"'{value.name}' has shape {list(array.shape)}, but the network takes {named_axes(value.type)}: "
                f"axis {axis} ({dim.name}) has {dim.size} entries"
            )
    return _in_dtype(value, array)


def _in_dtype(value: Value, array: NDArray[Any]) -> NDArray[Any]:
    """The array in the dtype of the input, if no number changes but by rounding."""
    wanted = value.type.dtype
    kinds = {"f": "biuf", "i": "biu", "u": "biu", "b": "biu"}.get(np.dtype(wanted).kind, array.dtype.kind)
    if array.dtype.kind in kinds or (array.dtype.kind == "f" and kinds == "biu" and _is_whole(array)):
        return array if wanted == "float32" and array.dtype.kind == "f" else array.astype(wanted)
    is_number = array.dtype.kind in "biufc"
    what = f"numbers of dtype {array.dtype.name}" if is_number else f"entries of dtype {array.dtype.name}, no numbers"
    raise BatchError(f"'{value.name}' has {what}, but the network takes {wanted}")


def _is_whole(array: NDArray[Any]) -> bool:
    """Whether each number is one of an integer type, too. Padding may be no number at all."""
    finite = array[np.isfinite(array)]
    return bool(np.array_equal(finite, np.floor(finite)))


def _require_one_size(inputs: Iterable[Value], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raises BatchError if an axis that has one size for all sequences, such as the batch itself, has two."""
    found: dict[Dim, tuple[str, int]] = {}
    for value in inputs:
        for axis, dim in enumerate(display_order(value.type)):
            size = arrays[value.name].shape[axis]
            if dim.size is not None or (dim.is_ragged and dim.kind is not DimKind.BATCH) or dim.operands():
                continue
            other, expected = found.setdefault(dim, (value.name, size))
            if size != expected:
                what = "sequences" if dim.kind is DimKind.BATCH else f"entries along {dim.name}"
                raise BatchError(f"'{value.name}' has {size} {what}, '{other}' has {expected}")


def _lengths(value: Value, dim: Dim, array: NDArray[Any], seq_lens: Mapping[str, Any]) -> NDArray[Any] | None:
    """What seq_lens has for an input, int32 [sequences]."""
    if value.name not in seq_lens:
        return None
    given = np.asarray(seq_lens[value.name])
    if given.dtype.kind not in "iu" and not (given.dtype.kind == "f" and _is_whole(given)):
        raise BatchError(f"seq_lens of '{value.name}' are {given.dtype.name}, but must be whole numbers")
    sequences = array.shape[0]
    if given.shape != (sequences,):
        raise BatchError(
            f"seq_lens of '{value.name}' has shape {list(given.shape)}, but the batch has {sequences} sequences"
        )
    longest = array.shape[display_order(value.type).index(dim)]
    facts = {
        int(row): f"has {given[row]} frames, which cannot be" if given[row] < 0 else f"has {given[row]} frames"
        for row in np.flatnonzero((given < 0) | (given > longest))
    }
    if facts:
        raise BatchError(f"seq_lens of '{value.name}' do not fit its array of {longest} frames", facts)
    return given.astype("int32")


def _require_equal(dim: Dim, one: tuple[str, NDArray[Any]], other: tuple[str, NDArray[Any]]) -> None:
    """Raises BatchError if two keys have the same dim with other lengths."""
    (key, lengths), (other_key, others) = one, other
    facts = {
        int(row): f"has {lengths[row]} frames of '{key}' and {others[row]} of '{other_key}'"
        for row in np.flatnonzero(lengths != others)
    }
    if facts:
        raise BatchError(f"'{key}' and '{other_key}' share the dim {dim.name}, so they must be equally long", facts)


def _require_lengths(value: Value, array: NDArray[Any], lengths: Mapping[Dim, NDArray[Any]]) -> None:
    """Raises BatchError if an input's lengths are not known, or beyond its array."""
    axes = display_order(value.type)
    first = next((dim for dim in value.type.dims if dim.is_ragged and dim.kind is not DimKind.BATCH), None)
    if first is not None and first not in lengths and not first.operands():
        raise BatchError(f"seq_lens has no '{value.name}'")
    if first is None or first not in lengths:
        return
    size = array.shape[axes.index(first)]
    facts = {int(row): f"has {lengths[first][row]}" for row in np.flatnonzero(lengths[first] > size)}
    if facts:
        raise BatchError(f"the array of '{value.name}' has {size} frames along {first.name}", facts)


def _require_classes(value: Value, array: NDArray[Any], lengths: Mapping[Dim, NDArray[Any]]) -> None:
    """Raises BatchError for a label that is no class, at a real frame."""
    sparse = value.type.sparse
    if sparse is None or sparse.size is None or not array.size:
        return
    wrong = (array < 0) | (array >= sparse.size)
    if not wrong.any():
        return
    for axis, dim in enumerate(display_order(value.type)):
        if dim in lengths:
            shape = [-1 if i == axis else 1 for i in range(array.ndim)]
            frames = np.arange(array.shape[axis]).reshape(shape)
            wrong &= frames < lengths[dim].reshape([-1] + [1] * (array.ndim - 1))
    facts: dict[int, str] = {}
    for row, *place in np.argwhere(wrong).tolist():
        at = f" at frame {', '.join(map(str, place))}" if place else ""
        facts.setdefault(row, f"has label {array[(row, *place)]}{at}")
    if facts:
        raise BatchError(f"'{value.name}' has labels that are none of its {sparse.size} classes", facts)
