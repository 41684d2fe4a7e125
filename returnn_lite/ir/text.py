"""IR text: the names of values, attributes, and lines that are at most 140 wide.

    encoder:dot = dot(data, encoder/W, over=data:feature)                 # [B, data:time, encoder:feature(6)]
    encoder:add = add(encoder:dot, encoder/b)
    encoder = tanh(encoder:add)

A value has the name of its layer or parameter, or its layer's with the primitive's; a number is behind it only where
another value that can be read there has that name. A number that is the same everywhere stands where it is used. A type
is said where a value is bound, if it is not that of the first operand. A graph has the same text in every process.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from returnn_lite.dims import Dim, DimKind, TensorType
from returnn_lite.ir.op import Op

WIDTH = 140
TYPES_AT = 70
MOST_ITEMS, SHOWN_ITEMS = 12, 8
"""How many items of a tuple are written out, and how many of a longer one."""
_COUNTER = re.compile(r"(:[a-z][a-z0-9_]*)\.\d+(?=@|\[|$)")
_BREAKS = re.compile(r"(?<=, )|(?<=\+)|(?<=\*)|(?<=/)|(?<=:)")


class Named(Protocol):
    """A value, as far as text goes."""

    @property
    def name(self) -> str:
        """The name that it was made with."""

    @property
    def type(self) -> TensorType:
        """Its type."""


class Writer:
    """Lines of text about nested levels of values, each with its names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._indent = ""
        self._names: dict[Named, str] = {}
        self._visible: set[str] = set()
        self._quoted: set[Named] = set()

    @contextmanager
    def indented(self, indent: str = "  ") -> Iterator[None]:
        """Lines inside of the context are indented."""
        outer = self._indent
        self._indent += indent
        try:
            yield
        finally:
            self._indent = outer

    @contextmanager
    def level(self, indent: str = "  ") -> Iterator[None]:
        """Lines inside of the context are indented; names that are given there can't be read behind it."""
        visible = set(self._visible)
        with self.indented(indent):
            try:
                yield
            finally:
                self._visible = visible

    def bind(self, value: Named, name: str = "") -> str:
        """The name of a value from here on; `name` is what it is called if not as it was made."""
        if value in self._names:
            return self._names[value]
        stem = _COUNTER.sub(r"\1", name or value.name)
        found, count = stem, 1
        while found in self._visible:
            count += 1
            found = f"{stem}.{count}"
        self._visible.add(found)
        self._names[value] = found
        return found

    def quotes(self, value: Named, literal: str) -> bool:
        """True if a value is written as a literal where it is read: if there is one, and nothing has read it yet."""
        is_quoted = bool(literal) and self._names.setdefault(value, literal) == literal
        if is_quoted:
            self._quoted.add(value)
        return is_quoted

    def known_type(self, operands: Sequence[Named]) -> TensorType | None:
        """The type of the first operand, if it has been said."""
        return operands[0].type if operands and operands[0] not in self._quoted else None

    def name(self, value: Named) -> str:
        """What a value is called; one that is read before it is bound gets its name there."""
        return self.bind(value)

    def names(self, values: Iterable[Named]) -> str:
        """Several names with commas between."""
        return ", ".join(map(self.name, values))

    def line(self, left: str, types: Sequence[TensorType] = (), known: TensorType | None = None) -> None:
        """Adds a line about values of these types, folded where it is too wide; a type that is `known` is not said."""
        comment = _types_text(types, "" if known is None else _type_text(known))
        whole = f"{self._indent}{left:<{TYPES_AT - len(self._indent)}}  # {comment}" if comment else self._indent + left
        if len(whole) <= WIDTH:
            self.lines.append(whole)
            return
        deeper = self._indent + "    "
        self.lines += _folded(left, self._indent, deeper)
        if comment:
            self.lines += _folded(f"# {comment}", deeper, f"{deeper}# ")


def application_text(op: Op, operands: str, result: str = "") -> str:
    """`dot(x, W, over=F)`: a primitive with the names of its operands and its attributes, but for defaults and the name
    of the result."""
    shown = op.shown_attributes().items()
    attributes = [f"{key}={attribute_text(value)}" for key, value in shown if value != result]
    return f"{op.label}({', '.join(filter(None, (operands, *attributes)))})"


def attribute_text(value: object) -> str:
    """An attribute, the same in every process: no addresses, sets in order, long tuples shortened."""
    if isinstance(value, Dim):
        return value.name
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, tuple):
        return attribute_text(value[0]) if len(value) == 1 else f"({', '.join(_items_text(value))})"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(attribute_text, value))) + "}"
    if isinstance(value, Op):
        return application_text(value, "")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr)
        shown = (f"{name}: {attribute_text(item)}" for name, item in fields if item not in ((), None, ""))
        return "{" + ", ".join(shown) + "}"
    if isinstance(value, str):
        return repr(value)
    return _function_name(value) if callable(value) else str(value)


def _function_name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _items_text(items: Sequence[object]) -> list[str]:
    if len(items) <= MOST_ITEMS:
        return [attribute_text(item) for item in items]
    return [*(attribute_text(item) for item in items[:SHOWN_ITEMS]), f"… {len(items) - SHOWN_ITEMS} more"]


def _type_text(type_: TensorType) -> str:
    """A type, sequences and hypotheses first and features last: in which order it has its dims means nothing, but for
    parameters, which have no batch."""
    if type_.batch is None:
        return str(type_)
    kinds = list(DimKind)
    return str(type_.of_dims(tuple(sorted(type_.dims, key=lambda dim: kinds.index(dim.kind)))))


def _types_text(types: Sequence[TensorType], known: str) -> str:
    """The types, in short where they are all the same; nothing where that is what is known."""
    shown = list(map(_type_text, types))
    if len(shown) > 1 and len(set(shown)) == 1:
        shown = [f"each {shown[0]}"]
        known = f"each {known}"
    return "" if shown == [known] else "; ".join(shown)


def _folded(text: str, first: str, further: str) -> list[str]:
    """The text in lines that are narrow enough: broken behind commas, else inside of names of dims, else anywhere."""
    lines: list[str] = []
    current, indent = "", first
    for piece in _pieces(text, WIDTH - len(further)):
        if current and len(indent) + len(current) + len(piece.rstrip()) > WIDTH:
            lines.append(indent + current.rstrip())
            current, indent = "", further
        current += piece
    return [*lines, indent + current.rstrip()]


def _pieces(text: str, width: int) -> Iterator[str]:
    for argument in re.split(r"(?<=, )", text):
        if len(argument) <= width:
            yield argument
            continue
        for part in _BREAKS.split(argument):
            yield from (part[start : start + width] for start in range(0, len(part), width))
