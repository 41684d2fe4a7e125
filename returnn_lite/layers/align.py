"""Which dims of several operands are one: the only place where layers let different dims meet.

Two dims are never one because their sizes agree; but RETURNN's configs add the outputs of two layers of 512 features,
or read attention weights over the time of another layer. Where exactly one dim of each side is left over and both can
be one, `align` says so by a `relabel`, whose lengths are compared at run time if they can't be now. Anything else stays
apart and broadcasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from returnn_lite.dims import Declared, Dim, DimKind, MarkedType, Masked, Unknown
from returnn_lite.ir.expressions import Expressions
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.views import View
from returnn_lite.layers.errors import LayerError


def align(b: Expressions, values: Sequence[View], *, broadcast_all: bool = True) -> list[View]:
    """The values with those dims relabelled that mean the same, towards the first value with the most dims.

    In this order, among dims that the other side lacks: batch meets batch; an unknown feature (of `prev:x` that is not
    inferred yet) meets the feature; a dim of size 1 disappears against a larger one (feature against feature, else
    static spatial against static spatial); features of one size meet, then static dims of one size (but no spatial dim
    that the config declares and a feature); the time dims meet, then the only dynamic dim of each. If several dims of
    one size could meet, LayerError asks for explicit dims.
    Without `broadcast_all`, one value must have all dims: else LayerError.
    """
    if len(values) < 2:
        return list(values)
    reference = max(range(len(values)), key=lambda i: (len(values[i].type.dims), -i))
    aligned = list(values)
    order = [reference, *(i for i in range(len(values)) if i != reference)]
    first: dict[frozenset[Dim], int] = {}  # of those that have the same dims: nothing is left to meet the others
    for i in order:
        met: set[Dim] = set()
        for dims, j in list(first.items()):
            if dims <= met:
                continue
            aligned[j], aligned[i] = align_pair(b, aligned[j], aligned[i], keep=tuple(met))
            if set(aligned[j].type.dims) != dims:
                first = {frozenset(aligned[k].type.dims): k for k in first.values()}
            met |= set(aligned[j].type.dims)
        first.setdefault(frozenset(aligned[i].type.dims), i)
    if not broadcast_all:
        _require_common(aligned)
    return aligned


def align_pair(b: Expressions, to: View, value: View, *, keep: Sequence[Dim] = ()) -> tuple[View, View]:
    """Both values, the dims of the second that mean one of the first's relabelled to it.

    The first changes only if one of its dims is unknown or of size 1. Dims in `keep` meet nothing.
    """
    meeting = find_meeting(to.type, value.type, keep)
    for dim in meeting.squeezed_first:
        to = b.apply(Squeeze(dim), to)
    for dim in meeting.squeezed_second:
        value = b.apply(Squeeze(dim), value)
    reason = f"'{to.name}' has {to.type} and '{value.name}' has {value.type}"
    for old, new in meeting.first:
        to = b.relabel(to, old, new, reason)
    for old, new in meeting.second:
        value = b.relabel(value, old, new, reason)
    return to, value


@dataclass
class Meeting:
    """What has to happen to two types so that their dims agree: (old, new) of each side, and dims of size 1 to drop."""

    first: list[tuple[Dim, Dim]] = field(default_factory=list)
    second: list[tuple[Dim, Dim]] = field(default_factory=list)
    squeezed_first: list[Dim] = field(default_factory=list)
    squeezed_second: list[Dim] = field(default_factory=list)


@dataclass
class _Leftover:
    """The dims of each side that the other lacks and that have not met one yet."""

    a_type: MarkedType
    b_type: MarkedType
    a: list[Dim]
    b: list[Dim]
    meeting: Meeting = field(default_factory=Meeting)

    def meet(self, a_dim: Dim, b_dim: Dim) -> None:
        self.a.remove(a_dim)
        self.b.remove(b_dim)
        if isinstance(a_dim, Unknown) and not isinstance(b_dim, Unknown):
            self.meeting.first.append((a_dim, b_dim))
        else:
            self.meeting.second.append((b_dim, a_dim))

    def drop(self, a_dim: Dim, b_dim: Dim) -> None:
        """The one of both that is of size 1 disappears; the other broadcasts."""
        self.a.remove(a_dim)
        self.b.remove(b_dim)
        if a_dim.size == 1:
            self.meeting.squeezed_first.append(a_dim)
        else:
            self.meeting.squeezed_second.append(b_dim)


def find_meeting(a: MarkedType, b: MarkedType, keep: Sequence[Dim] = ()) -> Meeting:
    """Decides which dims of two types mean the same; the rules are `align`'s."""
    left = _Leftover(
        a,
        b,
        [dim for dim in a.dims if dim not in b.dims and dim not in keep],
        [dim for dim in b.dims if dim not in a.dims and dim not in keep],
    )
    for rule in (_batch, _features, _static, _static_of_size_one, _dynamic):
        rule(left)
    return left.meeting


