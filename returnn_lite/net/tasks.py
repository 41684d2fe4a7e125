"""What the building of one layer waits for: it is suspended until that is built, so that nothing is ever deep."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from returnn_lite.ir import Value
from returnn_lite.layers.base import Building, NetworkRequest, Outputs, Surroundings, UnitRequest

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope
    from returnn_lite.net.specs import LayerSpec

Result = TypeVar("Result")


@dataclass(frozen=True)
class OneLayer:
    """A layer of a scope, with what it needs. Raises NotChecked and Unavailable where it waits."""

    scope: Scope
    name: str


@dataclass(frozen=True)
class SomeLayers:
    """Layers of a scope, with what they need; those that can't be built are in `failed` and `unavailable` then.

    With `all_of_them` they are all roots of the scope: what nothing reads is looked at as well.
    """

    scope: Scope
    names: Sequence[str]
    all_of_them: bool = False


Task = Generator[OneLayer | SomeLayers, Any, Result]
"""Something that is being built: it yields what it waits for."""


class Driver(Protocol):
    """What builds, for those that need something at once."""

    def build(self, wanted: OneLayer | SomeLayers) -> None:
        """Builds layers with what they need. Raises LayerError, NotChecked and Unavailable for one that can't be."""

    def made(self, scope: Scope, spec: LayerSpec, path: str, made: Value | Outputs | Building) -> Outputs:
        """What a layer's `build` makes, with the layers inside that it asks for."""

    def scope_inside(self, scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest | UnitRequest) -> Scope:
        """The scope of layers that a layer asks for, none of which is built."""

    def surroundings(self, scope: Scope, spec: LayerSpec, path: str) -> Surroundings:
        """What a layer sees of the network around it."""
