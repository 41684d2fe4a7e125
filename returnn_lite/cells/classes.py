"""A class for each name of a unit, made from the table of cells."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import keras

from returnn_lite.cells.cell import Cell
from returnn_lite.config.decode import option_names
from returnn_lite.layers.cells.registry import NAMES, cell_class, known_name


class NamedCell(Cell):
    """A `Cell` whose unit is that of the class. Its first argument is `units`, or the cell or cells inside."""

    name_of_unit: ClassVar[str]
    first: ClassVar[str]

    def __init__(self, first: Any = None, /, **options: Any) -> None:
        given = {} if first is None else {self.first: first}
        super().__init__(self.name_of_unit, **given, **options)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        unit = config.pop("unit")
        return {**config, **{name: value for name, value in unit.items() if name != "class"}}


def _class_named(name: str) -> type[NamedCell]:
    unit = cell_class(name)
    options = option_names(unit)
    first = next(option for option in ("cells", "cell", "units") if option in options)
    doc = f"{(unit.__doc__ or '').strip()}\n\n    As a Keras cell: see `Cell`. The first argument is `{first}`."
    made = type(name, (NamedCell,), {"name_of_unit": name, "first": first, "__doc__": doc, "__module__": __name__})
    registered: type[NamedCell] = keras.saving.register_keras_serializable("returnn_lite", name)(made)
    return registered


CLASSES: Mapping[str, type[NamedCell]] = MappingProxyType(
    {name: _class_named(name) for name in NAMES if "." not in name}
)
"""By the names of units, but for those with a dot, which say another system."""


def class_called(name: str) -> type[NamedCell] | None:
    """The class of a unit in any spelling that a config may have: `LSTM`, `NASCell`; None if there is none."""
    return CLASSES.get(known_name(name) or "")