def _batch(left: _Leftover) -> None:
    a, b = left.a_type.batch, left.b_type.batch
    if a in left.a and b in left.b and a is not None and b is not None:
        left.meet(a, b)


def _features(left: _Leftover) -> None:
    a, b = left.a_type.feature, left.b_type.feature
    if a is None or b is None or a not in left.a or b not in left.b:
        return
    if (a.size == 1) != (b.size == 1):
        left.drop(a, b)
    elif isinstance(a, Unknown) or isinstance(b, Unknown) or _same_static(a, b):
        left.meet(a, b)


def _static(left: _Leftover) -> None:
    for b_dim in list(left.b):
        if b_dim.size in (None, 1):
            continue
        candidates = [dim for dim in left.a if _can_meet(dim, b_dim)]
        rivals = [dim for dim in left.b if _can_meet(dim, b_dim)]
        if len(candidates) > 1 or (candidates and len(rivals) > 1):
            names = ", ".join(str(dim) for dim in (*candidates, *rivals))
            raise LayerError(
                f"it is not clear which dims of size {b_dim.size} are the same: {names}, of {left.a_type} and "
                f"{left.b_type}",
                "give the layers that make them the same out_dim",
            )
        if candidates:
            left.meet(candidates[0], b_dim)


def _static_of_size_one(left: _Leftover) -> None:
    def spatial(dims: list[Dim], type_: MarkedType, one: bool) -> list[Dim]:
        return [d for d in dims if d.size is not None and (d.size == 1) == one and d is not type_.feature]

    for a_one in (True, False):
        a = spatial(left.a, left.a_type, a_one)
        b = spatial(left.b, left.b_type, not a_one)
        if len(a) == 1 and len(b) == 1:
            left.drop(a[0], b[0])


def _dynamic(left: _Leftover) -> None:
    a_time, b_time = left.a_type.default_time, left.b_type.default_time
    if a_time in left.a and b_time in left.b and a_time is not None and b_time is not None:
        _meet_dynamic(left, a_time, b_time)
    a, b = _rest(left.a), _rest(left.b)
    if len(a) == 1 and len(b) == 1:
        _meet_dynamic(left, a[0], b[0])


def _rest(dims: list[Dim]) -> list[Dim]:
    return [dim for dim in dims if dim.size is None and dim.kind is DimKind.SPATIAL]


def _meet_dynamic(left: _Leftover, a: Dim, b: Dim) -> None:
    for masked, whole in ((a, b), (b, a)):
        if isinstance(masked, Masked) and masked.dim == whole:
            raise LayerError(
                f"{masked} has only those frames of {whole} at which a mask is true: {left.a_type} and {left.b_type}",
                "bring one to the other's frames with an unmask layer",
            )
    left.meet(a, b)


def last_static(type_: MarkedType) -> Dim | None:
    """The dim that RETURNN takes for the feature dim of a result which nothing says it of: the last static one."""
    candidates = [d for d in type_.dims if d.size is not None and d.kind is not DimKind.BATCH and d != type_.time]
    return candidates[-1] if candidates and type_.sparse is None else None


def _same_static(a: Dim, b: Dim) -> bool:
    return a.size is not None and a.size == b.size


def _can_meet(a: Dim, b: Dim) -> bool:
    """Whether static dims can be one; a spatial dim that the config declares is never a feature."""
    apart = any(
        isinstance(x, Declared) and x.kind is DimKind.SPATIAL and y.kind is DimKind.FEATURE for x, y in ((a, b), (b, a))
    )
    return _same_static(a, b) and not apart


def _require_common(values: Sequence[View]) -> None:
    everything: set[Dim] = {dim for value in values for dim in value.type.dims}
    if any(everything == set(value.type.dims) for value in values):
        return
    listed = "; ".join(f"'{value.name}' has {value.type}" for value in values)
    raise LayerError(
        f"no source has all dims of the others: {listed}",
        "set allow_broadcast_all_sources: true if each shall be repeated over the dims that it lacks",
        "from",
    )
