"""The gated recurrent unit (Cho et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.recurrent_cells import GruCell, GruStep, ResetAfterGruCell, ResetAfterGruStep
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit


class Gru(
    Cell,
    names=("gru", "grublock", "grublockv2", "grublockcellv2", "cudnncompatiblegru", "cudnngru"),
    presets={name: {"reset_after": True} for name in ("cudnncompatiblegru", "cudnngru")},
):
    """r, u = sigmoid([x, h] W_gates + b); h' = u*h + (1-u)*activation([x, r*h] W_candidate + b).

    gates/kernel [in+n, 2n] with r, u and bias 1; candidate/kernel [in+n, n]. With `reset_after` the candidate is
    activation(x W + b + r*(h W' + b')): candidate/input_projection/ and candidate/hidden_projection/ have a kernel and
    a bias each.
    """

    paper = "Cho et al. 2014"

    activation: Activation | None = option("the activation function of the candidate", default="tanh")
    recurrent_activation: Activation | None = option("the activation function of the gates", default="sigmoid")
    reset_after: bool = option("r is multiplied with the product of h and its weights, not with h", default=False)
    use_bias: bool = option("whether there are biases", default=True)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        b.require_input_projection()
        recurrent = b.rows(out)
        gates = linear_dim([(out, 2)], 0)
        wx, wh = b.joint_kernel("gru_cell/gates/kernel", x, recurrent, gates)
        bias = b.param("gru_cell/gates/bias", (gates,), b.inits.bias_or(1.0)) if self.use_bias else None
        if self.reset_after:
            return self._reset_after(b, x, wx, wh, bias, out)
        z = b.input_product(x, wx, bias)
        cx, ch = b.joint_kernel("gru_cell/candidate/kernel", x, recurrent, out)
        bias = b.param("gru_cell/candidate/bias", (out,), b.inits.bias) if self.use_bias else None
        candidate = b.input_product(x, cx, bias)
        if not self._other_functions():
            return b.fused((z, candidate), (wh, ch), ("h",), out, GruStep(GruCell(out, recurrent, gates)))

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h = before["h"]
            r, u = self._gates(b, b.add(now[0], b.recurrent_product(h, wh, out, recurrent)), gates, out)
            seen = b.recurrent_product(b.mul(r, h), ch, out, recurrent)
            return self._next(b, u, h, b.add(now[1], seen))

        return b.stepwise((z, candidate), step, self._other_functions())

    def _reset_after(self, b: CellBuilder, x: View, wx: View, wh: View, bias: View | None, out: Dim) -> Unit:
        """The unit from the gates' weights for the source and for h, and their bias."""
        (recurrent, gates) = wh.type.dims
        biases = {}
        if self.use_bias:
            names = {key: f"gru_cell/candidate/{key}_projection/bias" for key in ("input", "hidden")}
            biases = {key: b.param(name, (out,), b.inits.bias) for key, name in names.items()}
        cx = b.param("gru_cell/candidate/input_projection/kernel", (b.source(x), out), b.inits.input)
        ch = b.param("gru_cell/candidate/hidden_projection/kernel", (recurrent, out), b.inits.recurrent)
        if not self._other_functions():
            return self._fused_reset_after(b, x, ((wx, cx), (wh, ch)), bias, biases)
        z = b.input_product(x, wx, bias)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h = before["h"]
            r, u = self._gates(b, b.add(now[0], b.recurrent_product(h, wh, out, recurrent)), gates, out)
            seen = b.recurrent_product(h, ch, out, recurrent)
            seen = b.add(seen, biases["hidden"]) if biases else seen
            return self._next(b, u, h, b.add(now[1], b.mul(r, seen)))

        candidate = b.input_product(x, cx, biases.get("input"))
        return b.stepwise((z, candidate), step, self._other_functions())

    def _fused_reset_after(
        self,
        b: CellBuilder,
        x: View,
        weights: tuple[tuple[View, View], tuple[View, View]],
        bias: View | None,
        biases: Mapping[str, View],
    ) -> Unit:
        """One primitive of the weights for the source and for h, each those of the gates and of the candidate."""
        (of_x, of_h), dims = weights, weights[1][0].type.dims
        gates, out = (pair[-1] for pair in (dims, of_h[1].type.dims))
        all_gates = linear_dim([(out, 3)], 0)

        def joined(gate_part: View, candidate: View) -> View:
            return b.concat([(gate_part, gates), (candidate, out)], all_gates)

        zeros = b.constant(0.0, "float32", (gates,))
        bias_x = None if bias is None else joined(bias, biases["input"])
        bias_h = b.constant(0.0, "float32", (all_gates,)) if not biases else joined(zeros, biases["hidden"])
        z = b.input_product(x, joined(*of_x), bias_x)
        step = ResetAfterGruStep(ResetAfterGruCell(out, dims[0], all_gates))
        return b.fused((z,), (joined(*of_h), bias_h), ("h",), out, step)

    def _other_functions(self) -> list[str]:
        """The options that say other functions than those of the primitives."""
        usual = {"activation": "tanh", "recurrent_activation": "sigmoid"}
        return [name for name, function in usual.items() if getattr(self, name) not in (function, None)]

    def _gates(self, b: CellBuilder, total: View, gates: Dim, out: Dim) -> tuple[View, View]:
        r, u = b.blocks(b.activation(self.recurrent_activation or "sigmoid", total), gates, out, "ru").values()
        return r, u

    def _next(self, b: CellBuilder, u: View, h: View, candidate: View) -> tuple[View, States]:
        h = b.mixture(u, h, b.activation(self.activation or "tanh", candidate))
        return h, {"h": h}


CELLS = (Gru,)
