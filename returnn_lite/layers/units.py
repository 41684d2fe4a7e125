"""Recurrent units by name (SEMANTICS 3.1, 11): LSTMs, GRU, simple RNN; names are case-insensitive, with or without
"Cell"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.dims import linear_dim
from returnn_lite.ir.ops.recurrence import (
    GruCell,
    GruStep,
    LstmCell,
    LstmStep,
    SimpleRnnCell,
    SimpleRnnStep,
)
from returnn_lite.ir.ops.sources import Storage
from returnn_lite.ir.views import View
from returnn_lite.layers.activated_units import activated_gru, activated_rnn
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.highway_unit import recurrent_highway
from returnn_lite.layers.layer_norm_unit import layer_norm_lstm
from returnn_lite.layers.lstm_variants import low_memory_lstm, peephole_lstm, zoneout_lstm
from returnn_lite.layers.unit_parts import (
    Unit,
    UnitOptions,
    check_options,
    dropped_weights,
    fused_unit,
    hidden_dims,
    input_product,
    joint_kernel,
    require_input_projection,
    source_dim,
)

Maker = Callable[[LayerBuilder, View, UnitOptions], Unit]


def make_unit(b: LayerBuilder, x: View, options: UnitOptions, *, cell: bool) -> Unit:
    """The unit of a name with its parameters. In a `cell` some names mean TensorFlow's LSTM with its own weights."""
    name = options.name.lower().removesuffix("cell")
    maker = (IN_CELL if cell else {}).get(name) or UNITS.get(name)
    if maker is None:
        hint = nearest_hint(name, list(UNITS)).strip() or f"Use one of {', '.join(UNITS)}."
        hint = "It goes over two sequences: use the layer class twod_lstm." if name.startswith("twod") else hint
        b.fail(f"the unit '{options.name}' is not supported", hint, "unit")
    return maker(b, _apart_from_output(b, x), options)


def _apart_from_output(b: LayerBuilder, x: View) -> View:
    """x with a name of its own for its feature dim where that is the unit's output dim: a kernel can't have a dim
    twice."""
    hidden = b.out_feature()
    return b.relabel(x, hidden, b.copy_of_dim(hidden)) if hidden in x.type else x


def native_lstm(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
    """W [in, 4n], W_re [n, 4n], b [4n]; gates j, i, f, o; no forget bias unless unit_opts says."""
    check_options(b, options, ("rec_weight_dropout", "forget_bias"))
    hidden, recurrent = hidden_dims(b)
    gates = linear_dim([(hidden, 4)], 0)
    forget_bias = options.number(b, "forget_bias", 0.0)
    bias = b.param("rec/b", (gates,), options.bias_init, storage=Storage(forget_bias=forget_bias))
    if options.input_projection:
        source = source_dim(b, x)
        z = input_product(b, x, b.param("rec/W", (source, gates), options.input_init), source, bias)
    else:
        z = b.add(b.with_feature(b.relabel(x, b.feature_of(x), gates, f"gates of '{b.name}'"), gates), bias)
    weights = dropped_weights(b, b.param("rec/W_re", (recurrent, gates), options.recurrent_init), options)
    return _lstm(b, z, weights, LstmCell(hidden, recurrent, gates, "jifo", forget_bias))


def _lstm(b: LayerBuilder, z: View, weights: View, cell: LstmCell) -> Unit:
    states = {"h": cell.hidden, "c": cell.hidden}
    return fused_unit(b, (z,), (weights,), states, LstmStep(cell))


def _standard_lstm(scope: str, more_options: Sequence[str]) -> Maker:
    def standard_lstm(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
        """One kernel [in+n, 4n]; gates i, j, f, o; a forget bias of 1 is added."""
        check_options(b, options, ("forget_bias", "rec_weight_dropout", "activation", *more_options))
        require_input_projection(b, options)
        hidden, recurrent = hidden_dims(b)
        gates = linear_dim([(hidden, 4)], 0)
        source, for_x, for_h = joint_kernel(b, f"rec/{scope}/kernel", x, recurrent, gates, options)
        forget_bias = options.number(b, "forget_bias", 1.0)
        bias = b.param(f"rec/{scope}/bias", (gates,), options.bias_init, storage=Storage(forget_bias=forget_bias))
        z = input_product(b, x, for_x, source, bias)
        weights = dropped_weights(b, for_h, options)
        cell = LstmCell(hidden, recurrent, gates, "ijfo", forget_bias)
        if options.activation(b) != "tanh" or options.options.get("use_peepholes") or options.options.get("cell_clip"):
            return peephole_lstm(b, z, weights, cell, options)
        return _lstm(b, z, weights, cell)

    return standard_lstm


def gru(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
    """gates/kernel [in+n, 2n] with r, u and bias 1; candidate/kernel [in+n, n]."""
    check_options(b, options, ("activation",))
    require_input_projection(b, options)
    hidden, recurrent = hidden_dims(b)
    gates = linear_dim([(hidden, 2)], 0)
    source, wx, wh = joint_kernel(b, "rec/gru_cell/gates/kernel", x, recurrent, gates, options)
    z = input_product(b, x, wx, source, b.param("rec/gru_cell/gates/bias", (gates,), 1.0))
    _, cx, ch = joint_kernel(b, "rec/gru_cell/candidate/kernel", x, recurrent, hidden, options)
    candidate = input_product(b, x, cx, source, b.param("rec/gru_cell/candidate/bias", (hidden,), options.bias_init))
    cell = GruCell(hidden, recurrent, gates)
    activation = options.activation(b)
    if activation != "tanh":
        return activated_gru(b, (z, candidate), (wh, ch), cell, activation)
    return fused_unit(b, (z, candidate), (wh, ch), {"h": hidden}, GruStep(cell))


def basic_rnn(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
    """kernel [in+n, n], tanh unless unit_opts says."""
    check_options(b, options, ("activation",))
    require_input_projection(b, options)
    hidden, recurrent = hidden_dims(b)
    source, wx, wh = joint_kernel(b, "rec/basic_rnn_cell/kernel", x, recurrent, hidden, options)
    z = input_product(b, x, wx, source, b.param("rec/basic_rnn_cell/bias", (hidden,), options.bias_init))
    cell = SimpleRnnCell(hidden, recurrent)
    activation = options.activation(b)
    if activation != "tanh":
        return activated_rnn(b, z, wh, cell, activation)
    return fused_unit(b, (z,), (wh,), {"h": hidden}, SimpleRnnStep(cell))


STANDARD: Maker = _standard_lstm("lstm_cell", ("use_peepholes", "cell_clip"))
UNITS: dict[str, Maker] = {
    **dict.fromkeys(
        ("lstm", "lstmp", "nativelstm", "nativelstm2", "lstmblock", "lstmblockfused", "cudnnlstm", "vanillalstm"),
        native_lstm,
    ),
    "nativelstmlowmem": low_memory_lstm,
    "standardlstm": STANDARD,
    "basiclstm": _standard_lstm("basic_lstm_cell", ()),
    "zoneoutlstm": zoneout_lstm,
    "layernormvariantslstm": layer_norm_lstm,
    "gru": gru,
    "grublock": gru,
    "basicrnn": basic_rnn,
    "rhn": recurrent_highway,
}
IN_CELL: dict[str, Maker] = dict.fromkeys(("lstmblock", "lstmblockfused", "cudnnlstm"), STANDARD)
