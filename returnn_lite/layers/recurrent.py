"""Recurrent layers with named units: `rec`, `rnn_cell`, and what reads their state (SEMANTICS 3.1, 3.2, 11).

The input product is a primitive of its own, so that it can leave a loop; the unit is one step where the source is one
step of the loop around, else the whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from returnn_lite.config.options import AxisSpec, Init, LayerRef, NetDict, option
from returnn_lite.dims import Dim, DimKind, Symbol, TensorType, linear_dim
from returnn_lite.dims.axes import default_time, resolve_axis
from returnn_lite.ir import Op, Value
from returnn_lite.ir.ops.recurrence import (
    Gru,
    GruCell,
    GruStep,
    Lstm,
    LstmCell,
    LstmStep,
    SimpleRnn,
    SimpleRnnCell,
    SimpleRnnStep,
)
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.layers.base import Layer, LayerBuilder, Outputs
from returnn_lite.layers.structure import build_rec_subnet

NATIVE = ("lstm", "lstmp", "nativelstm", "nativelstm2", "lstmblock", "lstmblockfused", "cudnnlstm", "vanillalstm")
STANDARD = ("standardlstm", "basiclstm")
OTHERS = ("gru", "grublock", "basicrnn")
STANDARD_IN_CELL = (*STANDARD, "lstmblock", "lstmblockfused", "cudnnlstm")


@dataclass(frozen=True)
class Unit:
    """A unit with its parameters made: the products of the input, the other operands, and its step and whole form."""

    inputs: tuple[Value, ...]
    weights: tuple[Value, ...]
    states: tuple[str, ...]
    hidden: Dim
    step: Op
    whole: Callable[[Dim, bool], Op]


@dataclass(frozen=True)
class UnitOptions:
    """What a unit is made from."""

    name: str
    options: Mapping[str, Any]
    input_init: Init
    recurrent_init: Init
    bias_init: Init
    input_projection: bool = True


class Rec(Layer, names=("rec",)):
    """A recurrent layer: over the time of its source, or a step of the loop around; or a loop over a network of its
    own."""

    joins_sources = True
    source_count = (0, None)

    unit: NetDict | str = option("the name of the unit, or the layers of a loop", default="lstm")
    unit_opts: dict[str, Any] | None = option("options of the unit", default=None)
    direction: Literal[1, -1] | None = option("-1 runs from each sequence's end to its beginning", default=None)
    input_projection: bool = option("False: the source goes into the gates as it is", default=True)
    initial_state: LayerRef | float | int | dict[str, Any] | list[Any] | None = option("the state before", default=None)
    state: LayerRef | dict[str, Any] | None = option(
        "the state before, at each step", default=None, unsupported="use initial_state"
    )
    max_seq_len: int | str | None = option("the most steps, if 'end' decides", default=None)
    max_seq_len_via: LayerRef | None = option("a layer that says it", default=None, unsupported="use max_seq_len")
    axis: AxisSpec | None = option("the axis to run over; default the time axis", default=None)
    forward_weights_init: Init | None = option("initialiser of the input weights", default=None)
    recurrent_weights_init: Init | None = option("initialiser of the recurrent weights", default=None)
    bias_init: Init | None = option("initialiser of the biases", default=None)
    optimize_move_layers_out: bool | None = option("has no influence on results: see --no-optimize", default=None)
    cheating: bool | Literal["exclusive"] = option("without effect here, as in RETURNN; see choice", default=False)
    unroll: bool = option("how the loop is run; the result is the same", default=False)
    back_prop: bool | None = option("False stops gradients", default=None)
    use_global_rec_step_offset: bool = option("steps counted over the epoch", default=False, unsupported="leave it out")
    include_eos: bool = option("whether the step that ends a sequence counts", default=False)
    debug: bool | None = option("has no influence on results", default=None)

    def build(self, b: LayerBuilder, *sources: Value) -> Outputs:
        if isinstance(self.unit, dict):
            return build_rec_subnet(b, self, sources)
        if not sources:
            b.fail("a unit needs a source", "Give 'from'.", "from")
        x = sources[0]
        known = {"forward": self.forward_weights_init, "recurrent": self.recurrent_weights_init, "bias": self.bias_init}
        unit_options = UnitOptions(
            self.unit,
            self.unit_opts or {},
            _default(known["forward"], "glorot_uniform"),
            _default(known["recurrent"], "glorot_uniform"),
            _default(known["bias"], 0.0),
            self.input_projection,
        )
        unit = make_unit(b, x, unit_options, native=NATIVE)
        outputs = run_unit(b, x, unit, self._time(b, x), self.direction == -1, self.initial_state)
        return Outputs(b.stop_gradient(outputs.value), {}, outputs.state) if self.back_prop is False else outputs

    def _time(self, b: LayerBuilder, x: Value) -> Dim | None:
        if self.axis is None:
            time = default_time(x.type)
            if time is None and b.loop is None:
                b.fail(f"the source has no time axis to run over: {x.type}", "Give 'axis'.", "axis")
            return time
        if isinstance(self.axis, Dim) and self.axis is b.loop:
            return None
        return resolve_axis(self.axis, x.type)


def _default(given: Init | None, default: Init) -> Init:
    return default if given is None else given


class RnnCell(Layer, names=("rnn_cell",)):
    """One step of a unit in a loop, on a source of one frame; the whole sequence outside of loops."""

    joins_sources = True
    source_count = (1, None)

    unit: str = option("the name of the unit")
    unit_opts: dict[str, Any] | None = option("options of the unit", default=None)
    initial_state: LayerRef | float | int | dict[str, Any] | list[Any] | None = option("the state before", default=None)
    weights_init: Init = option("initialiser of the weights", default="xavier")
    direction: Literal[1] | None = option("a cell runs forwards", default=None)
    state: LayerRef | dict[str, Any] | None = option(
        "the state before, at each step", default=None, unsupported="use initial_state"
    )

    def build(self, b: LayerBuilder, x: Value) -> Outputs:
        native = tuple(name for name in NATIVE if name not in STANDARD_IN_CELL)
        options = UnitOptions(self.unit, self.unit_opts or {}, self.weights_init, self.weights_init, 0.0)
        unit = make_unit(b, x, options, native)
        time = default_time(x.type) if b.loop is None else None
        return run_unit(b, x, unit, time, False, self.initial_state)


def make_unit(b: LayerBuilder, x: Value, options: UnitOptions, native: Sequence[str]) -> Unit:
    """The unit of a name with its parameters; names are case-insensitive, with or without "Cell"."""
    name = options.name.lower().removesuffix("cell")
    x = _apart_from_output(b, x)
    if name in native:
        return _native_lstm(b, x, options)
    if name in STANDARD_IN_CELL:
        return _standard_lstm(b, x, options, "basic_lstm_cell" if name == "basiclstm" else "lstm_cell")
    if name in ("gru", "grublock"):
        return _gru(b, x, options)
    if name == "basicrnn":
        return _basic_rnn(b, x, options)
    known = ", ".join(dict.fromkeys((*NATIVE, *STANDARD, *OTHERS)))
    return b.fail(f"the unit '{options.name}' is not supported", f"Use one of {known}.", "unit")


def _apart_from_output(b: LayerBuilder, x: Value) -> Value:
    """x with a name of its own for its feature dim where that is the unit's output dim: a kernel can't have a dim
    twice."""
    hidden = b.out_feature()
    return b.relabel(x, hidden, b.copy_of_dim(hidden)) if hidden in x.type else x


def _unit_options(b: LayerBuilder, options: UnitOptions, known: Sequence[str]) -> None:
    for name in options.options:
        if name not in known:
            listed = ", ".join(known) or "none"
            b.fail(f"unit_opts: '{name}' is not an option of {options.name}", f"It has {listed}.", "unit_opts")


def _hidden(b: LayerBuilder) -> tuple[Dim, Dim]:
    hidden = b.out_feature()
    return hidden, Symbol(f"{b.name}:recurrent", DimKind.FEATURE, hidden.size)


def _input_product(b: LayerBuilder, x: Value, weights: Value, source: Dim, bias: Value | None) -> Value:
    """x times the weights, or their rows for sparse x, with the bias added."""
    (gates,) = (dim for dim in weights.type.dims if dim is not source)
    if x.type.sparse is not None:
        product = b.gather(weights, x, source)
    else:
        product = b.dot(x, weights, source)
    product = b.with_feature(product, gates)
    return product if bias is None else b.add(product, bias)


def _source_dim(b: LayerBuilder, x: Value) -> Dim:
    return x.type.sparse if x.type.sparse is not None else b.feature_of(x)


def _dropped(b: LayerBuilder, weights: Value, options: UnitOptions) -> Value:
    """Recurrent weights with dropout, one mask for the whole sequence (`rec_weight_dropout`)."""
    rate = options.options.get("rec_weight_dropout", 0.0)
    if not rate or not b.mode.train:
        return weights
    from_uniform = RandomDraw("uniform", 0.0, 1.0, weights.type.dims, f"{b.name}:rec_weight_dropout")
    keep = b.binary("greater_equal", b.apply(from_uniform), float(rate))
    return b.mul(weights, b.select(keep, 1.0 / (1.0 - rate), 0.0))


def _native_lstm(b: LayerBuilder, x: Value, options: UnitOptions) -> Unit:
    """W [in, 4n], W_re [n, 4n], b [4n]; gates j, i, f, o; no forget bias unless unit_opts says."""
    _unit_options(b, options, ("rec_weight_dropout", "forget_bias"))
    hidden, recurrent = _hidden(b)
    gates = linear_dim([(hidden, 4)], 0)
    bias = b.param("rec/b", (gates,), options.bias_init)
    if options.input_projection:
        source = _source_dim(b, x)
        z = _input_product(b, x, b.param("rec/W", (source, gates), options.input_init), source, bias)
    else:
        z = b.add(b.with_feature(b.relabel(x, b.feature_of(x), gates, f"gates of '{b.name}'"), gates), bias)
    weights = _dropped(b, b.param("rec/W_re", (recurrent, gates), options.recurrent_init), options)
    cell = LstmCell(hidden, recurrent, gates, "jifo", float(options.options.get("forget_bias", 0.0)))
    return Unit((z,), (weights,), ("h", "c"), hidden, LstmStep(cell), lambda over, back: Lstm(cell, over, back))


def _joint_kernel(
    b: LayerBuilder, name: str, x: Value, hidden: Dim, recurrent: Dim, out: Dim, options: UnitOptions
) -> tuple[Dim, Value, Value]:
    """TensorFlow's kernel over [x; h], as the part for x and the part for h."""
    source = _source_dim(b, x)
    rows = linear_dim([(source, 1), (recurrent, 1)], 0)
    kernel = b.param(f"{name}/kernel", (rows, out), options.input_init)
    for_x = b.slice(kernel, rows, 0, source)
    return source, for_x, b.slice(kernel, rows, source, recurrent)


