"""The order in which the dims of a value are declared: what literal axis numbers count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from returnn_lite.config.options import AxisSpec, option
from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.expression_items import axes_in_order


class Transpose(Layer, names=("transpose",)):
    """The source with its axes in another order. Axes keep their meaning; only literal axis numbers see a difference.

    `perm` says for places (a number, or the axis that is there) which axis comes to them; the others keep their order.
    Or it lists all axes.
    """

    joins_sources = True
    keeps_type_of = "from"

    perm: dict[Any, AxisSpec] | list[AxisSpec] = option("from places to axes, or all axes in order")

    def build(self, b: LayerBuilder, x: View) -> View:
        before = axes_in_order(b, x)
        if isinstance(self.perm, Mapping):
            order = self._placed(b, x, before)
        else:
            order = [b.axis(item, x) for item in self.perm]
        if sorted(map(before.index, order)) != list(range(len(before))):
            listed = ", ".join(map(str, order))
            b.fail(f"not each axis of {x.type} once: {listed}", "leave out what stays in its order", "perm")
        return b.reorder(x, order)

    def _placed(self, b: LayerBuilder, x: View, before: tuple[Dim, ...]) -> list[Dim]:
        places: dict[int, Dim] = {}
        for target, source in self.perm.items():  # type: ignore[union-attr]
            place = self._place(b, x, before, target)
            if place in places:
                b.fail(f"two axes for the place {place}", "", "perm")
            places[place] = b.axis(source, x)
        others = iter([dim for dim in before if dim not in places.values()])
        order = [places[i] if i in places else next(others, None) for i in range(len(before))]
        return [dim for dim in order if dim is not None]

    def _place(self, b: LayerBuilder, x: View, before: tuple[Dim, ...], target: Any) -> int:
        if isinstance(target, int) and not isinstance(target, bool):
            if not -len(before) <= target < len(before):
                b.fail(f"there is no axis {target} in {x.type} of {len(before)} dims", option="perm")
            return target % len(before)
        return before.index(b.axis(target, x))


LAYERS = (Transpose,)
