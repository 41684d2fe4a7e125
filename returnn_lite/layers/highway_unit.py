"""The recurrent highway network (Zilly et al. 2017): `rhn`."""

from __future__ import annotations

from collections.abc import Sequence

from returnn_lite.dims import linear_dim
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.unit_parts import (
    States,
    Unit,
    UnitOptions,
    bias_blocks,
    check_options,
    hidden_dims,
    input_product,
    recurrent_product,
    require_input_projection,
    sequence_mask,
    source_dim,
)


def recurrent_highway(b: LayerBuilder, x: View, options: UnitOptions) -> Unit:
    """s' = t * tanh(candidate) + (1 - t) * s, `depth` times in each step; the source is seen by the first.

    W [in, 2n], b [2n], rhn_cell/depth_<i>/W [n, 2n]; blocks candidate, t. The part of b for t starts with
    `transform_bias`. `dropout` is on the s that is multiplied with weights, with one mask for all steps and depths.
    """
    check_options(b, options, ("depth", "dropout", "transform_bias"))
    require_input_projection(b, options)
    depth = options.options.get("depth", 5)
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        b.fail(f"unit_opts: depth is a positive number of layers, not {depth!r}", "", "unit_opts")
    hidden, recurrent = hidden_dims(b)
    gates = linear_dim([(hidden, 2)], 0)
    source = source_dim(b, x)
    transform_bias = 0.0 if options.options.get("transform_bias") is None else options.number(b, "transform_bias", 0.0)
    bias = b.param("rec/b", (gates,), bias_blocks(b, options, "transform_bias", (0.0, transform_bias)))
    z = input_product(b, x, b.param("rec/W", (source, gates), options.input_init), source, bias)
    names = [f"rec/rhn_cell/depth_{i}/W" for i in range(depth)]
    weights = [b.param(name, (recurrent, gates), options.recurrent_init) for name in names]
    mask = sequence_mask(b, options, "dropout", hidden)

    def step(now: Sequence[View], before: States) -> tuple[View, States]:
        s = before["h"]
        for i, w in enumerate(weights):
            total = recurrent_product(b, s if mask is None else b.mul(s, mask), w, hidden, recurrent)
            if i == 0:
                total = b.add(now[0], total)
            candidate, carry = (b.with_feature(part, hidden) for part in b.split(total, gates, [hidden, hidden]))
            t = b.unary("sigmoid", carry)
            s = b.add(b.mul(t, b.unary("tanh", candidate)), b.mul(b.sub(1.0, t), s))
        return s, {"h": s}

    return Unit((z,), {"h": hidden}, step)
