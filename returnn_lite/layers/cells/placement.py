"""A cell on a device."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from returnn_lite.config.options import option
from returnn_lite.dims import Dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.unit import States, Steps, Unit
from returnn_lite.layers.cells.wrapping import Wrapper, named_states, unit_on

DEVICE = re.compile(r"(/job:\w+)?(/replica:\d+)?(/task:\d+)?/?(device:)?[A-Za-z]+:\d+")
"""A device's name as TensorFlow has it: /cpu:0, /device:GPU:1."""


class Device(Wrapper, names=("device", "rnncelldevice")):
    """The cell inside with its operations on a device; the result is the same.

    Parameters stay where the backend has them. What the optimiser takes out of a loop stays on the device, but where it
    joins several products to one, one of them says where. A device that the machine does not have is an error when the
    network is compiled for TensorFlow.
    """

    paper = "Abadi et al. 2016"

    device: str = option("the name of the device, such as /cpu:0 or /gpu:1")

    def unit_of_inputs(self, b: CellBuilder, inputs: Sequence[View], out: Dim) -> Unit:
        if not DEVICE.fullmatch(self.device):
            b.fail(f"'{self.device}' is no device", "A device is called /cpu:0, /gpu:1 and so on.")

        @contextmanager
        def placed() -> Iterator[None]:
            with b.ir.within(replace(b.ir.origin, device=self.device)):
                yield

        with placed():
            unit = named_states("cell", unit_on(b.inside("cell"), self.cell, inputs, out))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            with placed():
                return unit.step(now, before)

        def whole(steps: Steps, before: States) -> tuple[View, States]:
            assert unit.whole is not None
            with placed():
                return unit.whole(steps, before)

        return Unit(unit.inputs, step, whole if unit.whole is not None else None)


CELLS = (Device,)
