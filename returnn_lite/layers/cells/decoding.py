"""The value of an option `unit` as a cell: its name, a dict with a class, or a list, a stack of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from returnn_lite.config.decode import decode, meant_options, option_names
from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.config.kinds import options_with_kind
from returnn_lite.ir.foreign_cells import CellError
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.foreign import Foreign
from returnn_lite.layers.cells.foreign_decoding import (
    copied,
    entered,
    entered_names,
    foreign_cell,
    foreign_object,
    is_maker,
    own_unit,
)
from returnn_lite.layers.cells.registry import IN_LOOP, NAMES, all_cells, cell_class, known_name
from returnn_lite.layers.errors import LayerError, raise_all
from returnn_lite.layers.old_recurrences import recurrence_instead

Path = tuple[str | int, ...]
Found = TypeVar("Found")


def unit_of(unit: object, unit_opts: Mapping[str, Any] | None, *, in_loop: bool, path: Path = ("unit",)) -> Cell:
    """The cell that the options `unit` and `unit_opts` of a layer say. Raises LayerError.

    `in_loop`: for `rnn_cell`, where some names mean other cells than in `rec`.
    """
    if callable(unit) and is_maker(unit):
        return _made(unit, unit_opts or {}, path)
    if unit_opts and not isinstance(unit, str):
        raise LayerError("unit_opts is for units with a name", "Write the options beside the class.", "unit_opts")
    if isinstance(unit, str):
        return _cell(unit, unit_opts or {}, path, ("unit_opts",), in_loop)
    return cell_of(unit, path, in_loop=in_loop)


def again(unit: object) -> Any:
    """What describes the same cells once more, with copies of objects of other systems, whose weights are new. Raises
    LayerError."""
    return _at(("unit",), lambda: copied(unit))


def cell_of(spec: object, path: Path, *, in_loop: bool = False) -> Cell:
    """The cell that a value in a config describes. Raises LayerError for what is wrong, at the path below the layer."""
    if isinstance(spec, str):
        return _cell(spec, {}, path, path, in_loop)
    if isinstance(spec, list | tuple):
        return _cell("stack", {"cells": list(spec)}, path, path, in_loop, inside=path)
    if isinstance(spec, Mapping) and "class" in spec:
        options = {str(name): value for name, value in spec.items() if name != "class"}
        if isinstance(spec["class"], str):
            return _cell(spec["class"], options, (*path, "class"), path, in_loop)
        if is_maker(spec["class"]):
            return _made(spec["class"], options, path)
    if callable(spec) and is_maker(spec):
        return _made(spec, {}, path)
    if callable(spec):
        own = own_unit(spec)
        if own is not None:
            return cell_of(own, path, in_loop=in_loop)
        return Foreign(cell=_at(path, lambda: foreign_object(spec)))
    return _fail("a cell is a name, a dict with a 'class', or a list of cells", "Write one.", path)


def cells_of(specs: Iterable[object], path: Path, *, in_loop: bool = False) -> list[Cell]:
    """Those of a list at a path. Raises LayerError with the mistakes of all of them."""
    cells: list[Cell] = []
    wrong: list[LayerError] = []
    for place, spec in enumerate(specs):
        try:
            cells.append(cell_of(spec, (*path, place), in_loop=in_loop))
        except LayerError as error:
            wrong.append(error)
    raise_all(wrong)
    return cells


def _cell(
    text: str, options: Mapping[str, Any], at_name: Path, path: Path, in_loop: bool, inside: Path | None = None
) -> Cell:
    """A cell of a name; `inside` is where those inside of it are, if their option is not in the config."""
    name = known_name(text)
    if name is None:
        make = _at(at_name, lambda: entered(text))
        if make is not None:
            return _made(make, options, path)
        _fail(f"the unit '{text}' is not supported", _other_name(text), at_name)
    name = IN_LOOP.get(name, name) if in_loop else name
    cls = cell_class(name)
    given = cls.renamed({**cls.presets.get(name, {}), **options})
    known = option_names(cls)
    wrong = [
        _mistake(f"'{option}' is not an option of {text}", f"It has {', '.join(known)}.", (*path, option))
        for option in given
        if option not in known
    ]
    for option in options_with_kind(cls, "cell"):
        if option in given:
            try:
                given[option] = _inner(cls, option, given[option], inside or (*path, option), in_loop)
            except LayerError as error:
                wrong.append(error)
                del given[option]

    for option in options_with_kind(cls, "activation"):
        if isinstance(function := given.get(option), str):
            given[option] = cls.functions.get(name, {}).get(function, function)

    def report(option: str, message: str, hint: str) -> None:
        if option in given or not wrong:  # else what is wrong may be it
            wrong.append(_mistake(message, hint, (*path, option)))

    cell = decode(cls, given, report, meant_options(options, known))
    raise_all(wrong)
    assert cell is not None
    return cell


def _made(make: Callable[..., Any], options: Mapping[str, Any], path: Path) -> Cell:
    """The cell of another system that a class or function makes."""
    name = getattr(make, "__name__", "the unit")
    return Foreign(cell=_at(path, lambda: foreign_cell(make, options, name)))


def _at(path: Path, find: Callable[[], Found]) -> Found:
    """What is found, with a CellError as a mistake at the path."""
    try:
        return find()
    except CellError as error:
        _fail(error.message, error.hint, path)


def _inner(cls: type[Cell], option: str, value: object, path: Path, in_loop: bool) -> Cell | list[Cell]:
    """The cell or the cells inside of another."""
    if option not in cls.lists_of_cells:
        return cell_of(value, path, in_loop=in_loop)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        _fail(f"'{option}' is a list of cells", "", path)
    return cells_of(value, path, in_loop=in_loop)


def _other_name(text: str) -> str:
    name = text.lower().removesuffix("cell")
    if name.startswith("twod"):
        return "It goes over two sequences: use the layer class twod_lstm."
    instead = recurrence_instead(text)
    if instead is not None:
        return instead
    entered = entered_names()
    found = nearest_hint(name, [*NAMES, *entered]).strip()
    return found or f"Use one of {', '.join([*(cls.cell_names[0] for cls in all_cells()), *entered])}."


def _fail(message: str, hint: str, path: Path) -> NoReturn:
    raise _mistake(message, hint, path)


def _mistake(message: str, hint: str, path: Path) -> LayerError:
    return LayerError(message, hint, str(path[0]), path[1:])
