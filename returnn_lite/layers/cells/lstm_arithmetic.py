"""The arithmetic of LSTMs: from the pre-activations of a step and the cell state to the next states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from returnn_lite.dims import Dim
from returnn_lite.ir.ops.recurrent_cells import LstmCell, LstmStep
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.projected import Projection
from returnn_lite.layers.cells.unit import States, Unit


@dataclass(frozen=True)
class LstmArithmetic:
    """c' = s(f + forget_bias + p_f*c)*c + s(i + p_i*c)*act(j); h' = s(o + p_o*c')*act(c').

    Hochreiter and Schmidhuber 1997, with forget gate: Gers et al. 2000; peepholes p: Gers and Schmidhuber 2000. c' is
    clipped where that is asked for, h' projected (Sak et al. 2014); i, j, f, o and c' (before the clip) are normalised
    by the functions of `norms`. Without a block i, the input gate is what the forget gate leaves, 1 - s(f ...) (Greff
    et al. 2015).
    """

    hidden: Dim
    forget_bias: float = 0.0
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    candidate_activation: str | None = None
    """That of j, if it is another."""
    peepholes: Mapping[str, View] = field(default_factory=dict)
    """By gate."""
    norms: Mapping[str, Callable[[View], View]] = field(default_factory=dict)
    """By gate, of c', and of all `gates` together."""
    dropped: Callable[[View], View] | None = None
    """Dropout of act(j)."""
    cell_clip: float | None = None
    projection: Projection | None = None

    @property
    def is_fused(self) -> bool:
        """Whether it is that of the primitive."""
        others = (self.candidate_activation not in (None, "tanh"), self.norms, self.dropped)
        return not any(others) and not self.unlike_primitive

    @property
    def unlike_primitive(self) -> list[str]:
        """The options of a cell because of which it is not that of the primitive."""
        said = {
            "activation": self.activation != "tanh",
            "recurrent_activation": self.recurrent_activation != "sigmoid",
            "peephole": bool(self.peepholes),
            "cell_clip": (self.cell_clip or 0.0) > 0.0,
            "projection": self.projection is not None,
        }
        return [option for option, is_other in said.items() if is_other]

    def after(self, b: CellBuilder, parts: Mapping[str, View], c: View) -> tuple[View, States]:
        """The output and the states after a step, from the pre-activations by gate and the c before."""
        parts = {name: self.normed(name, part) for name, part in parts.items()}
        f = self._gate(b, "f", b.add(parts["f"], self.forget_bias) if self.forget_bias else parts["f"], c)
        i = self._gate(b, "i", parts["i"], c) if "i" in parts else b.sub(1.0, f)
        candidate = b.activation(self.candidate_activation or self.activation, parts["j"])
        candidate = candidate if self.dropped is None else self.dropped(candidate)
        c = b.add(b.mul(f, c), b.mul(i, candidate))
        c = b.clipped(self.normed("c", c), self.cell_clip)
        m = b.mul(self._gate(b, "o", parts["o"], c), b.activation(self.activation, c))
        h = m if self.projection is None else self.projection.of(b, m)
        return h, {"h": h, "c": c}

    def normed(self, name: str, value: View) -> View:
        return self.norms[name](value) if name in self.norms else value

    def _gate(self, b: CellBuilder, name: str, part: View, c: View) -> View:
        seen = b.add(part, b.mul(self.peepholes[name], c)) if name in self.peepholes else part
        return b.activation(self.recurrent_activation, seen)


def lstm_unit(
    b: CellBuilder,
    z: View,
    weights: View,
    recurrent: Dim,
    order: str,
    arithmetic: LstmArithmetic,
    integrated: Callable[[View, View], View] | None = None,
) -> Unit:
    """An LSTM from its input product [gates] and the weights of h [recurrent, gates], whose blocks are in this order;
    one primitive where there is one for its arithmetic, and they see h only. `integrated` makes the pre-activations of
    both products, which are added by default."""
    hidden, gates = arithmetic.hidden, b.feature_of(z)
    if arithmetic.is_fused and "i" in order and integrated is None and b.beside_h is None:
        return fused_lstm(b, z, weights, LstmCell(hidden, recurrent, gates, order, arithmetic.forget_bias))
    sum_of = integrated or b.add

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        h = before["h"]
        total = sum_of(now[0], b.recurrent_product(h, weights, b.feature_of(h), recurrent))
        return arithmetic.after(b, b.blocks(arithmetic.normed("gates", total), gates, hidden, order), before["c"])

    return b.stepwise((z,), step, arithmetic.unlike_primitive)


def fused_lstm(b: CellBuilder, z: View, weights: View, cell: LstmCell) -> Unit:
    """An LSTM that is one primitive."""
    return b.fused((z,), (weights,), ("h", "c"), cell.hidden, LstmStep(cell))