def _standard_lstm(b: LayerBuilder, x: Value, options: UnitOptions, scope: str) -> Unit:
    """One kernel [in+n, 4n]; gates i, j, f, o; a forget bias of 1 is added."""
    _unit_options(b, options, ("forget_bias", "rec_weight_dropout"))
    hidden, recurrent = _hidden(b)
    gates = linear_dim([(hidden, 4)], 0)
    source, for_x, for_h = _joint_kernel(b, f"rec/{scope}", x, hidden, recurrent, gates, options)
    z = _input_product(b, x, for_x, source, b.param(f"rec/{scope}/bias", (gates,), options.bias_init))
    cell = LstmCell(hidden, recurrent, gates, "ijfo", float(options.options.get("forget_bias", 1.0)))
    weights = _dropped(b, for_h, options)
    return Unit((z,), (weights,), ("h", "c"), hidden, LstmStep(cell), lambda over, back: Lstm(cell, over, back))


def _gru(b: LayerBuilder, x: Value, options: UnitOptions) -> Unit:
    """gates/kernel [in+n, 2n] with r, u and bias 1; candidate/kernel [in+n, n]."""
    _unit_options(b, options, ())
    hidden, recurrent = _hidden(b)
    gates = linear_dim([(hidden, 2)], 0)
    source, wx, wh = _joint_kernel(b, "rec/gru_cell/gates", x, hidden, recurrent, gates, options)
    z = _input_product(b, x, wx, source, b.param("rec/gru_cell/gates/bias", (gates,), 1.0))
    _, cx, ch = _joint_kernel(b, "rec/gru_cell/candidate", x, hidden, recurrent, hidden, options)
    candidate = _input_product(b, x, cx, source, b.param("rec/gru_cell/candidate/bias", (hidden,), options.bias_init))
    cell = GruCell(hidden, recurrent, gates)
    return Unit((z, candidate), (wh, ch), ("h",), hidden, GruStep(cell), lambda over, back: Gru(cell, over, back))


