"""Values, the masks under which they are, and where nodes come from."""

from __future__ import annotations

from returnn_lite.dims import Dim, TensorType
from returnn_lite.dims.records import record


@record(frozen=True)
class Origin:
    """Where a node comes from: the layer's path, and the place of its text in a config (`file:line:col`); and what
    device it shall run on, if the config says. `recompute` is the path of the layer whose option has it computed again
    when gradients are taken, if one does. Of a cell inside of a layer's unit, `cell` is its path there (`1/cell`), and
    `unlike_primitive` the options because of which it is no primitive."""

    layer: str = ""
    position: str = ""
    device: str = ""
    recompute: str = ""
    cell: str = ""
    unlike_primitive: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.position}: {self.layer}" if self.position and self.layer else self.position or self.layer


@record(frozen=True, eq=False)
class Value:
    """A result of a node or an input of a graph. Bound once."""

    name: str
    type: TensorType
    layer: str = ""
    """The path of the layer that it is what it makes; so are its frames, and the sequence of them."""

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"

    def of_type(self, type_: TensorType) -> Value:
        """The same as a value of another type: a copy, a frame or a sequence."""
        return Value(self.name, type_, self.layer)


@record(frozen=True, eq=False)
class Mask:
    """A slower clock in a loop: the steps at which `value` is true. `dim` has just those frames."""

    value: Value
    dim: Dim


Clock = tuple[Mask, ...]
"""The masks under which something runs, outermost first; empty for every step of the loop."""
