"""The LSTM with layer normalisation at several places (Ba et al. 2016): `layernormvariantslstm`."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.config.options import Activation, option
from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.reduction import Normalize
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.cell import Cell
from returnn_lite.layers.cells.unit import States, Unit

EXCLUSIVE = ("global_norm", "global_norm_joined", "per_gate_norm")


class LayerNormVariantsLstm(Cell, names=("layernormvariantslstm",)):
    """W_ff [in, 4n], W_re [n, 4n] (`with_concat`: W_ff_re over both); gates i, j, f, o; gamma_* and beta_* of norms.

    There is a bias only where no norm with a beta comes before the gates. `forget_bias` is what it starts with for the
    forget gate; the beta of a norm for all gates starts higher as a whole, as in RETURNN.
    """

    paper = "Ba et al. 2016"
    keys = ("h", "c")

    global_norm: bool = option("norm of the products of the source and of h apart", default=True)
    global_norm_joined: bool = option("norm of their sum", default=False)
    per_gate_norm: bool = option("norm of each gate", default=False)
    cell_norm: bool = option("norm of the cell state that is kept", default=True)
    cell_norm_in_output: bool = option("and of that of the output, too", default=True)
    hidden_norm: bool = option("norm of the output", default=False)
    with_concat: bool = option("one kernel for the source and h", default=False)
    norm_gain: float = option("what gamma starts with", default=1.0)
    norm_shift: float = option("what beta starts with", default=0.0)
    forget_bias: float = option("what the bias of the forget gate starts with", default=0.0, least=0)
    activation: Activation | None = option("the activation function", default="tanh")
    dropout: float = option("of what is added to the cell state, anew at each step", default=0.0, least=0, below=1)
    dropout_h: float = option("of the h before, one mask for all steps", default=0.0, least=0, below=1)
    variance_epsilon: float = option("added to the variance", default=1e-12, least=0)

    def unit(self, b: CellBuilder, x: View, out: Dim) -> Unit:
        self._check(b)
        recurrent = b.rows(out)
        gates = linear_dim([(out, 4)], 0)
        if self.with_concat:
            for_x, for_h = b.joint_kernel("W_ff_re", x, recurrent, gates)
        else:
            for_x = b.param("W_ff", (b.source(x), gates), b.inits.input)
            for_h = b.param("W_re", (recurrent, gates), b.inits.recurrent)
        z = b.input_product(x, for_x)
        if self.global_norm:
            z = self._norm(b, z, gates, "input_below")
        elif not self.global_norm_joined and not self.per_gate_norm:
            name = "bias_ff_re" if self.with_concat else "bias_ff"
            z = b.add(z, b.param(name, (gates,), b.bias_blocks("forget_bias", (0.0, 0.0, self.forget_bias, 0.0))))
        mask_h = b.sequence_mask("dropout_h", self.dropout_h, out)

        def step(now: Sequence[View], before: States) -> tuple[View, States]:
            h = before["h"] if mask_h is None else b.mul(before["h"], mask_h)
            from_h = b.recurrent_product(h, for_h, out, recurrent)
            if self.global_norm:
                from_h = self._norm(b, from_h, gates, "state_below")
            return self._arithmetic(b, b.add(now[0], from_h), before["c"], gates, out)

        return Unit((z,), step)

    def _check(self, b: CellBuilder) -> None:
        b.require_input_projection()
        chosen = [name for name in EXCLUSIVE if getattr(self, name)]
        if len(chosen) > 1:
            b.fail(f"{' and '.join(chosen)} exclude each other", "Set all but one to false.")
        if self.with_concat and self.global_norm:
            b.fail("with_concat leaves no products to norm apart", "Set global_norm to false.")

    def _arithmetic(self, b: CellBuilder, total: View, old: View, gates: Dim, out: Dim) -> tuple[View, States]:
        """The output and the states from the sum of the products and the cell state before."""
        if self.global_norm_joined:
            total = self._norm(b, total, gates, "lstm_in")
        parts = b.blocks(total, gates, out, "ijfo")
        if self.per_gate_norm:
            parts = {name: self._norm(b, part, out, f"{name}_gate") for name, part in parts.items()}
        i, f, o = (b.unary("sigmoid", parts[name]) for name in "ifo")
        candidate = self._dropped(b, b.activation(self.activation or "tanh", parts["j"]))
        c = b.add(b.mul(f, old), b.mul(i, candidate))
        kept = self._norm(b, c, out, "new_c") if self.cell_norm else c
        h = b.mul(o, b.activation(self.activation or "tanh", kept if self.cell_norm_in_output else c))
        if self.hidden_norm:
            h = self._norm(b, h, out, "new_h")
        return h, {"h": h, "c": kept}

    def _norm(self, b: CellBuilder, x: View, over: Dim, name: str) -> View:
        """(x - mean) / sqrt(variance + epsilon) * gamma + beta; the norm of h's product has no beta, its sum has
        one."""
        y = b.mul(
            b.apply(Normalize((over,), self.variance_epsilon), x), b.param(f"gamma_{name}", (over,), self.norm_gain)
        )
        if name == "state_below":
            return y
        more = self.forget_bias if name in ("input_below", "lstm_in", "f_gate") else 0.0
        return b.add(y, b.param(f"beta_{name}", (over,), self.norm_shift + more))

    def _dropped(self, b: CellBuilder, candidate: View) -> View:
        """Dropout on what is added to the cell state, anew at each step (Semeniuta et al. 2016)."""
        if not self.dropout or not b.mode.train:
            return candidate
        dims = tuple(dict.fromkeys((b.batch, *candidate.type.dims)))
        return b.mul(candidate, b.kept_or_zero(dims, self.dropout, "dropout", fresh=True))


CELLS = (LayerNormVariantsLstm,)
