"""The options of all layers, applied around a layer's own `build`: dropout before; type, norm, loss and constraints
after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from returnn_lite.config.options import Unspecified
from returnn_lite.dims import Dim
from returnn_lite.ir import Value
from returnn_lite.ir.ops.elementwise import PrintValue
from returnn_lite.layers.affine import BatchNorm
from returnn_lite.layers.base import LayerBuilder, LayerError, Outputs
from returnn_lite.layers.dropout import input_dropout
from returnn_lite.net.decoding import decode_options
from returnn_lite.net.failures import NotChecked
from returnn_lite.net.objectives import add_constraint, add_layer_loss
from returnn_lite.net.specs import LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


def joined_sources(b: LayerBuilder, spec: LayerSpec, sources: Sequence[Value]) -> Sequence[Value]:
    """The sources as `build` gets them: joined along features, with input dropout, where the class asks for it."""
    if not type(spec.layer).joins_sources or not sources:
        return sources
    joined = b.concat_features(sources)
    options = spec.common.inputs
    if options.dropout and (b.mode.train or options.dropout_on_forward):
        joined = input_dropout(
            b, joined, options.dropout, options.dropout_noise_shape, options.dropout_axis, options.dropout_on_forward
        )
    return (joined,)


def finish_layer(scope: Scope, b: LayerBuilder, spec: LayerSpec, outputs: Outputs) -> Outputs:
    """What the common options make of a layer's outputs, with its loss and constraints collected."""
    value = outputs.value
    common = spec.common
    if common.inputs.batch_norm:
        value = _batch_normed(scope, b, spec, value)
    value = _with_out_type(b, spec, value)
    _check_size(b, spec, value)
    _check_shape(b, spec, value)
    if common.output.register_as_extern_data is not None:
        scope.context.published[common.output.register_as_extern_data] = value
    if common.inputs.debug_print_layer_output:
        b.ir.require_computed(b.apply(PrintValue(b.name), value))
    if common.parameters.L2:
        add_constraint(scope, b, spec, common.parameters.L2)
    if common.parameters.updater_opts:
        for name in scope.context.layer_parameters.get(scope.path_of(spec), ()):
            scope.context.updater_opts[name] = common.parameters.updater_opts
    result = replace(outputs, value=value)
    if scope.mode.losses and common.loss.loss is not None:
        add_layer_loss(scope, b, spec, result)
    return result


def _batch_normed(scope: Scope, b: LayerBuilder, spec: LayerSpec, value: Value) -> Value:
    given = spec.common.inputs.batch_norm
    options: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    layer = decode_options(scope.context, BatchNorm, options, (*spec.path, "batch_norm"))
    if layer is None:
        raise NotChecked(spec.name)
    normed = layer.build(b, value)
    return normed.value if isinstance(normed, Outputs) else normed


def _with_out_type(b: LayerBuilder, spec: LayerSpec, value: Value) -> Value:
    given = spec.common.output.out_type
    if given is None or callable(given):
        return value
    if not isinstance(given, dict):
        raise LayerError(f"out_type must be a dict, not {given!r}", "", "out_type")
    dtype = given.get("dtype")
    if isinstance(dtype, str) and dtype != value.type.dtype:
        value = b.cast(value, dtype)
    dim = given.get("dim")
    sparse = value.type.sparse
    if given.get("sparse") and isinstance(dim, int):
        sparse = sparse if sparse is not None and sparse.size == dim else b.new_feature(dim, "classes")
    elif given.get("sparse") is False:
        sparse = None
    return b.annotate(value, sparse=sparse, feature=value.type.feature, time=value.type.time)


def _check_size(b: LayerBuilder, spec: LayerSpec, value: Value) -> None:
    """n_out of a layer that computes its size itself is a claim about it."""
    n_out = spec.common.output.n_out
    if n_out is Unspecified or not isinstance(n_out, int):
        return
    have = value.type.sparse or value.type.feature
    if have is not None and have.size is not None and have.size != n_out:
        raise LayerError(
            f"n_out is {n_out}, but the layer makes {value.type}",
            f"Write n_out: {have.size}, or leave it out.",
            "n_out",
        )


def _check_shape(b: LayerBuilder, spec: LayerSpec, value: Value) -> None:
    shape = spec.common.output.out_shape
    if shape is None:
        return
    wanted = {dim for dim in shape if isinstance(dim, Dim)}
    have = set(value.type.dims)
    if wanted != have:
        listed = ", ".join(sorted(str(dim) for dim in wanted))
        raise LayerError(f"the output is {value.type}, but out_shape says {{{listed}}}", "", "out_shape")
