"""What `explain` says of the cells of a layer: what they were decoded as, and where in the config."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.config.kinds import options_with_kind
from returnn_lite.ir.layer_reads import CellRecord
from returnn_lite.layers.cells.cell import Cell

Path = tuple[str | int, ...]


def records_of(
    cell: Cell, spec: object, at: Path, path: str = "", unit_opts: Mapping[str, Any] | None = None
) -> Iterator[CellRecord]:
    """A cell that `spec` at a path below the layer describes, then those inside of it. `path` is what its states are
    called after, `unit_opts` are the options of a unit that is a name."""
    cls = type(cell)
    inner = options_with_kind(cls, "cell")
    opaque = options_with_kind(cls, "foreign cell")
    given = spec if isinstance(spec, Mapping) else {}
    places: dict[str, Path] = {cls.old_options.get(name, name): (*at, name) for name in given}
    places |= {cls.old_options.get(name, name): ("unit_opts", name) for name in unit_opts or ()}
    options = {
        field.name: getattr(cell, field.name)
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]  # `Cell` makes dataclasses of its subclasses
        if field.name not in (*inner, *opaque) and not _is_default(field, getattr(cell, field.name))
    }
    below = [found for option in inner for found in _inside(cell, option, spec, places.get(option, at), path)]
    prefixes = tuple(f"{found.path}/".removeprefix(f"{path}/" if path else "") for found in below)
    states = tuple(key for key in cell.state_keys() if not key.startswith(prefixes))
    yield CellRecord(path, cell.called, options, states, at, places)
    yield from below


def _inside(cell: Cell, option: str, spec: object, at: Path, path: str) -> Iterator[CellRecord]:
    """The cells of an option, numbered if it is a list of them."""
    before = f"{path}/" if path else ""
    value = getattr(cell, option)
    if isinstance(spec, Mapping):
        own = {type(cell).old_options.get(name, name): found for name, found in spec.items()}
        spec = own.get(option)
    if option not in cell.lists_of_cells:
        yield from records_of(value, spec, at, f"{before}{option}")
        return
    for i, one in enumerate(value):
        inner = spec[i] if isinstance(spec, list | tuple) else None
        yield from records_of(one, inner, (*at, i), f"{before}{i}")


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return bool(value == field.default)
