"""A block of a grid LSTM: along its steps of frequency it has one LSTM in time and one along frequency, whose gates see
both (Kalchbrenner et al. 2015; Li and Sainath 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.cells.builder import CellBuilder
from returnn_lite.layers.cells.frequency_steps import at_steps, by_step
from returnn_lite.layers.cells.unit import States, Unit

NAMES = {"f": "freq", "t": "time"}
"""The two LSTMs, along frequency and in time, and what their peepholes are called."""


@dataclass(frozen=True)
class GridArithmetic:
    """How the gates of a grid LSTM go."""

    shared: bool
    """Both LSTMs have the gates of the one along frequency."""
    coupled: bool
    """The forget gate is what the input gate leaves."""
    forget_bias: float
    peephole: bool
    cell_clip: float | None

    @property
    def order(self) -> str:
        """The gates in the columns of the weights."""
        return "ijo" if self.coupled else "ijfo"

    @property
    def sets(self) -> str:
        """The LSTMs with gates of their own."""
        return "f" if self.shared else "ft"


def block_unit(b: CellBuilder, grid: GridArithmetic, windows: View, steps: Dim, hidden: Dim) -> Unit:
    """The unit of a block on windows [steps, window]; its states h and c [steps, hidden] are those in time.

    The output has for each step the output in time and the one along frequency. The weights W_f and W_t
    [window + 2 hidden, gates] have the rows of the window, of h in time, and of h along frequency.
    """
    gates = linear_dim([(hidden, len(grid.order))], 0)
    rows = b.feature_of(windows), b.rows(hidden, "time"), b.rows(hidden, "frequency")
    kernels = {one: b.kernel_parts(f"W_{one}", rows, gates) for one in grid.sets}
    biases = {one: b.param(f"B_{one}", (gates,), b.inits.bias) for one in grid.sets}
    inputs = tuple(b.input_product(windows, kernels[one][0], biases[one]) for one in grid.sets)
    peepholes = _peepholes(b, grid, hidden)

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        in_time = {
            one: by_step(b, b.add(z, b.recurrent_product(before["h"], kernels[one][1], hidden, rows[1])), steps, gates)
            for one, z in zip(grid.sets, now, strict=True)
        }
        nothing = b.constant(0.0, before["h"].type.dtype, (hidden,))
        h = c = {"f": b.with_feature(nothing, hidden)}
        outputs: list[View] = []
        after: dict[str, list[View]] = {"h": [], "c": []}
        for k, c_in_time in enumerate(by_step(b, before["c"], steps, hidden)):
            parts = {
                one: b.blocks(
                    b.add(totals[k], b.recurrent_product(h["f"], kernels[one][2], hidden, rows[2])),
                    gates,
                    hidden,
                    grid.order,
                )
                for one, totals in in_time.items()
            }
            h, c = _at_step(b, grid, parts, {"f": c["f"], "t": c_in_time}, peepholes)
            outputs += [h["t"], h["f"]]
            after["h"].append(h["t"])
            after["c"].append(c["t"])
        y = b.concat([(part, hidden) for part in outputs])
        states = {key: at_steps(b, parts, steps, hidden) for key, parts in after.items()}
        return b.with_feature(y, linear_dim([(hidden, len(outputs))], 0)), states

    return Unit(inputs, step)


def _peepholes(b: CellBuilder, grid: GridArithmetic, hidden: Dim) -> Mapping[tuple[str, str, str], View]:
    """By gate, LSTM that it is of, and LSTM whose c it sees."""
    if not grid.peephole:
        return {}
    return {
        (gate, one, seen): b.param(f"W_{gate.upper()}_diag_{NAMES[one]}{seen}", (hidden,), b.inits.input)
        for one in grid.sets
        for gate in grid.order.replace("j", "")
        for seen in NAMES
    }


def _at_step(
    b: CellBuilder,
    grid: GridArithmetic,
    parts: Mapping[str, States],
    c: States,
    peepholes: Mapping[tuple[str, str, str], View],
) -> tuple[dict[str, View], dict[str, View]]:
    """h and c of both LSTMs after one step along frequency, from the sums of the gates of each and c of both."""

    def seen(gate: str, one: str, states: States) -> View:
        total = parts[one][gate]
        for other in states if grid.peephole else ():
            total = b.add(total, b.mul(peepholes[gate, one, other], states[other]))
        return total

    def of_both(values: Mapping[str, View]) -> dict[str, View]:
        return {one: values.get(one, values["f"]) for one in NAMES}

    i = of_both({one: b.unary("sigmoid", seen("i", one, c)) for one in parts})
    if grid.coupled:
        f = {one: b.sub(1.0, gate) for one, gate in i.items()}
    else:
        f = of_both({one: b.unary("sigmoid", b.add(seen("f", one, c), grid.forget_bias)) for one in parts})
    j = of_both({one: b.unary("tanh", parts[one]["j"]) for one in parts})
    sums = {one: b.add(b.mul(f[one], c[one]), b.mul(i[one], j[one])) for one in NAMES}
    new_c = {one: b.clipped(total, grid.cell_clip) for one, total in sums.items()}
    o = of_both({one: b.unary("sigmoid", seen("o", one, new_c)) for one in parts})
    return {one: b.mul(o[one], b.unary("tanh", new_c[one])) for one in NAMES}, new_c
