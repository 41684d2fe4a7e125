"""`initial_output: apply(0)`: what a layer of a loop makes of zeros in place of its sources, computed around the
loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returnn_lite.ir import Origin, Value
from returnn_lite.ir.reachability import reachable
from returnn_lite.layers.base import LayerBuilder, LayerError
from returnn_lite.net.finish import joined_sources
from returnn_lite.net.output_claims import as_claimed
from returnn_lite.net.specs import LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope

OPTION = "initial_output"


def applied_to_zeros(scope: Scope, spec: LayerSpec) -> Value:
    """The layer built again at the place around the loop, with the same parameters, on zeros of its sources' types.

    Raises LayerError for layers with a state, and for those that use more of the loop than their sources.
    """
    builder = scope.context.builder
    if spec.layer.state_keys():
        raise LayerError(
            "initial_output: apply(0) is not for recurrent layers, which start from a state",
            "Give initial_state.",
            OPTION,
        )
    if spec.common.inputs.batch_norm:
        raise LayerError("initial_output: apply(0) and batch_norm exclude each other", "Give a number.", OPTION)
    with builder.at(scope.place):
        sources = [scope.outputs(name).value for name in spec.sources if name != "none"]
        body = builder.body
    assert body is not None
    path = scope.path_of(spec)
    b = LayerBuilder(builder, scope.driver.surroundings(scope, spec, path), path, spec.name)
    with builder.at(scope.outer_place), builder.within(Origin(path, str(scope.context.locate(spec.path) or ""))):
        zeros = [_zeros_like(b, source) for source in sources]
        made = scope.driver.made(scope, spec, path, spec.layer.build(b, *joined_sources(b, spec, zeros)))
        value = as_claimed(scope, b, spec, made.value)
    if any(read in body.values for read in reachable([value], builder.operands_of)):
        raise LayerError(
            "initial_output: apply(0) needs a layer that reads nothing of the loop but its sources",
            "Give a number or a layer.",
            OPTION,
        )
    return value


def _zeros_like(b: LayerBuilder, source: Value) -> Value:
    """Zeros of a type, but for the batch: every sequence starts from the same."""
    type_ = source.type
    dims = tuple(dim for dim in type_.dims if dim is not b.surroundings.batch)
    zero = b.constant(False if type_.dtype == "bool" else 0, type_.dtype, dims)
    return b.annotate(zero, sparse=type_.sparse, feature=type_.feature, time=type_.time)
