"""The LSTM whose gates are computed in groups of features that do not see each other (Kuchaiev and Ginsburg 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from returnn_lite.config.options import Activation, Init, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.axes import Squeeze
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.lstm_arithmetic import LstmArithmetic
from returnn_lite.layers.cells.projected import Projected
from returnn_lite.layers.cells.unit import States, Unit

ORDER = "ijfo"


class GroupLstm(Projected, names=("glstm", "grouplstm")):
    """Part g of the gates is a function of parts g of x and h alone; the candidate is always tanh(j).

    kernel [groups, (in+n)/groups, 4n/groups], gates i, j, f, o in each group; bias [4n], gates i, j, f, o.
    """

    paper = "Kuchaiev and Ginsburg 2017"
    old_options: ClassVar[Mapping[str, str]] = {**Projected.old_options, "number_of_groups": "groups"}

    groups: int = option("of features: of the source, of c and of h", default=1, least=1)
    forget_bias: float = option("what is added to the forget gate", default=1.0)
    activation: Activation | None = option("that of the cell state", default="tanh")
    initializer: Init | None = option("what all weights start with, where the layer says nothing", default=None)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        b = b.starting_with(self.initializer)
        hidden = self.hidden(b, out)
        groups, of_source, of_h = b.dim("groups", self.groups), self._part(b, x, b.source(x)), self._part(b, x, out)
        part = self._part(b, x, hidden)
        gates = linear_dim([(part, len(ORDER))], 0)
        rows = linear_dim([(of_source, 1), (of_h, 1)], 0)
        kernel = b.param("kernel", (groups, rows, gates), b.inits.input, in_dims=(rows,), out_dims=(gates,))
        for_x, for_h = b.slice(kernel, rows, 0, of_source), b.slice(kernel, rows, of_source, of_h)
        all_gates = linear_dim([(hidden, len(ORDER))], 0)
        bias = b.param("bias", (all_gates,), b.inits.bias)
        single = b.dim("group", 1)

        def products(value: View, of: Dim, inside: Dim, weights: View) -> list[View]:
            """The gates of each group of a value: products of their own, which cores do side by side."""
            parts = b.split(value, of, [inside] * self.groups)
            kernels = [b.apply(Squeeze(single), one) for one in b.split(weights, groups, [single] * self.groups)]
            return [b.dot(one, kernel, inside) for one, kernel in zip(parts, kernels, strict=True)]

        arithmetic = LstmArithmetic(
            hidden,
            self.forget_bias,
            self.activation or "tanh",
            candidate_activation="tanh",
            projection=self.projector(b, "projection/kernel", out),
        )

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            of_groups = map(b.add, now, products(before["h"], out, of_h, for_h))
            by_gate = zip(*(b.split(one, gates, [part] * len(ORDER)) for one in of_groups), strict=True)
            joined = [b.concat([(block, part) for block in blocks], hidden) for blocks in by_gate]
            found = {name: b.with_feature(gate, hidden) for name, gate in zip(ORDER, joined, strict=True)}
            return arithmetic.after(b, found, before["c"])

        of_gates = b.split(bias, all_gates, [part] * len(ORDER) * self.groups)
        biases = [b.concat([(one, part) for one in of_gates[g :: self.groups]], gates) for g in range(self.groups)]
        return Unit(tuple(map(b.add, products(x, b.source(x), of_source, for_x), biases)), step)

    def _part(self, b: CellBuilder, x: View, of: Dim) -> Dim:
        """The dim of one group of the features of the source, of c or of h."""
        if x.type.sparse is not None:
            b.fail(f"labels are in no groups: {x.type}", "Put an embedding, a linear layer, before it.")
        if of.size is None or of.size % self.groups:
            b.fail(f"{of.size} features of {of} are not in {self.groups} groups of one size", "Choose another number.")
        return b.dim(f"part of {of}", of.size // self.groups)


CELLS = (GroupLstm,)
