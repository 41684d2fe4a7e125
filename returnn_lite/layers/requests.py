"""What a layer asks for while it builds: layers inside of it, which are built while it waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from returnn_lite.config.options import AxisSpec
from returnn_lite.ir.views import View


@dataclass(frozen=True)
class NetworkRequest:
    """Nested layers under the layer that is being built, from one of its options; the answer are all by name.

    `inputs` are what `data`, `data:0`, ... mean inside; `load_on_init` is the checkpoint that its parameters
    begin with.
    """

    layers: Mapping[str, Any]
    inputs: Mapping[str, View]
    option: str
    load_on_init: object = None


@dataclass(frozen=True)
class UnitRequest:
    """One nested layer, whose parameters have the names of the layer that is being built; the answer is what it makes.

    It may refer to what this layer may refer to, and gets the values of that as `seen` converts them.
    """

    options: Mapping[str, Any]
    inputs: Mapping[str, View]
    seen: Callable[[View], View]
    option: str


@dataclass(frozen=True)
class LoopRequest:
    """The body of a rec layer; the answer is its stacked output, with the layers that the outside may see as parts."""

    layers: Mapping[str, Any]
    source: View | None
    axis: AxisSpec | None
    max_seq_len: int | str | View | None
    include_eos: bool
    unroll: int
