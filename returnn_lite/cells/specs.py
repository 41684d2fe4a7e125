"""What a user writes for a cell, as the plain value of an option `unit`; and as the cell that it describes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NoReturn

from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.decoding import cell_of
from returnn_lite.layers.cells.references import references_of
from returnn_lite.layers.errors import LayerError

IN_A_NETWORK = "Run it in a network of ours: {class: rec, unit: ...}."


def spec_of(unit: object, options: Mapping[str, Any]) -> Any:
    """A name with its options, a dict with a class, a list of cells, or an object that has a `unit`, in any nesting, as
    data that JSON can keep. Raises ConfigError for what it can't."""
    plain = _plain(unit, ("unit",))
    if isinstance(plain, str):
        return {"class": plain, **{name: _plain(value, ("unit", name)) for name, value in options.items()}}
    if options:
        refuse(("unit",), f"{', '.join(options)}: options are for a cell with a name", "Write them beside its class.")
    return plain


def decoded(spec: object) -> Cell:
    """The cell of a value of `unit`. Raises ConfigError for a mistake in it, and for what needs a network around."""
    for path, reference in references_of({"unit": spec}):
        what = f"the cell reads the layer '{reference}', but a loop of Keras gives a cell nothing but its source"
        refuse(path, what, IN_A_NETWORK)
    try:
        return cell_of(spec, ("unit",))
    except LayerError as error:
        raise mistake(error) from error


def mistake(error: LayerError) -> ConfigError:
    """An error of a cell as users read it."""
    return ConfigError([Diagnostic(None, error.path, error.message, error.hint)])


def refuse(path: tuple[str | int, ...], message: str, hint: str) -> NoReturn:
    """Raises ConfigError."""
    raise ConfigError([Diagnostic(None, path, message, hint)])


def _plain(value: object, path: tuple[str | int, ...]) -> Any:
    found = getattr(value, "unit", value)
    if isinstance(found, Mapping):
        return {str(name): _plain(one, (*path, str(name))) for name, one in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(one, (*path, place)) for place, one in enumerate(found)]
    if found is None or isinstance(found, str | bool | int | float):
        return found
    what = "a function" if inspect.isroutine(found) else f"a {type(found).__name__}"
    hint = "Write numbers, strings, lists and dicts, or an expression; a cell of your own into keras.layers.RNN itself."
    refuse(path, f"{what} can't be kept in a saved model", hint)
