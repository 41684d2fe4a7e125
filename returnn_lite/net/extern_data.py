"""The data that comes from outside: types and dims of its keys (SEMANTICS 2.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from returnn_lite.config.diagnostics import Diagnostic, Position, nearest_hint
from returnn_lite.dims import Dim, DimKind, MarkedType, Symbol
from returnn_lite.ir.expressions import DTYPES_BY_RANGE


@dataclass(frozen=True)
class DataEntry:
    """One key: its type, whether it may be used when targets are not known, and its vocabulary options."""

    key: str
    type: MarkedType
    available_for_inference: bool
    vocab: object = None


ENTRY_KEYS = (
    "dim",
    "shape",
    "sparse",
    "dtype",
    "batch_dim_axis",
    "time_dim_axis",
    "feature_dim_axis",
    "available_for_inference",
    "vocab",
    "dim_tags",
    "same_dim_tags_as",
    "sparse_dim",
)


class EntryError(ValueError):
    """A mistake in one entry; `option` is where it is, and `hint` says what to do."""

    def __init__(self, message: str, option: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.option = option
        self.hint = hint


class ExternData:
    """The declared keys of a config, with one batch dim for all, over which the lengths of their dynamic dims vary.

    `broken` are the keys with mistakes, which are reported already; `declared_dims` has for each dim that the config
    declares what it is in this network.
    """

    def __init__(
        self,
        entries: Mapping[str, DataEntry],
        batch: Dim,
        broken: Iterable[str] = (),
        declared_dims: Mapping[Dim, Dim] | None = None,
    ) -> None:
        self.entries = dict(entries)
        self.batch = batch
        self.declared_dims = declared_dims or {}
        for entry in sorted(self.entries.values(), key=lambda entry: batch not in entry.type):
            for dim in entry.type.dims:
                dim.settle((batch,) if batch in entry.type else ())
        self.broken = frozenset(broken)

    def __contains__(self, key: str) -> bool:
        return key in self.entries


def read_extern_data(
    config: Mapping[str, Any],
    locate: Callable[[tuple[str | int, ...]], Position | None],
    diagnostics: list[Diagnostic],
    batch: Dim,
    declared_dims: Mapping[Dim, Dim] | None = None,
) -> ExternData:
    """The entries of `extern_data`, or of RETURNN's older `num_inputs` and `num_outputs`; mistakes go to
    `diagnostics`."""
    declared = config.get("extern_data")
    entries = declared if declared is not None else _from_num_inputs(config)
    root = "extern_data" if declared is not None else "num_outputs"
    default_input = config.get("default_input", "data")
    read: dict[str, DataEntry] = {}
    if not isinstance(entries, Mapping):
        diagnostics.append(Diagnostic(locate((root,)), (root,), f"expected a dict of data keys, got {entries!r}", ""))
        return ExternData(read, batch, (), declared_dims)
    broken: list[str] = []
    for key, entry in _by_dependence(entries):
        try:
            read[key] = _read_entry(key, _normalized(entry), read, batch, is_input=key == default_input)
        except EntryError as error:
            path = (root, key, error.option) if error.option else (root, key)
            diagnostics.append(Diagnostic(locate(path), path, str(error), error.hint))
            broken.append(key)
    return ExternData(read, batch, broken, declared_dims)


def _by_dependence(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The entries, each behind those whose dims it shares; those that share each other's in any order."""
    waiting = dict(entries)
    ordered: list[tuple[str, Any]] = []
    while waiting:
        ready = [key for key, entry in waiting.items() if not _shares_with(entry) & set(waiting)] or list(waiting)
        ordered += [(key, waiting.pop(key)) for key in ready]
    return ordered


def _shares_with(entry: object) -> set[str]:
    same = entry.get("same_dim_tags_as") if isinstance(entry, Mapping) else None
    return {other for other in same.values() if isinstance(other, str)} if isinstance(same, Mapping) else set()


