"""The recurrent highway network (Zilly et al. 2017): `rhn`."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import linear_dim
from returnn_lite.ir import Value
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.unit_parts import (
    States,
    Unit,
    UnitOptions,
    check_options,
    hidden_dims,
    input_product,
    recurrent_product,
    require_input_projection,
    source_dim,
)


def recurrent_highway(b: LayerBuilder, x: Value, options: UnitOptions) -> Unit:
    """s' = t * tanh(candidate) + (1 - t) * s, `depth` times in each step; the source is seen by the first.

    W [in, 2n], b [2n], rhn_cell/depth_<i>/W [n, 2n]; blocks candidate, t.
    """
    check_options(b, options, ("depth", "dropout", "transform_bias"))
    for name in ("dropout", "transform_bias"):
        if options.options.get(name):
            b.fail(f"unit_opts: {name} of {options.name} is not supported", "Leave it out.", "unit_opts")
    require_input_projection(b, options)
    depth = options.options.get("depth", 5)
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        b.fail(f"unit_opts: depth is a positive number of layers, not {depth!r}", "", "unit_opts")
    hidden, recurrent = hidden_dims(b)
    gates = linear_dim([(hidden, 2)], 0)
    source = source_dim(b, x)
    bias = b.param("rec/b", (gates,), options.bias_init)
    z = input_product(b, x, b.param("rec/W", (source, gates), options.input_init), source, bias)
    names = [f"rec/rhn_cell/depth_{i}/W" for i in range(depth)]
    weights = [b.param(name, (recurrent, gates), options.recurrent_init) for name in names]

    def step(now: Sequence[Value], before: States) -> tuple[Value, States]:
        s = before["h"]
        for i, w in enumerate(weights):
            total = recurrent_product(b, s, w, hidden, recurrent)
            if i == 0:
                total = b.add(now[0], total)
            candidate, carry = (b.with_feature(part, hidden) for part in b.split(total, gates, [hidden, hidden]))
            t = b.unary("sigmoid", carry)
            s = b.add(b.mul(t, b.unary("tanh", candidate)), b.mul(b.sub(1.0, t), s))
        return s, {"h": s}

    return Unit((z,), {"h": hidden}, step)