def _basic_rnn(b: LayerBuilder, x: Value, options: UnitOptions) -> Unit:
    """kernel [in+n, n], tanh."""
    _unit_options(b, options, ())
    hidden, recurrent = _hidden(b)
    source, wx, wh = _joint_kernel(b, "rec/basic_rnn_cell", x, hidden, recurrent, hidden, options)
    z = _input_product(b, x, wx, source, b.param("rec/basic_rnn_cell/bias", (hidden,), options.bias_init))
    cell = SimpleRnnCell(hidden, recurrent)
    return Unit((z,), (wh,), ("h",), hidden, SimpleRnnStep(cell), lambda over, back: SimpleRnn(cell, over, back))


def run_unit(b: LayerBuilder, x: Value, unit: Unit, time: Dim | None, reverse: bool, initial: Any) -> Outputs:
    """One step if there is no time dim, else the whole sequence; with the state after the step, or at the end."""
    type_ = TensorType((unit.hidden,), unit.inputs[0].type.dtype, feature=unit.hidden)
    inits = {key: initial_state(b, key, initial, type_, unit) for key in unit.states}
    if time is None:
        if b.loop is None:
            b.fail(f"the source has no time axis to run over: {x.type}")
        if reverse:
            b.fail("one step of a loop can't run backwards", "Put the layer outside of the loop.", "direction")
        delays = {key: b.delay(key, type_, inits[key]) for key in unit.states}
        results = b.emit(unit.step, *unit.inputs, *unit.weights, *(delays[key].now for key in unit.states))
        for key, result in zip(unit.states, results, strict=True):
            delays[key].next = result
        return Outputs(results[0], {}, dict(zip(unit.states, results, strict=True)))
    results = b.emit(unit.whole(time, reverse), *unit.inputs, *unit.weights, *(inits[key] for key in unit.states))
    state = {
        key: _final(b, result, time, inits[key], reverse) for key, result in zip(unit.states, results, strict=True)
    }
    return Outputs(results[0], {}, state)


