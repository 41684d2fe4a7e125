"""What a batch may be: arrays and lengths for the inputs of a graph, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.dims import Dim, DimError, DimKind, TensorType, display_order
from returnn_lite.dims.axes import resolve_axis
from returnn_lite.dims.markers import MarkedType, marked
from returnn_lite.ir.values import Value
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


def checked_batch(
    inputs: Sequence[Value],
    data: Mapping[str, Any],
    seq_lens: Mapping[Any, Any],
    declared: Mapping[Dim, Dim] | None = None,
    seen: Mapping[str, MarkedType] | None = None,
) -> Batch:
    """The batch that the inputs of a graph are fed with, from arrays and lengths by data key.

    `seq_lens` has for each key the lengths of its time, the first ragged dim; or a dict of those of several dims, each
    by its name, as layers' options call axes, or by the number of the array's axis. Names of dims are keys, too, and so
    are the dims that the config declares; `declared` says what these are in the graph, `seen` what
    layers see the data as. Without lengths of further dims, all sequences are as long as the array.
    Raises BatchError if something is missing, has another shape or dtype, or is no possible value: at real frames
    alone, padding may be anything.
    """
    arrays = {value.name: _array(value, data, inputs) for value in inputs}
    _require_one_size(inputs, arrays)
    lengths: dict[Dim, NDArray[Any]] = {}
    called: dict[Dim, str] = {}
    for dim, name, given in _lengths_by_dim(inputs, data, seq_lens, declared or {}, seen or {}):
        array = _whole_numbers(name, given)
        if dim in lengths:
            _require_equal(dim, (called[dim], lengths[dim]), (name, array))
        lengths.setdefault(dim, array)
        called.setdefault(dim, name)
    for value in inputs:
        _require_lengths(value, arrays[value.name], lengths, called)
        _require_classes(value, arrays[value.name], lengths)
    for value in inputs:
        lengths = _whole_axes(value, arrays[value.name]) | lengths
    return Batch(arrays, lengths)


def _whole_axes(value: Value, array: NDArray[Any]) -> dict[Dim, NDArray[Any]]:
    """Lengths as those of the array, for all of its dims whose lengths vary over others of it."""
    sizes = dict(zip(display_order(value.type), array.shape, strict=True))
    return {
        dim: np.full([sizes[over] for over in dim.over], sizes[dim], "int32")
        for dim in _ragged(value.type)
        if all(over in sizes for over in dim.over)
    }


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
    wanted, kind = value.type.dtype, array.dtype.kind
    if wanted == "string":
        raise BatchError(f"'{value.name}' has strings, with which no network computes")
    if kind not in "biuf":
        what = "numbers" if kind == "c" else "no numbers, but entries"
        raise BatchError(f"'{value.name}' has {what} of dtype {array.dtype.name}, the network takes {wanted}")
    if value.type.is_float:
        return array if kind == "f" else array.astype(wanted)
    converted = _whole(array, wanted)
    if converted is None:
        raise BatchError(
            f"'{value.name}' has {array.dtype.name} numbers that {wanted}, which the network takes, has not"
        )
    return converted


def _whole(array: NDArray[Any], dtype: str) -> NDArray[Any] | None:
    """The array in an integer type; None if that has not all of its numbers."""
    with np.errstate(invalid="ignore"):
        converted = array.astype(dtype)
    return converted if np.array_equal(converted, array) else None


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


def _lengths_by_dim(
    inputs: Sequence[Value],
    data: Mapping[str, Any],
    seq_lens: Mapping[Any, Any],
    declared: Mapping[Dim, Dim],
    seen: Mapping[str, MarkedType],
) -> Iterator[tuple[Dim, str, Any]]:
    """The dims that lengths are given of, each with the name that these have, and what they are."""
    types = {value.name: value.type for value in inputs}
    named = {dim.name: dim for type_ in types.values() for dim in _ragged(type_)}
    for key, given in seq_lens.items():
        if isinstance(key, Dim) or key in named.keys() - types.keys():
            yield (declared.get(key, key) if isinstance(key, Dim) else named[key]), str(key), given
        elif key in types and isinstance(given, Mapping):
            for axis, lengths in given.items():
                dim = _axis(key, types[key], declared.get(axis, axis), seen.get(key))
                yield dim, f"{key}, {axis}", lengths
        elif key in types:
            yield from ((dim, key, given) for dim in _ragged(types[key])[:1])
        elif ":" in key and key not in data and key.partition(":")[0] not in data.keys() - types.keys():
            hint = nearest_hint(key, [*types, *named])
            raise BatchError(
                f"seq_lens of '{key}': the network reads no data key and no dynamic dim of that name.{hint}"
            )


def _ragged(type_: TensorType) -> list[Dim]:
    """The dims whose lengths can be given."""
    return [dim for dim in type_.dims if dim.is_ragged and dim.kind is not DimKind.BATCH and not dim.operands()]


def _axis(key: str, type_: TensorType, axis: Any, seen: MarkedType | None) -> Dim:
    """The dim of a key that is called so."""
    for dim in _ragged(type_):
        if axis in (dim.name, dim.name.removeprefix(f"{key}:")):
            return dim
    axes = display_order(type_)
    if isinstance(axis, int) and 0 <= axis < len(axes):
        return axes[axis]
    try:
        return resolve_axis(axis, seen or marked(type_))
    except DimError as error:
        raise BatchError(f"seq_lens of '{key}': {error}") from error


def _whole_numbers(name: str, given: Any) -> NDArray[Any]:
    array = np.asarray(given)
    whole = _whole(array, "int32") if array.dtype.kind in "iuf" else None
    if whole is None:
        raise BatchError(f"seq_lens of '{name}' are {array.dtype.name}, but must be whole numbers")
    return whole


def _require_equal(dim: Dim, one: tuple[str, NDArray[Any]], other: tuple[str, NDArray[Any]]) -> None:
    """Raises BatchError if two keys have the same dim with other lengths."""
    (key, lengths), (other_key, others) = one, other
    if lengths.shape != others.shape:
        shapes = f"{list(lengths.shape)} and {list(others.shape)}"
        raise BatchError(f"'{key}' and '{other_key}' share the dim {dim.name}, but have lengths of the shapes {shapes}")
    facts = {
        int(row): f"has {lengths[row]} frames of '{key}' and {others[row]} of '{other_key}'"
        for row in np.flatnonzero((lengths != others).reshape(len(lengths), -1).any(axis=1))
    }
    if facts:
        raise BatchError(f"'{key}' and '{other_key}' share the dim {dim.name}, so they must be equally long", facts)


def _require_lengths(
    value: Value, array: NDArray[Any], lengths: Mapping[Dim, NDArray[Any]], called: Mapping[Dim, str]
) -> None:
    """Raises BatchError if an input's lengths are not known, of another shape than its array, or beyond it."""
    time = next(iter(_ragged(value.type)), None)
    if time is not None and time not in lengths:
        raise BatchError(f"seq_lens has no '{value.name}'")
    axes = display_order(value.type)
    for axis, dim in enumerate(axes):
        if dim not in lengths:
            continue
        given, size = lengths[dim], array.shape[axis]
        _require_shape(value, array, dim, given, called[dim])
        own = called[dim].split(", ")[0] == value.name
        too_long = f"the array of '{value.name}' has {size} frames along {dim.name}"
        too_long = f"seq_lens of '{called[dim]}' do not fit its array of {size} frames" if own else too_long
        facts: dict[int, str] = {}
        for row, *place in np.argwhere((given < 0) | (given > size)).tolist():
            at = f" at frame {', '.join(map(str, place))}" if place else ""
            number = given[(row, *place)]
            facts.setdefault(row, f"has {number} frames{at}" + (", which cannot be" if number < 0 else ""))
        if facts:
            raise BatchError(too_long, facts)


