"""Axis descriptions: strings such as "T", "F", "spatial:1", "stag:encoder" → dims, in the per-step view (SEMANTICS
2.4).

They are resolved once, while layers are built; nothing after that looks at a string or a position.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from returnn_lite.dims.dim import Dim
from returnn_lite.dims.kind import DimKind
from returnn_lite.dims.markers import MarkedType
from returnn_lite.dims.masked import Masked
from returnn_lite.dims.symbols import Copy
from returnn_lite.dims.types import DimError

INDEXED = frozenset(["spatial", "s", "dyn", "dynamic", "static", "except_batch", "spatial_except_time"])
"""The forms that mean several dims, of which a number after a colon picks one."""
MARKED = frozenset(["b", "batch", "t", "time", "f", "feature"])
"""The forms that mean one dim or none; with `?` none is no mistake."""
FORMS = (
    *("B", "T", "F", "T?", "F?", "bt", "tf", "bf", "btf", "*", "dim:N", "tag:NAME", "stag:NAME", "stag-single:i:NAME"),
    *("spatial", "spatial:i", "s:i", "dyn", "dyn:i", "static", "static:i", "spatial_except_time", "except_time"),
    *("except_batch", "except_batch:i"),
)


Makers = Callable[[Dim], Iterable[str]]
"""The layers that have made a dim, by their paths."""


def unknown_makers(dim: Dim) -> Iterable[str]:
    """For types that no layer has made."""
    return ()


def resolve_axis(description: Any, type_: MarkedType, makers: Makers = unknown_makers) -> Dim:
    """The one dim that a description means. Raises DimError that names the candidates if it means none or several."""
    dims = resolve_axes(description, type_, makers)
    if len(dims) != 1:
        raise DimError(f"axis {description!r} of {type_} must be one dim, but it is {_listed(dims)}")
    return dims[0]


def resolve_axes(description: Any, type_: MarkedType, makers: Makers = unknown_makers) -> tuple[Dim, ...]:
    """The dims that a description means, in the order of declaration; of a list, in the order of the list."""
    if isinstance(description, Dim):
        if description not in type_:
            copies = tuple(dim for dim in type_.dims if isinstance(dim, Copy) and dim.of is description)
            if copies:
                return copies
            raise DimError(f"there is no dim {description} in {type_}")
        return (description,)
    if isinstance(description, bool) or description is None:
        raise DimError(f"{description!r} is no axis; say one of {', '.join(FORMS)}")
    if isinstance(description, int):
        return (_by_number(description, type_),)
    if isinstance(description, str):
        return _by_text(description, type_, makers)
    if isinstance(description, set | frozenset):
        among = {dim for item in description for dim in resolve_axes(item, type_, makers)}
        return tuple(dim for dim in type_.dims if dim in among)
    if isinstance(description, Sequence):
        found = [dim for item in description for dim in resolve_axes(item, type_, makers)]
        return tuple(dict.fromkeys(found))
    raise DimError(f"{description!r} is no axis")


def time_to_run_over(type_: MarkedType) -> Dim | None:
    """The time marker, else the first dim whose length differs from sequence to sequence."""
    return type_.time or next((dim for dim in type_.dims if dim.is_ragged), None)


def visible_dims(type_: MarkedType) -> tuple[Dim, ...]:
    """The dims that descriptions can mean: all but the beam."""
    return tuple(dim for dim in type_.dims if dim.kind is not DimKind.BEAM)


def _by_number(number: int, type_: MarkedType) -> Dim:
    """A position in RETURNN's batch-major order: batch first, then the dims in order of declaration."""
    dims = visible_dims(type_)
    batch = [dim for dim in dims if dim.kind is DimKind.BATCH]
    ordered = [*batch, *(dim for dim in dims if dim.kind is not DimKind.BATCH)]
    if not -len(ordered) <= number < len(ordered):
        raise DimError(f"axis {number} of {type_}: there are {len(ordered)} axes")
    return ordered[number]


