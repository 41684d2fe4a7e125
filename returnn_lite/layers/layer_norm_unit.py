"""The LSTM with layer normalisation at several places (Ba et al. 2016): `layernormvariantslstm`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from returnn_lite.dims import Dim, linear_dim
from returnn_lite.ir.ops.recurrence import LstmCell
from returnn_lite.ir.ops.reduction import Normalize
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.lstm_variants import gate_parts
from returnn_lite.layers.unit_parts import (
    States,
    Unit,
    UnitOptions,
    bias_blocks,
    check_options,
    hidden_dims,
    input_product,
    joint_kernel,
    kept_or_zero,
    recurrent_product,
    require_input_projection,
    sequence_mask,
    source_dim,
)

Norm = Callable[[View, Dim, str], View]
FLAGS = {
    "global_norm": True,
    "global_norm_joined": False,
    "per_gate_norm": False,
    "cell_norm": True,
    "cell_norm_in_output": True,
    "hidden_norm": False,
    "with_concat": False,
}
KNOWN = (*FLAGS, "norm_gain", "norm_shift", "forget_bias", "activation", "dropout", "dropout_h", "variance_epsilon")


@dataclass(frozen=True)
class Normalized:
    """Where the unit normalises; the names are those of unit_opts.

    The products of the source and of h apart (`global_norm`), their sum (`global_norm_joined`), each gate
    (`per_gate_norm`), the cell state that is kept (`cell_norm`) and that of the output, too (`cell_norm_in_output`),
    the output (`hidden_norm`). `with_concat` has one kernel for the source and h.
    """

    global_norm: bool
    global_norm_joined: bool
    per_gate_norm: bool
    cell_norm: bool
    cell_norm_in_output: bool
    hidden_norm: bool
    with_concat: bool


def layer_norm_lstm(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
    """W_ff [in, 4n], W_re [n, 4n] (`with_concat`: W_ff_re over both); gates i, j, f, o; gamma_* and beta_* of norms.

    There is a bias only where no norm with a beta comes before the gates. `forget_bias` is what it starts with for the
    forget gate; the beta of a norm for all gates starts higher as a whole, as in RETURNN.
    """
    normalized = _normalized(b, options)
    hidden, recurrent = hidden_dims(b)
    gates = linear_dim([(hidden, 4)], 0)
    cell = LstmCell(hidden, recurrent, gates, "ijfo")
    norm = _norm(b, options)
    if normalized.with_concat:
        source, for_x, for_h = joint_kernel(b, "rec/W_ff_re", x, recurrent, gates, options)
    else:
        source = source_dim(b, x)
        for_x = b.param("rec/W_ff", (source, gates), options.input_init)
        for_h = b.param("rec/W_re", (recurrent, gates), options.recurrent_init)
    z = input_product(b, x, for_x, source)
    if normalized.global_norm:
        z = norm(z, gates, "input_below")
    elif not normalized.global_norm_joined and not normalized.per_gate_norm:
        name = "rec/bias_ff_re" if normalized.with_concat else "rec/bias_ff"
        forget = options.number(b, "forget_bias", 0.0)
        z = b.add(z, b.param(name, (gates,), bias_blocks(b, options, "forget_bias", (0.0, 0.0, forget, 0.0))))
    mask_h = sequence_mask(b, options, "dropout_h", hidden)

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        h = before["h"] if mask_h is None else b.mul(before["h"], mask_h)
        from_h = recurrent_product(b, h, for_h, hidden, recurrent)
        if normalized.global_norm:
            from_h = norm(from_h, gates, "state_below")
        total = b.add(now[0], from_h)
        return _arithmetic(b, total, before["c"], cell, normalized, norm, options)

    return Unit((z,), {"h": hidden, "c": hidden}, step)


def _normalized(b: LayerBuilder, options: UnitOptions) -> Normalized:
    check_options(b, options, KNOWN)
    require_input_projection(b, options)
    if options.number(b, "forget_bias", 0.0) < 0.0:
        b.fail("unit_opts: forget_bias is not negative", "Leave it out.", "unit_opts")
    normalized = Normalized(**{name: options.flag(b, name, default) for name, default in FLAGS.items()})
    chosen = [name for name in ("global_norm", "global_norm_joined", "per_gate_norm") if getattr(normalized, name)]
    if len(chosen) > 1:
        b.fail(f"unit_opts: {' and '.join(chosen)} exclude each other", "Set all but one to false.", "unit_opts")
    if normalized.with_concat and normalized.global_norm:
        b.fail("unit_opts: with_concat leaves no products to norm apart", "Set global_norm to false.", "unit_opts")
    return normalized


def _arithmetic(
    b: LayerBuilder, total: View, old: View, cell: LstmCell, normalized: Normalized, norm: Norm, options: UnitOptions
) -> tuple[View, States]:
    """The output and the states from the sum of the products and the cell state before."""
    activation = options.activation(b)
    if normalized.global_norm_joined:
        total = norm(total, cell.gates, "lstm_in")
    parts = gate_parts(b, total, cell)
    if normalized.per_gate_norm:
        parts = {name: norm(part, cell.hidden, f"{name}_gate") for name, part in parts.items()}
    i, f, o = (b.unary("sigmoid", parts[name]) for name in "ifo")
    candidate = _dropped_candidate(b, b.activation(activation, parts["j"]), options)
    c = b.add(b.mul(f, old), b.mul(i, candidate))
    kept = norm(c, cell.hidden, "new_c") if normalized.cell_norm else c
    h = b.mul(o, b.activation(activation, kept if normalized.cell_norm_in_output else c))
    if normalized.hidden_norm:
        h = norm(h, cell.hidden, "new_h")
    return h, {"h": h, "c": kept}


def _norm(b: LayerBuilder, options: UnitOptions) -> Norm:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta; the norm of h's product has no beta, its sum has one."""
    gain, shift = options.number(b, "norm_gain", 1.0), options.number(b, "norm_shift", 0.0)
    epsilon, forget = options.number(b, "variance_epsilon", 1e-12), options.number(b, "forget_bias", 0.0)

    def norm(x: View, over: Dim, name: str) -> View:
        y = b.mul(b.apply(Normalize((over,), epsilon), x), b.param(f"rec/gamma_{name}", (over,), gain))
        if name == "state_below":
            return y
        more = forget if name in ("input_below", "lstm_in", "f_gate") else 0.0
        return b.add(y, b.param(f"rec/beta_{name}", (over,), shift + more))

    return norm


def _dropped_candidate(b: LayerBuilder, candidate: View, options: UnitOptions) -> View:
    """Dropout on what is added to the cell state, anew at each step (Semeniuta et al. 2016)."""
    rate = options.rate(b, "dropout")
    if not rate or not b.mode.train:
        return candidate
    dims = tuple(dict.fromkeys((b.batch, *candidate.type.dims)))
    return b.mul(candidate, kept_or_zero(b, dims, rate, f"{b.name}:dropout", fresh=True))
