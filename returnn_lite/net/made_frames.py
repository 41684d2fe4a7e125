"""Layers under a mask with frames that each step makes anew: there may be more or fewer of them at the next true step,
so that they are there only under the mask. Nothing can be held between its true steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from returnn_lite.dims import Dim
from returnn_lite.ir import Clock
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError
from returnn_lite.net.scope import Scope


def outside_of_mask(dim: Dim, clock: Clock) -> tuple[str, str]:
    """What is wrong with reading a dim outside of the masks under which it is made, and what to do."""
    mask = clock[-1].value.name.partition(":")[0]  # of the layer
    return (
        f"there may be other frames ({dim}) each time that the mask '{mask}' is true, so that they can't be held until "
        "then, but here they are read at other steps",
        "Reduce or pick frames under the mask: in the 'unit', or in a masked_computation with the same mask.",
    )


def layers_of_all_steps(body: Scope) -> Iterator[tuple[str, View]]:
    """The layers of a loop and their parts that each step has, by path. Reports those that are results of the loop but
    are there only under a mask."""
    under_mask = body.context.builder.clock_of_frames
    for name, outputs in body.built.items():
        spec = body.spec.layers[name]
        if (made := under_mask(outputs.value)) is None:
            yield f"{body.path}/{name}", outputs.value
        elif name == "output" or spec.common.output.is_output_layer or spec.common.output.need_last:
            body.failed.add(name)
            body.context.report(spec, LayerError(*outside_of_mask(*made)))
    for name, outputs in body.built.items():
        for part, value in outputs.parts.items():
            if under_mask(value) is None:
                yield f"{body.path}/{name}/{part}", value
