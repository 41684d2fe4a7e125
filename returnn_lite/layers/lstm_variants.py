"""LSTMs with more to their step than the primitive has: peepholes, clipping, zoneout; and one with other weights."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import linear_dim
from returnn_lite.ir.ops.recurrence import LstmCell, LstmStep
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.unit_parts import (
    States,
    Unit,
    UnitOptions,
    check_options,
    fused_unit,
    hidden_dims,
    input_product,
    joint_kernel,
    recurrent_product,
    require_input_projection,
)


def low_memory_lstm(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
    """The native LSTM with one kernel: W [in+n, 4n], b [4n]; gates j, i, f, o."""
    check_options(b, options, ())
    require_input_projection(b, options)
    hidden, recurrent = hidden_dims(b)
    gates = linear_dim([(hidden, 4)], 0)
    source, for_x, for_h = joint_kernel(b, "rec/W", x, recurrent, gates, options)
    z = input_product(b, x, for_x, source, b.param("rec/b", (gates,), options.bias_init))
    cell = LstmCell(hidden, recurrent, gates, "jifo")
    states = {"h": hidden, "c": hidden}
    return fused_unit(b, (z,), (for_h,), states, LstmStep(cell))


def peephole_lstm(b: LayerBuilder, z: View, weights: View, cell: LstmCell, options: UnitOptions) -> Unit:
    """An LSTM whose gates see the cell state (Gers and Schmidhuber 2000; `use_peepholes`: w_i_diag and w_f_diag the
    state before, w_o_diag the one after), whose state is clipped (`cell_clip`), or with another activation."""
    hidden = cell.hidden
    activation = options.activation(b)
    limit = options.number(b, "cell_clip", 0.0) if options.options.get("cell_clip") is not None else 0.0
    peepholes = {}
    if "use_peepholes" in options.options and options.flag(b, "use_peepholes", False):
        names = {gate: f"rec/lstm_cell/w_{gate}_diag" for gate in "ifo"}
        peepholes = {gate: b.param(name, (hidden,), options.input_init) for gate, name in names.items()}

    def seen(gate: str, part: View, state: View) -> View:
        return b.add(part, b.mul(peepholes[gate], state)) if gate in peepholes else part

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        total = b.add(now[0], recurrent_product(b, before["h"], weights, hidden, cell.recurrent))
        parts = gate_parts(b, total, cell)
        i = b.unary("sigmoid", seen("i", parts["i"], before["c"]))
        f = b.unary("sigmoid", b.add(seen("f", parts["f"], before["c"]), cell.forget_bias))
        c = b.add(b.mul(f, before["c"]), b.mul(i, b.activation(activation, parts["j"])))
        if limit:
            c = b.binary("maximum", b.binary("minimum", c, limit), -limit)
        o = b.unary("sigmoid", seen("o", parts["o"], c))
        h = b.mul(o, b.activation(activation, c))
        return h, {"h": h, "c": c}

    return Unit((z,), {"h": hidden, "c": hidden}, step)


def gate_parts(b: LayerBuilder, gates: View, cell: LstmCell) -> dict[str, View]:
    """The blocks of pre-activations by name, each with the hidden dim."""
    blocks = b.split(gates, cell.gates, [cell.hidden] * len(cell.order))
    return {name: b.with_feature(block, cell.hidden) for name, block in zip(cell.order, blocks, strict=True)}


def zoneout_lstm(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
    """TensorFlow's LSTM whose states keep their old values in parts (Krueger et al. 2017).

    In training each element of the state keeps its old value with the probability of its factor; else the state is
    that much the old one. The output is the state h after that with `use_zoneout_output` (default from
    behavior_version 17), else h before it.
    """
    check_options(b, options, ("zoneout_factor_cell", "zoneout_factor_output", "use_zoneout_output"))
    require_input_projection(b, options)
    factors = {"c": options.rate(b, "zoneout_factor_cell"), "h": options.rate(b, "zoneout_factor_output")}
    zoned_output = options.flag(b, "use_zoneout_output", b.behavior(17))
    hidden, recurrent = hidden_dims(b)
    gates = linear_dim([(hidden, 4)], 0)
    source, for_x, for_h = joint_kernel(b, "rec/lstm_cell/kernel", x, recurrent, gates, options)
    z = input_product(b, x, for_x, source, b.param("rec/lstm_cell/bias", (gates,), options.bias_init))
    cell = LstmCell(hidden, recurrent, gates, "ijfo", 1.0)

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        h, c = b.emit(LstmStep(cell), now[0], for_h, before["h"], before["c"])
        states = {key: _zoned(b, key, factors[key], before[key], new) for key, new in (("h", h), ("c", c))}
        return states["h"] if zoned_output else h, states

    states = {"h": hidden, "c": hidden}
    if not any(factors.values()):
        return fused_unit(b, (z,), (for_h,), states, LstmStep(cell))
    return Unit((z,), states, step)


def _zoned(b: LayerBuilder, key: str, factor: float, old: View, new: View) -> View:
    """The new value, with the old one in its place for a part of its elements (in training), or mixed in."""
    if not factor:
        return new
    if not b.mode.train:
        return b.add(b.mul(old, factor), b.mul(new, 1.0 - factor))
    # The batch may not be among the dims yet, where a cycle is being built; each sequence has its own mask even so.
    dims = tuple(dict.fromkeys((b.batch, *new.type.dims)))
    drawn = b.apply(RandomDraw("uniform", 0.0, 1.0, dims, f"{b.name}:zoneout_{key}", fresh=True))
    return b.select(b.binary("less", drawn, factor), old, new)