def _by_text(text: str, type_: MarkedType, makers: Makers) -> tuple[Dim, ...]:
    name = text.strip().lower()
    if name.endswith("?") and name[:-1] in MARKED:
        return _set_of(name[:-1], type_) or ()
    head, colon, rest = name.partition(":")
    if colon and head in ("stag", "tag", "stag-single"):
        return _by_name(head, rest, type_, makers)
    if colon and head == "dim":
        return _by_size(rest, type_)
    if colon and head in INDEXED:
        return (_by_index(head, rest, type_),)
    dims = None if colon else _set_of(head, type_)
    if dims is None and not colon and head and set(head) <= set("btf"):
        return tuple(dict.fromkeys(dim for letter in head for dim in _by_text(letter, type_, makers)))
    if dims is None:
        near = difflib.get_close_matches(name, FORMS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "say one of " + ", ".join(FORMS)
        raise DimError(f"unknown axis {text!r}; {hint}")
    if head in MARKED and not dims:
        raise DimError(f"there is no axis {text!r} in {type_}")
    return dims


def _by_index(head: str, number: str, type_: MarkedType) -> Dim:
    if not _is_number(number):
        raise DimError(f"axis '{head}:{number}': expected a number after ':'")
    dims = _set_of(head, type_) or ()
    if not -len(dims) <= int(number) < len(dims):
        raise DimError(f"axis '{head}:{number}' of {type_}: {head!r} is {_listed(dims)}")
    return dims[int(number)]


def _set_of(name: str, type_: MarkedType) -> tuple[Dim, ...] | None:
    """The dims of a form without index; None if there is no such form."""
    dims = visible_dims(type_)
    batch = tuple(dim for dim in dims if dim.kind is DimKind.BATCH)
    others = tuple(dim for dim in dims if dim.kind is not DimKind.BATCH)
    time = type_.default_time
    spatial = tuple(dim for dim in others if dim is not type_.feature)
    sets = {
        "b": batch,
        "batch": batch,
        "t": () if time is None else (time,),
        "time": () if time is None else (time,),
        "f": () if type_.feature is None else (type_.feature,),
        "feature": () if type_.feature is None else (type_.feature,),
        "spatial": spatial,
        "s": spatial,
        "dyn": tuple(dim for dim in others if dim.is_dynamic),
        "dynamic": tuple(dim for dim in others if dim.is_dynamic),
        "static": tuple(dim for dim in others if not dim.is_dynamic),
        "spatial_except_time": tuple(dim for dim in spatial if dim is not time),
        "except_time": tuple(dim for dim in others if dim is not time),
        "except_batch": others,
        "*": dims,
    }
    return sets.get(name)


def _by_size(text: str, type_: MarkedType) -> tuple[Dim, ...]:
    if not text.isdigit():
        raise DimError(f"axis 'dim:{text}': expected a size after ':'")
    dims = tuple(dim for dim in visible_dims(type_) if dim.size == int(text))
    if len(dims) != 1:
        raise DimError(f"axis 'dim:{text}' of {type_} must be one dim, but it is {_listed(dims)}")
    return dims


def _by_name(form: str, text: str, type_: MarkedType, makers: Makers) -> tuple[Dim, ...]:
    number, _, text = text.partition(":") if form == "stag-single" else ("", "", text)
    shown = ":".join(part for part in (form, number, text) if part)
    if not text.strip() or (form == "stag-single" and not _is_number(number)):
        raise DimError(f"axis {shown!r}: expected stag:NAME, tag:NAME or stag-single:NUMBER:NAME")
    dims = _named(form, text, type_, makers)
    if form == "stag-single":
        if not -len(dims) <= int(number) < len(dims):
            raise DimError(f"axis {shown!r} of {type_}: the dims of that name are {_listed(dims)}")
        return (dims[int(number)],)
    if len(dims) != 1:
        raise DimError(f"axis {shown!r} of {type_} must be one dim, but it is {_listed(dims)}")
    return dims


def _named(form: str, text: str, type_: MarkedType, makers: Makers) -> tuple[Dim, ...]:
    """The dims whose name contains the text: their own; or else the name of a dim that they are computed from; or else
    of a layer that has made them. RETURNN compares without case but to the letter; where nothing matches so, "-", "_"
    and other signs count as the same, for our names of dims are not always RETURNN's."""
    candidates = [
        dim
        for dim in visible_dims(type_)
        if form == "tag" or not (dim.kind is DimKind.BATCH or (dim is type_.feature and dim.kind is DimKind.FEATURE))
    ]
    wanted = _folded(text)
    for names in (_names, _names_of_parts, makers):
        found = {dim: [name.lower() for name in names(dim)] for dim in candidates}
        exact = tuple(dim for dim in candidates if any(text in name for name in found[dim]))
        alike = tuple(dim for dim in candidates if wanted and any(wanted in _folded(name) for name in found[dim]))
        if exact or alike:
            return exact or alike
    return ()


def _names(dim: Dim) -> Iterable[str]:
    """A dim's name and, of a time dim "key:time" of the extern data, also RETURNN's description of it."""
    key, colon, last = dim.name.rpartition(":")
    return (dim.name, f"time:var:extern_data:{key}") if colon and last == "time" else (dim.name,)


def _names_of_parts(dim: Dim) -> Iterable[str]:
    """The names of the dims that one is computed from, or a copy of."""
    return [name for part in _whole(dim) for name in _names(part)]


def _whole(dim: Dim) -> set[Dim]:
    """A dim with all those that it consists of."""
    found, pending = {dim}, [dim]
    while pending:
        part = pending.pop()
        inner = part.dim if isinstance(part, Masked) else part.of if isinstance(part, Copy) else None
        new = [one for one in ((inner,) if inner is not None else part.operands()) if one not in found]
        found.update(new)
        pending += new
    return found


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def _listed(dims: Sequence[Dim]) -> str:
    return " and ".join(str(dim) for dim in dims) if dims else "none of them"