def _final(b: LayerBuilder, frames: Value, time: Dim, init: Value, reverse: bool) -> Value:
    """The state when the sequence is through: its last frame, or its first when it ran backwards."""
    if not reverse:
        return b.apply(Last(time), frames, init)
    return b.gather(frames, b.constant(0, "int32"), time)


def initial_state(b: LayerBuilder, key: str, given: Any, type_: TensorType, unit: Unit) -> Value:
    """The state before the first step, from any form of `initial_state`; made outside of the loop around."""
    if isinstance(given, Mapping):
        given = given.get(key)
    elif isinstance(given, list | tuple):
        if len(given) != len(unit.states):
            b.fail(f"initial_state has {len(given)} entries for {len(unit.states)} states", "", "initial_state")
        given = given[unit.states.index(key)]
    if given in (None, "zeros"):
        given = 0.0
    if given == "ones":
        given = 1.0
    if isinstance(given, int | float) and not isinstance(given, bool):
        return b.constant_outside(float(given), type_.dtype, type_.dims)
    if given == "var":
        return b.param(f"rec/initial_{key}", type_.dims, 0.0)
    if not isinstance(given, str):
        b.fail(f"initial_state can't be {given!r}", "Give a number, zeros, ones, var or a layer.", "initial_state")
    if given.startswith("keep_over_epoch"):
        b.fail("initial_state: keep_over_epoch is not supported", "Give a number or a layer.", "initial_state")
    return _state_of_layer(b, key, given, type_)


def _state_of_layer(b: LayerBuilder, key: str, reference: str, type_: TensorType) -> Value:
    outputs = b.layer_outputs(reference)
    value = outputs.state.get(key, outputs.value)
    (hidden,) = type_.dims
    reason = f"initial_state of '{b.name}' from '{reference}'"
    if b.loop is None:
        return b.relabel(value, b.feature_of(value), hidden, reason)
    with b.ir.at_outer():
        return b.relabel(value, b.feature_of(value), hidden, reason)


class GetLastHiddenState(Layer, names=("get_last_hidden_state",)):
    """The state of recurrent layers after their last frame; `key` picks one, else all parts are joined."""

    source_count = (1, None)

    combine: Literal["concat", "add"] = option("what is done with several", default="concat")
    key: str | int | None = option("c, h, or * for all", default="*")

    def build(self, b: LayerBuilder, *sources: Value) -> Value:
        parts: list[Value] = []
        for reference in b.source_names:
            state = b.layer_outputs(reference).state
            if not state:
                b.fail(f"'{reference}' has no state", "Give recurrent layers.", "from")
            if self.key in ("*", None):
                parts += [state[name] for name in sorted(state)]
            elif self.key in state:
                parts.append(state[str(self.key)])
            else:
                b.fail(f"'{reference}' has no state '{self.key}'", f"It has {', '.join(state)}.", "key")
        if self.combine == "concat":
            return b.concat_features(parts)
        total = parts[0]
        for part in parts[1:]:
            total = b.add(
                total, b.relabel(part, b.feature_of(part), b.feature_of(total), f"states added by '{b.name}'")
            )
        return total


LAYERS = (Rec, RnnCell, GetLastHiddenState)
