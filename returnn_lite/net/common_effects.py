"""The options of all layers, applied around a layer's own `build`: dropout before; type, norm, loss and constraints
after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.ir.ops.elementwise import PrintValue
from returnn_lite.ir.views import View
from returnn_lite.layers.affine import BatchNorm, selected_feature
from returnn_lite.layers.base import LayerBuilder, LayerError, Outputs
from returnn_lite.layers.dropout import input_dropout
from returnn_lite.net.common_options import UPDATER_OPTS
from returnn_lite.net.context import NotChecked
from returnn_lite.net.decoding import decode_options
from returnn_lite.net.ends import add_end
from returnn_lite.net.objectives import add_constraint, add_layer_loss, add_output_constraints
from returnn_lite.net.output_claims import as_claimed
from returnn_lite.net.parameters import parameters_below
from returnn_lite.net.resolution import publish
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec


def joined_sources(b: LayerBuilder, spec: LayerSpec, sources: Sequence[View]) -> Sequence[View]:
    """The sources as `build` gets them: joined along features, with input dropout, where the class asks for it."""
    options = spec.common.inputs
    if not spec.layer.joins():
        _check_no_input_options(spec)
        return sources
    if not sources:
        return ()
    joined = selected_feature(b, b.concat_features(sources), options.in_dim)
    if options.dropout and (b.mode.train or options.dropout_on_forward):
        joined = input_dropout(
            b, joined, options.dropout, options.dropout_noise_shape, options.dropout_axis, options.dropout_on_forward
        )
    return (joined,)


def _check_no_input_options(spec: LayerSpec) -> None:
    """Fails where an option changes joined sources, but the layer has none."""
    options = spec.common.inputs
    given = {
        "in_dim": options.in_dim is not None,
        "dropout": options.dropout != 0,
        "dropout_axis": options.dropout_axis is not None,
        "dropout_on_forward": options.dropout_on_forward,
    }
    for name, is_given in given.items():
        if is_given:
            raise LayerError(
                f"'{spec.class_name}' does not join its sources, so it has no {name}",
                "Put a layer before it: dropout, or reinterpret_data.",
                name,
            )


def finish_layer(scope: Scope, b: LayerBuilder, spec: LayerSpec, outputs: Outputs) -> Outputs:
    """What the common options make of a layer's outputs, with its loss and constraints collected."""
    value = outputs.value
    common = spec.common
    if common.inputs.batch_norm:
        value = _batch_normed(scope, b, spec, value)
    value = as_claimed(scope, b, spec, value)
    if common.output.register_as_extern_data is not None:
        publish(scope, common.output.register_as_extern_data, value)
    if common.inputs.debug_print_layer_output:
        b.ir.require_computed(b.apply(PrintValue(b.name), value))
    if common.parameters.L2:
        add_constraint(scope, b, spec, common.parameters.L2)
    if scope.mode.losses and (common.parameters.darc1 or common.parameters.spatial_smoothing):
        add_output_constraints(scope, b, spec, outputs.value, value)
    if common.parameters.updater_opts:
        _check_updater_opts(common.parameters.updater_opts)
        for name in parameters_below(scope, spec):
            scope.context.layers.updater_opts.setdefault(name, common.parameters.updater_opts)
    if common.output.beyond_the_end is not None:
        add_end(scope, b, spec, outputs, value)
    result = replace(outputs, value=value)
    if scope.mode.losses and common.loss.loss is not None:
        add_layer_loss(scope, b, spec, result)
    return result


def _check_updater_opts(options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        if key not in UPDATER_OPTS:
            hint = nearest_hint(key, UPDATER_OPTS).strip() or f"There are {' and '.join(UPDATER_OPTS)}."
            raise LayerError(f"'{key}' is not supported for one layer", hint, "updater_opts")
        if key == "learning_rate_multiplier" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise LayerError(f"learning_rate_multiplier is a number, not {value!r}", "", "updater_opts")


def _batch_normed(scope: Scope, b: LayerBuilder, spec: LayerSpec, value: View) -> View:
    given = spec.common.inputs.batch_norm
    options: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    layer = decode_options(scope.context, BatchNorm, options, (*spec.path, "batch_norm"))
    if layer is None:
        raise NotChecked(spec.name)
    normed = layer.build(b, value)
    return normed.value if isinstance(normed, Outputs) else normed
