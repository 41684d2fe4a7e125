"""How options are declared: annotated fields of a class, and the kinds of values that only configs have.

An option is one line: `with_bias: bool = option("whether to add a bias", default=True)`. Schema, validation and
reference page derive from it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeGuard


class UnspecifiedType(enum.Enum):
    """The type of `Unspecified`: the option was not given, which differs from null."""

    Unspecified = "unspecified"

    def __repr__(self) -> str:
        return "unspecified"


Unspecified: Final = UnspecifiedType.Unspecified


@dataclasses.dataclass(frozen=True)
class Kind:
    """Marks what a value means beyond its type."""

    name: str


LayerRef = Annotated[str, Kind("layer")]
"""The name of a layer: `x`, `prev:x`, `base:x`, `data:key`."""
AxisSpec = Annotated[Any, Kind("axis")]
"""An axis description: a string, an int, a Dim, or a list of these."""
DimSpec = Annotated[Any, Kind("dim")]
"""A size, or a Dim."""
Init = Annotated[Any, Kind("initializer")]
"""An initialiser: a number, a string such as 'glorot_uniform', or a dict."""
Activation = Annotated[str, Kind("activation")]
Expression = Annotated[str | Callable[..., Any], Kind("expression")]
"""An expression string, or a function of a Python config."""
NetDict = Annotated[dict[str, Any], Kind("network")]
LayerDict = Annotated[dict[str, Any], Kind("layer options")]
CellSpec = Annotated[str | dict[str, Any] | list[Any] | Callable[..., Any], Kind("cell")]
"""A recurrent cell: its name, a dict with its `class` and options, or a list of cells; or, in a Python config, a Keras
cell, or what makes one."""
LengthExpression = Annotated[str, Kind("length")]
"""An expression of lengths, such as `max_len_from('base:encoder') * 2`."""
Callback = Annotated[Callable[..., Any], Kind("function")]
"""A function; only a Python config can give one."""


def is_network(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value is a dict of layers, not the options of one thing that has a class."""
    if not isinstance(value, Mapping):
        return False
    named = value.get("class")
    return not isinstance(named, str) and not callable(named)


@dataclasses.dataclass(frozen=True)
class OptionInfo:
    """What `option` says beyond the default."""

    description: str
    unsupported: str | None = None
    least: float | None = None
    below: float | None = None


def option(
    description: str,
    *,
    default: Any = dataclasses.MISSING,
    unsupported: str | None = None,
    least: float | None = None,
    below: float | None = None,
) -> Any:
    """Declares an option. Without a default it is required; `unsupported` is the error for any value but the default,
    `least` the smallest number that makes sense, and `below` the one that is already too large."""
    metadata = {"option": OptionInfo(description, unsupported, least, below)}
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata, kw_only=True)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata, kw_only=True)
    return dataclasses.field(default=default, metadata=metadata, kw_only=True)
