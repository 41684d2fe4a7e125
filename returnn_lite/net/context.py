"""What one compilation of a network shares: mode, data, parameters, and what has been collected on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from returnn_lite.config.diagnostics import AnyPath, Diagnostic, Position
from returnn_lite.dims import Dim, DimError, Unknown
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.layer_reads import CellRecord, Read
from returnn_lite.ir.ops.sources import Parameter
from returnn_lite.ir.reachability import reachable
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Hypotheses, Layer, LayerError, Mode, Recomputed
from returnn_lite.layers.preactivations import Preactivations
from returnn_lite.net.extern_data import ExternData

Found = MutableMapping[int, tuple[Mapping[Any, Any], tuple[str, ...]]]
"""Nested networks by the identity of their dicts, with what they refer to around them: each is looked through once."""


class NotChecked(Exception):
    """A layer that can't be built because one that it needs failed: one mistake is one message."""


class Unavailable(Exception):
    """A layer that needs data which this mode does not have: targets, in search and forward."""


@dataclass(frozen=True)
class LossValue:
    """One loss, unreduced, outside of all loops.

    `count` is what the sums are divided by in reports, to be summed as well; a number for the entire batch; None for
    the number of frames. With `mean` the objective is divided by it, too.
    """

    name: str
    value: View | None
    error: View | None
    count: View | float | None
    scale: float
    mean: bool = False


@dataclass(frozen=True)
class OutputConstraint(LossValue):
    """A term of the objective that is no loss: the sum over all frames, of which the largest along a dim if one is
    given."""

    largest_along: Dim | None = None


class Located(Protocol):
    """A layer with its place in the config."""

    @property
    def name(self) -> str:
        """Its name in its network."""

    @property
    def path(self) -> AnyPath:
        """Where its options are."""


@dataclass(frozen=True)
class BuiltLayers:
    """What has been built, by the paths of layers: their values, with all steps where they are outside of loops and as
    they are inside (`of_step`), and what stands beyond the ends of their sequences; their classes, and cells; what they
    read, and whether that is a source; where their options are, and what these say is recomputed; and the names of
    values, and the optimizer options of parameters, that follow from them."""

    values: dict[str, View] = field(default_factory=dict)
    of_step: dict[str, View] = field(default_factory=dict)
    beyond: dict[str, View] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    cells: dict[str, tuple[CellRecord, ...]] = field(default_factory=dict)
    reads: dict[str, dict[Read, bool]] = field(default_factory=dict)
    config_paths: dict[str, AnyPath] = field(default_factory=dict)
    recomputed: dict[str, Recomputed] = field(default_factory=dict)
    names: dict[View, str] = field(default_factory=dict)
    updater_opts: dict[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class BuiltParameters:
    """The parameters by name, with their values, and the names of those that each layer has by its path."""

    by_name: dict[str, tuple[Parameter, View]] = field(default_factory=dict)
    of_layers: dict[str, list[str]] = field(default_factory=dict)
    borrowed: dict[str, tuple[Located, LayerError]] = field(default_factory=dict)
    """Those whose owner has yet to be built and say how they begin: who shares each, and what is wrong if the owner has
    none of that name."""
    owners: dict[str, dict[str, None]] = field(default_factory=dict)
    """By path, what is right inside of it and has parameters, or has layers inside that do."""

    def names_of(self, path: str) -> list[str]:
        """The names of those of a layer, to which more are added."""
        if path not in self.of_layers:
            self.of_layers[path] = []
            self._add_owner(path)
        return self.of_layers[path]

    def _add_owner(self, path: str) -> None:
        """Says of all that is around a layer that it is in there."""
        is_known = False
        while "/" in path and not is_known:
            around = path.rpartition("/")[0]
            is_known = around in self.owners
            self.owners.setdefault(around, {})[path] = None
            path = around

    def names_below(self, path: str) -> list[str]:
        """The names of those of a layer, and of the layers inside of it."""
        inside = reachable([path], lambda around: reversed(self.owners.get(around, {})))
        return list(dict.fromkeys(name for owner in inside for name in self.of_layers.get(owner, ())))


@dataclass(frozen=True)
class DimsToFind:
    """What unknown dims are, as far as that has been found."""

    solved: dict[Dim, Dim] = field(default_factory=dict)
    assumed: dict[Dim, Located] = field(default_factory=dict)
    """The features of `prev:x`, and x, where nothing said what they are when they were read."""


@dataclass(frozen=True)
class NetworkContext:
    """What is given for a compilation, and what building the network collects."""

    builder: Builder
    preactivations: Preactivations
    mode: Mode
    behavior_version: int
    extern_data: ExternData
    layer_classes: Mapping[str, type[Layer]]
    default_target: str | None
    locate: Callable[[AnyPath], Position | None]
    functions: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    registered: Collection[str] = ()
    """The data keys that layers publish, whether or not these are built yet."""

    # Collected
    diagnostics: list[Diagnostic] = field(default_factory=list)
    layers: BuiltLayers = field(default_factory=BuiltLayers)
    parameters: BuiltParameters = field(default_factory=BuiltParameters)
    dims: DimsToFind = field(default_factory=DimsToFind)
    losses: list[LossValue] = field(default_factory=list)
    constraints: list[tuple[float, View]] = field(default_factory=list)
    hypotheses: list[Hypotheses] = field(default_factory=list)
    data_values: dict[str, View] = field(default_factory=dict)
    published: dict[str, View] = field(default_factory=dict)
    outward: Found = field(default_factory=dict)

    def report_at(self, path: AnyPath, message: str, hint: str) -> None:
        """Collects a mistake at a config path; the same one only once."""
        diagnostic = Diagnostic(self.locate(path), tuple(path), message, hint)
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    def report(self, spec: Located, error: LayerError | DimError) -> None:
        """Collects a mistake in one layer, at the option that is wrong if that is known."""
        if isinstance(error, LayerError):
            self.report_at((*spec.path, *error.path), error.message, error.hint)
        else:
            self.report_at(spec.path, str(error), "")

    def solve(self, unknown: Dim, known: Dim) -> None:
        """Records that an unknown dim is this one."""
        assert isinstance(unknown, Unknown)
        self.dims.solved[unknown] = known

    def data(self, key: str) -> View:
        """The graph input of a data key; made when first asked for."""
        if key not in self.data_values:
            self.data_values[key] = self.builder.input(key, self.extern_data.entries[key].type)
        return self.data_values[key]
