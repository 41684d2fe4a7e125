"""Where foreign cells come from: objects, classes and functions of a Python config, and what packages enter by name."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from returnn_lite.ir.foreign_cells import CellError, ForeignCell

GROUP = "returnn_lite.cells"
"""Of the entry points by which packages give cells to configs: a name, and a class or function that makes one."""


def is_maker(value: object) -> bool:
    """Whether a value is a class or a function that makes cells, no cell."""
    return callable(value) and (isinstance(value, type) or not _is_layer(value))


def own_unit(value: object) -> Any:
    """The unit that an object of `returnn_lite.cells` is; None for any other."""
    ours = any(base.__module__ == "returnn_lite.cells.cell" for base in type(value).__mro__)
    return value.unit if ours and hasattr(value, "unit") else None


def foreign_object(value: object) -> ForeignCell:
    """The cell that an object of a config is. Raises CellError for what is none."""
    from returnn_lite.keras_cells.cell import KerasCell

    return KerasCell(value, functools.partial(copy_of, value))


def foreign_cell(make: Callable[..., Any], options: Mapping[str, Any], name: str) -> ForeignCell:
    """A cell that a class or a function makes of options. Raises CellError if it fails."""
    from returnn_lite.keras_cells.cell import KerasCell

    def again() -> Any:
        return make(**options)

    try:
        cell = again()
    except Exception as error:
        hint = "The options beside the class are its arguments."
        raise CellError(f"{name} can't be made: {type(error).__name__}: {error}", hint) from error
    return KerasCell(cell, again)


def copy_of(cell: Any) -> Any:
    """A cell with the same options and new weights. Raises CellError if it does not say what its options are."""
    try:
        return type(cell).from_config(cell.get_config())
    except Exception as error:
        name = type(cell).__name__
        hint = "Write get_config, or give the class with its options, {'class': ..}, in place of the object."
        raise CellError(f"{name} can't be copied: {type(error).__name__}: {error}", hint) from error


def copied(spec: object) -> Any:
    """A value of a config that describes cells, with copies of those that are objects. Raises CellError."""
    if isinstance(spec, list | tuple):
        return [copied(one) for one in spec]
    if isinstance(spec, Mapping):
        return {key: copied(value) for key, value in spec.items()}
    return copy_of(spec) if _is_layer(spec) else spec


def entered_names() -> list[str]:
    """The names under which installed packages have entered cells."""
    return sorted(importlib.metadata.entry_points(group=GROUP).names)


def entered(name: str) -> Callable[..., Any] | None:
    """What a package has entered under a name; None if none has. Raises CellError for what can't be loaded."""
    points = importlib.metadata.entry_points(group=GROUP, name=name)
    for point in points:
        try:
            found = point.load()
        except Exception as error:
            message = f"the entry point '{name}' ({point.value}) can't be loaded: {type(error).__name__}: {error}"
            raise CellError(message, "See to it that the package is installed whole.") from error
        if not is_maker(found):
            raise CellError(f"the entry point '{name}' ({point.value}) is no class of cells", "")
        maker: Callable[..., Any] = found
        return maker
    return None


def _is_layer(value: object) -> bool:
    """Whether an object is a layer of Keras, which then has been imported; nobody asks it here."""
    bases = type(value).__mro__
    return any(base.__name__ == "Layer" and base.__module__.split(".")[0] == "keras" for base in bases)
