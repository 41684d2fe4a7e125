"""Axis descriptions: strings such as "T", "F", "spatial:1", "stag:encoder" → dims, in the per-step view (SEMANTICS
2.4).

They are resolved once, while layers are built; nothing after that looks at a string or a position.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from returnn_lite.dims.dim import Dim, DimKind
from returnn_lite.dims.types import DimError, TensorType

FORMS = (
    *("B", "T", "F", "T?", "F?", "bt", "tf", "bf", "btf", "*", "dim:N", "tag:NAME", "stag:NAME", "stag-single:i:NAME"),
    *("spatial", "spatial:i", "s:i", "dyn", "dyn:i", "static", "static:i", "spatial_except_time", "except_time"),
    *("except_batch", "except_batch:i"),
)


def resolve_axis(description: Any, type_: TensorType) -> Dim:
    """The one dim that a description means. Raises DimError that names the candidates if it means none or several."""
    dims = resolve_axes(description, type_)
    if len(dims) != 1:
        raise DimError(f"axis {description!r} of {type_} must be one dim, but it is {_listed(dims)}")
    return dims[0]


def resolve_axes(description: Any, type_: TensorType) -> tuple[Dim, ...]:
    """The dims that a description means, in the order of declaration; of a list, in the order of the list."""
    if isinstance(description, Dim):
        if description not in type_:
            raise DimError(f"there is no dim {description} in {type_}")
        return (description,)
    if isinstance(description, bool) or description is None:
        raise DimError(f"{description!r} is no axis; say one of {', '.join(FORMS)}")
    if isinstance(description, int):
        return (_by_number(description, type_),)
    if isinstance(description, str):
        return _by_text(description, type_)
    if isinstance(description, Sequence | set | frozenset):
        found = [dim for item in description for dim in resolve_axes(item, type_)]
        return tuple(dict.fromkeys(found))
    raise DimError(f"{description!r} is no axis")


def resolve_optional(description: Any, type_: TensorType) -> Dim | None:
    """Like `resolve_axis`, but None for a form with `?` that finds nothing."""
    dims = resolve_axes(description, type_)
    return resolve_axis(description, type_) if dims else None


def default_time(type_: TensorType) -> Dim | None:
    """What "T" means: the time marker, else the first dynamic spatial dim."""
    if type_.time is not None:
        return type_.time
    return next((dim for dim in visible_dims(type_) if dim.kind is not DimKind.BATCH and dim.is_dynamic), None)


def visible_dims(type_: TensorType) -> tuple[Dim, ...]:
    """The dims that descriptions can mean: all but the beam."""
    return tuple(dim for dim in type_.dims if dim.kind is not DimKind.BEAM)


def order_based(description: Any) -> bool:
    """True if what the description means depends on the order of the dims (forbidden from behavior_version 5 and 7
    on)."""
    if isinstance(description, int):
        return True
    if isinstance(description, str):
        return bool(
            re.fullmatch(r"(spatial|s|dyn|dynamic|static|except_batch|spatial_except_time):-?\d+", description.lower())
        )
    return isinstance(description, Sequence) and any(order_based(item) for item in description)


def _by_number(number: int, type_: TensorType) -> Dim:
    """A position in RETURNN's batch-major order: batch first, then the dims in order of declaration."""
    dims = visible_dims(type_)
    batch = [dim for dim in dims if dim.kind is DimKind.BATCH]
    ordered = [*batch, *(dim for dim in dims if dim.kind is not DimKind.BATCH)]
    if not -len(ordered) <= number < len(ordered):
        raise DimError(f"axis {number} of {type_}: there are {len(ordered)} axes")
    return ordered[number]


def _by_text(text: str, type_: TensorType) -> tuple[Dim, ...]:
    name = text.strip().lower()
    if name.endswith("?"):
        return _optional(name[:-1], text, type_)
    head, colon, rest = name.partition(":")
    if colon and head in ("stag", "tag", "stag-single"):
        return _by_name(head, rest, type_)
    if colon and head == "dim":
        return _by_size(rest, type_)
    dims = _set_of(head, type_)
    if dims is None:
        if not colon and head and set(head) <= set("btf"):
            return tuple(dim for letter in head for dim in _by_text(letter, type_))
        near = difflib.get_close_matches(name, FORMS, n=1)
        raise DimError(
            f"unknown axis {text!r}; {f'did you mean {near[0]!r}?' if near else 'say one of ' + ', '.join(FORMS)}"
        )
    if not colon:
        if head in ("b", "batch", "t", "time", "f", "feature") and not dims:
            raise DimError(f"there is no axis {text!r} in {type_}")
        return dims
    if not re.fullmatch(r"-?\d+", rest):
        raise DimError(f"axis {text!r}: expected a number after ':'")
    index = int(rest)
    if not -len(dims) <= index < len(dims):
        raise DimError(f"axis {text!r} of {type_}: it has only {_listed(dims)} of these")
    return (dims[index],)


def _optional(name: str, text: str, type_: TensorType) -> tuple[Dim, ...]:
    try:
        return _by_text(name, type_)
    except DimError:
        head = name.partition(":")[0]
        if _set_of(head, type_) is None and head not in ("stag", "tag", "dim"):
            raise DimError(f"unknown axis {text!r}") from None
        return ()


def _set_of(name: str, type_: TensorType) -> tuple[Dim, ...] | None:
    """The dims of a form without index; None if there is no such form."""
    dims = visible_dims(type_)
    batch = tuple(dim for dim in dims if dim.kind is DimKind.BATCH)
    others = tuple(dim for dim in dims if dim.kind is not DimKind.BATCH)
    time = default_time(type_)
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


def _by_size(text: str, type_: TensorType) -> tuple[Dim, ...]:
    if not text.isdigit():
        raise DimError(f"axis 'dim:{text}': expected a size after ':'")
    dims = tuple(dim for dim in visible_dims(type_) if dim.size == int(text))
    if len(dims) != 1:
        raise DimError(f"axis 'dim:{text}' of {type_} must be one dim, but it is {_listed(dims)}")
    return dims


def _by_name(form: str, text: str, type_: TensorType) -> tuple[Dim, ...]:
    index: int | None = None
    if form == "stag-single":
        number, _, text = text.partition(":")
        if not re.fullmatch(r"-?\d+", number):
            raise DimError(f"axis 'stag-single:{number}:{text}': expected a number after 'stag-single:'")
        index = int(number)
    wanted = _normalized(text)
    candidates = [
        dim
        for dim in visible_dims(type_)
        if form == "tag" or (dim.kind is not DimKind.BATCH and dim is not type_.feature)
    ]
    dims = [dim for dim in candidates if wanted in _normalized(dim.name)]
    if index is not None and -len(dims) <= index < len(dims):
        dims = [dims[index]]
    if len(dims) != 1:
        raise DimError(f"axis '{form}:{text}' of {type_} must be one dim, but it is {_listed(dims)}")
    return (dims[0],)


def _normalized(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _listed(dims: Sequence[Dim]) -> str:
    return " and ".join(str(dim) for dim in dims) if dims else "none of them"
