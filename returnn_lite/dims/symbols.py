"""Dims that are not computed from others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from returnn_lite.dims.dim import Dim, set_found
from returnn_lite.dims.kind import DimKind


@dataclass(frozen=True, eq=False, repr=False)
class Symbol(Dim):
    """A dim that is not computed from others. Two symbols are equal only if they are one object."""

    name: str
    kind: DimKind = DimKind.SPATIAL
    static_size: int | None = None
    varies_over: tuple[Dim, ...] = ()
    size: int | None = field(init=False)
    over: tuple[Dim, ...] = field(init=False)
    least: int = field(init=False)

    def __post_init__(self) -> None:
        set_found(self, size=self.static_size, over=self.varies_over, least=self.static_size or 0)


@dataclass(frozen=True, eq=False, repr=False)
class Declared(Symbol):
    """A dim that a config names itself, so that it says which axes are one: a spatial one is no layer's features.

    What the length of a dynamic one varies over is not for the config to say: what makes the dim first settles it.
    """

    _settled: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_found(self, _settled=self.size is not None or bool(self.over))

    @property
    def is_settled(self) -> bool:
        return self._settled

    def settle(self, over: Iterable[Dim]) -> None:
        if not self._settled:
            set_found(self, over=tuple(over), _settled=True)


@dataclass(frozen=True, eq=False, repr=False)
class Copy(Symbol):
    """A dim as long as another: that of a sequence from around a loop which is seen whole inside of it."""

    of: Dim | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Unknown(Symbol):
    """A dim that type inference has yet to find: the feature of `prev:x` before x is built."""
