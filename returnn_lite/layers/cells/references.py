"""The layers that the options of a cell name, found in the config: they are built before the layer with the cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from returnn_lite.config.decode import option_types
from returnn_lite.config.kinds import options_with_kind, values_of_type
from returnn_lite.layers.cells.registry import cell_class, known_name

Path = tuple[Any, ...]


def references_of(options: Mapping[Any, Any]) -> Iterator[tuple[Path, str]]:
    """The layers that the units of a layer name, and `unit_opts`, with their paths below the layer. What is no cell has
    none: its mistake is told where it is decoded."""
    unit, unit_opts = options.get("unit"), options.get("unit_opts")
    if isinstance(unit, str) and isinstance(unit_opts, Mapping):
        yield from _of_options(unit, unit_opts, ("unit_opts",))
    else:
        yield from _of_cell(unit, ("unit",))
    yield from _of_cell(options.get("unit_backward"), ("unit_backward",))


def _of_cell(spec: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(spec, list | tuple):
        for place, one in enumerate(spec):
            yield from _of_cell(one, (*path, place))
    elif isinstance(spec, Mapping) and isinstance(spec.get("class"), str):
        yield from _of_options(spec["class"], spec, path)


def _of_options(text: str, options: Mapping[Any, Any], path: Path) -> Iterator[tuple[Path, str]]:
    name = known_name(text)
    if name is None:
        return
    cls = cell_class(name)
    types, cells, layers = (option_types(cls), *(options_with_kind(cls, kind) for kind in ("cell", "layer")))
    for given, value in options.items():
        option = cls.old_options.get(given, given)
        if option in cells:
            yield from _of_cell(value, (*path, given))
        elif option in layers:
            named = values_of_type(types[option], value, "layer")
            yield from (((*path, given), reference) for reference in named if isinstance(reference, str))
