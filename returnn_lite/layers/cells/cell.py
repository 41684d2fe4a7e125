"""What a recurrent cell is: a class with typed options whose `unit` makes its parameters and says how a step goes.

A cell is written once, as one step in primitives; the same step runs in the body of a loop and over whole sequences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, dataclass_transform

from returnn_lite.config.options import Kind, option
from returnn_lite.dims import Dim, MarkedType
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import DimsOfStates, Unit

InnerCell = Annotated["Cell", Kind("cell")]
"""An option that is a cell: a `CellSpec` in a config."""
InnerCells = Annotated["list[Cell]", Kind("cell")]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option,))
class Cell:
    """Base of the cells. A subclass annotates its options and implements `unit`."""

    cell_names: ClassVar[tuple[str, ...]] = ()
    """The names in configs, the field's first, then those of other systems; in lower case, without `cell`."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By name, the options that this name fixes where a config does not."""
    functions: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """By name, the activation functions that the system of this name calls otherwise, and their names here."""
    old_options: ClassVar[Mapping[str, str]] = {"num_units": "units", "hidden_size": "units"}
    """Other systems' names of options, and ours."""
    paper: ClassVar[str] = ""
    """Where the formula is from."""
    keys: ClassVar[tuple[str, ...]] = ("h",)
    """Of the states."""
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    """What the cell reads. The sources of a cell with several inputs are not joined: each is one of them."""
    lists_of_cells: ClassVar[tuple[str, ...]] = ()
    """The options that are lists of cells; others of the kind are one."""

    sees_beside_h: ClassVar[bool] = False
    """Whether its recurrent weights can see more than h: `CellBuilder.beside_h`."""

    units: int | None = option("size of the state; default: that of the layer's output", default=None, least=1)

    def __init_subclass__(
        cls, names: Sequence[str] = (), presets: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init_subclass__()
        if names:
            cls.cell_names = tuple(names)
        if presets is not None:
            cls.presets = presets
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)

    @classmethod
    def renamed(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with our names for those of other systems."""
        return {cls.old_options.get(name, name): value for name, value in options.items()}

    @property
    def called(self) -> str:
        """What messages call it."""
        return self.cell_names[0]

    def state_keys(self) -> tuple[str, ...]:
        """The keys of the states, known without building."""
        return self.keys

    def input_names(self) -> tuple[str, ...]:
        """The inputs: those of the class, or of the cell inside that reads the sources."""
        return self.inputs

    def reads_labels(self) -> bool:
        """Whether the source is class indices: of the cell inside that reads it."""
        return False

    def out_size(self) -> int | None:
        """The size of the output's feature dim; None if the layer says it."""
        return self.units

    def out_size_on(self, x: MarkedType) -> int | None:
        """The same, of a cell on a source of this type."""
        return self.out_size()

    def states(self, b: CellBuilder, x: MarkedType, out: Dim) -> DimsOfStates:
        """The dims of the states of a cell on a source of this type, whose output has the feature dim `out`."""
        return dict.fromkeys(self.keys, (out,))

    def output(self, b: CellBuilder, x: MarkedType, out: Dim) -> tuple[Dim, ...]:
        """The dims of the output, without those of sequences and frames: it has the spatial dims of the source."""
        return (*b.places(x), out)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        """The cell on a source, at one frame or at all; the source has no dim `out`. Raises LayerError."""
        raise TypeError(f"{type(self).__name__} makes no unit")

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        """The cell on as many sources as it has inputs. One with several implements this in place of `unit`."""
        if len(inputs) != 1:
            names = ", ".join(self.input_names())
            hint = "Leave it out, or put the cell in a list: the first cell reads all sources, the next its output."
            b.fail(f"'{self.called}' is for cells of one source; that inside reads {names}", hint)
        return self.unit(b, inputs[0], out)


dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(Cell)