def _from_num_inputs(config: Mapping[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    num_inputs = config.get("num_inputs")
    if isinstance(num_inputs, int):
        entries["data"] = (num_inputs, 2)
    elif isinstance(num_inputs, Mapping):
        entries.update(num_inputs)
    num_outputs = config.get("num_outputs")
    if isinstance(num_outputs, int):
        entries[str(config.get("target", "classes"))] = (num_outputs, 1)
    elif isinstance(num_outputs, Mapping):
        entries.update({key: value for key, value in num_outputs.items() if key not in entries})
    return entries


def _normalized(entry: object) -> dict[str, Any]:
    """`(dim, ndim)` of RETURNN's older form: ndim 1 is sparse, 2 dense, 0 sparse without time."""
    if isinstance(entry, Mapping):
        return dict(entry)
    if isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) >= 2:
        dim, ndim = entry[0], entry[1]
        if ndim not in (0, 1, 2):
            raise EntryError(f"the number of axes must be 0, 1 or 2, not {ndim!r}")
        return {"dim": dim, "sparse": ndim < 2, **({"shape": ()} if ndim == 0 else {})}
    if isinstance(entry, int):
        return {"dim": entry}
    raise EntryError(f"expected a dict such as {{dim: 40}}, got {entry!r}")


def _read_entry(
    key: str, entry: dict[str, Any], others: Mapping[str, DataEntry], batch: Dim, is_input: bool
) -> DataEntry:
    for name in entry:
        if name not in ENTRY_KEYS:
            hint = nearest_hint(name, ENTRY_KEYS) or f"There are {', '.join(ENTRY_KEYS)}."
            raise EntryError(f"unknown option '{name}'", name, hint.strip())
    sparse = bool(entry.get("sparse", entry.get("sparse_dim") is not None))
    dim = _class_dim(key, entry, sparse)
    dtype = entry.get("dtype") or ("int32" if sparse else "float32")
    if dtype not in (*DTYPES_BY_RANGE, "string"):
        raise EntryError(f"there is no dtype {dtype!r}", "dtype", f"Give one of {', '.join(DTYPES_BY_RANGE)}.")
    available = entry.get("available_for_inference", is_input)
    if entry.get("dim_tags") is not None:
        type_ = _from_dim_tags(entry["dim_tags"], batch, dtype, dim if sparse else None)
        return DataEntry(key, _with_markers(entry, type_, type_.dims), bool(available), entry.get("vocab"))
    shape = entry.get("shape")
    if shape is None:
        shape = (None,) if sparse or dim is None else (None, dim.size)
    dims, time = _dims_of_shape(key, shape, entry, others, batch)
    feature = None
    if not sparse and dim is not None and dims and dims[-1].size is not None:
        dims, feature = (*dims[:-1], dim), dim
    place = entry.get("batch_dim_axis", 0)
    axes = dims
    if place is not None:
        if not _is_axis(place, len(dims) + 1):
            raise EntryError(f"batch_dim_axis is one of the {len(dims) + 1} axes, not {place!r}", "batch_dim_axis")
        axes = (*dims[:place], batch, *dims[place:])
        dims = (batch, *dims)
    type_ = MarkedType(dims, dtype, dim if sparse else None, feature, time)
    return DataEntry(key, _with_markers(entry, type_, axes), bool(available), entry.get("vocab"))


def _with_markers(entry: Mapping[str, Any], type_: MarkedType, axes: Sequence[Dim]) -> MarkedType:
    """The type with what time_dim_axis and feature_dim_axis say; `axes` are the dims in the order that they count."""

    def marker(option: str, default: Dim | None) -> Dim | None:
        axis: object = entry.get(option)
        if axis is None:
            return None if option in entry else default
        if not _is_axis(axis, len(axes)) or axes[axis].kind is DimKind.BATCH:
            raise EntryError(f"{option} is null or the number of an axis of {type_}, not {axis!r}", option)
        return axes[axis]

    time, feature = marker("time_dim_axis", type_.time), marker("feature_dim_axis", type_.feature)
    return replace(type_, time=time, feature=feature)


def _is_axis(number: object, count: int) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < count


def _class_dim(key: str, entry: Mapping[str, Any], sparse: bool) -> Dim | None:
    given = entry.get("sparse_dim") if sparse and entry.get("sparse_dim") is not None else entry.get("dim")
    if isinstance(given, Dim):
        return given
    if given is None:
        shape = entry.get("shape")
        given = shape[-1] if shape and not sparse else None
        if isinstance(given, Dim) and given.size is not None:
            return given
    if given is None or isinstance(given, Dim):
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given <= 0:
        option = "dim" if "dim" in entry else "shape"
        raise EntryError(f"dim must be a positive int, not {given!r}", option)
    return Symbol(f"{key}:{'classes' if sparse else 'feature'}", DimKind.FEATURE, given)


def _dims_of_shape(
    key: str, shape: Sequence[Any], entry: Mapping[str, Any], others: Mapping[str, DataEntry], batch: Dim
) -> tuple[tuple[Dim, ...], Dim | None]:
    shared = _shared_time(key, entry, others)
    dims: list[Dim] = []
    time: Dim | None = None
    for index, size in enumerate(shape):
        if isinstance(size, Dim):
            dims.append(size)
        elif size is None:
            first = time is None
            name = f"{key}:time" if first else f"{key}:time{index}"
            dims.append(shared if first and shared is not None else Symbol(name, DimKind.SPATIAL, None, (batch,)))
        elif isinstance(size, int) and not isinstance(size, bool) and size > 0:
            last = index == len(shape) - 1
            dims.append(Symbol(f"{key}:static{index}", DimKind.FEATURE if last else DimKind.SPATIAL, size))
        else:
            raise EntryError(f"shape may hold sizes and null (or None) for dynamic axes, not {size!r}", "shape")
        if time is None and dims[-1].is_dynamic:
            time = dims[-1]
    return tuple(dims), time


def _shared_time(key: str, entry: Mapping[str, Any], others: Mapping[str, DataEntry]) -> Dim | None:
    same = entry.get("same_dim_tags_as")
    if not same:
        return None
    if not isinstance(same, Mapping):
        message = f'same_dim_tags_as must be a dict such as {{"t": "data"}}, not {same!r}'
        raise EntryError(message, "same_dim_tags_as")
    for axis, other in same.items():
        if str(axis).lower() not in ("t", "time"):
            raise EntryError(f"same_dim_tags_as: only 't' can be shared, not {axis!r}", "same_dim_tags_as")
        if isinstance(other, Dim):
            return other
        if other not in others:
            hint = nearest_hint(str(other), list(others)).strip()
            raise EntryError(f"same_dim_tags_as: there is no data key {other!r}", "same_dim_tags_as", hint)
        return others[other].type.time
    return None


def _from_dim_tags(tags: Sequence[Any], batch: Dim, dtype: str, sparse: Dim | None) -> MarkedType:
    dims = []
    for tag in tags:
        if not isinstance(tag, Dim):
            raise EntryError(f"dim_tags must hold Dim objects (rl.Dim), not {tag!r}", "dim_tags")
        dims.append(batch if tag.kind is DimKind.BATCH else tag)
    feature = next((dim for dim in reversed(dims) if dim.kind is DimKind.FEATURE), None)
    return MarkedType(tuple(dims), dtype, sparse, None if sparse is not None else feature)