def _require_shape(value: Value, array: NDArray[Any], dim: Dim, given: NDArray[Any], name: str) -> None:
    """Raises BatchError if lengths are not over the dims that they vary over, or a dim's length does not vary."""
    axes = display_order(value.type)
    if not dim.is_ragged:
        raise BatchError(f"seq_lens of '{name}': the length of {dim.name} does not vary in {named_axes(value.type)}")
    needed = [array.shape[axes.index(over)] for over in dim.over if over in axes]
    if len(needed) != len(dim.over) or list(given.shape) == needed:
        return
    need = f"the batch has {needed[0]} sequences"
    if len(needed) > 1:
        need = f"needs {needed}, for they vary over {', '.join(over.name for over in dim.over)}"
    raise BatchError(f"seq_lens of '{name}' has shape {list(given.shape)}, but {need}")


def _over_axes(lengths: NDArray[Any], over: Sequence[Dim], axes: Sequence[Dim]) -> NDArray[Any]:
    """Lengths over some dims, to be broadcast against an array with these axes."""
    moved = np.transpose(lengths, [over.index(dim) for dim in axes if dim in over])
    return moved.reshape([lengths.shape[over.index(dim)] if dim in over else 1 for dim in axes])


def _require_classes(value: Value, array: NDArray[Any], lengths: Mapping[Dim, NDArray[Any]]) -> None:
    """Raises BatchError for a label that is no class, at a real frame."""
    sparse = value.type.sparse
    if sparse is None or sparse.size is None or not array.size:
        return
    wrong = (array < 0) | (array >= sparse.size)
    if not wrong.any():
        return
    axes = display_order(value.type)
    for axis, dim in enumerate(axes):
        if dim in lengths and all(over in axes for over in dim.over):
            frames = np.arange(array.shape[axis]).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
            wrong &= frames < _over_axes(lengths[dim], dim.over, axes)
    facts: dict[int, str] = {}
    for row, *place in np.argwhere(wrong).tolist():
        at = f" at frame {', '.join(map(str, place))}" if place else ""
        facts.setdefault(row, f"has label {array[(row, *place)]}{at}")
    if facts:
        raise BatchError(f"'{value.name}' has labels that are none of its {sparse.size} classes", facts)
