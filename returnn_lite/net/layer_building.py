"""One layer built: its sources read and joined, its class's `build`, and what the common options make of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from returnn_lite.dims import DimError
from returnn_lite.ir import Origin, Value
from returnn_lite.layers.base import LayerBuilder, LayerError, Outputs
from returnn_lite.layers.masked import held
from returnn_lite.net.failures import NotChecked
from returnn_lite.net.finish import finish_layer, joined_sources
from returnn_lite.net.masked_frames import masked_frames_of, over_steps
from returnn_lite.net.missing import report_missing_references
from returnn_lite.net.options_at_fault import at_option, axis_option_in
from returnn_lite.net.reads import record_read
from returnn_lite.net.specs import LayerSpec

if TYPE_CHECKING:
    from returnn_lite.net.scope import Scope


def build_layer(scope: Scope, spec: LayerSpec) -> Outputs:
    """Builds a layer of a scope at the builder's place. Raises NotChecked once its mistakes are reported."""
    context = scope.context
    path = scope.path_of(spec)
    context.config_paths.setdefault(path, spec.path)
    b = LayerBuilder(context.builder, context.surroundings(scope, spec, path), path, spec.name)
    with context.builder.within(Origin(path, str(context.locate(spec.path) or ""))):
        try:
            sources = read_sources(scope, spec) if spec.layer.reads_sources(scope.mode) else []
            for reference in spec.sources if sources else ():
                record_read(scope, path, reference, is_source=True)
            result = _result(scope, b, spec, sources)
        except (LayerError, DimError, NotChecked) as error:
            if isinstance(error, LayerError):
                context.report(spec, at_option(spec, error))
            elif isinstance(error, DimError):
                hint = _hint_on_types(scope, spec)
                context.report(spec, LayerError(str(error), hint, axis_option_in(spec, str(error))))
            report_missing_references(scope, spec)
            raise NotChecked(spec.name) from error
    context.names.setdefault(result.value, path)
    context.layer_values[path] = result.value
    context.step_values[path] = result.value
    context.layer_kinds[path] = spec.class_name
    return result


def _hint_on_types(scope: Scope, spec: LayerSpec) -> str:
    """What to do if a layer does not fit the type that the step before of another one was taken to have."""
    for text in spec.references:
        previous, _, name = text.partition("prev:")
        if not previous and name in dict(scope.previous.assumed()):
            return f"Nothing says what '{text}' is: give '{name}' an out_type, or initial_output as a layer."
    return ""


def read_sources(scope: Scope, spec: LayerSpec) -> list[Value]:
    """The values of the sources. Raises LayerError if one is wrong; if several are, the others are reported."""
    values = []
    wrong: list[LayerError] = []
    for reference in spec.sources:
        if reference == "none":
            continue
        try:
            values.append(scope.outputs(reference).value)
        except LayerError as error:
            wrong.append(error.at("from"))
        except NotChecked:
            if not wrong:
                raise
            break
    for other in wrong[:-1]:
        scope.context.report(spec, other)
    if wrong:
        raise wrong[-1]
    return values


def _result(scope: Scope, b: LayerBuilder, spec: LayerSpec, sources: Sequence[Value]) -> Outputs:
    """What the layer makes of its sources, under a mask if its options name the frames of one."""
    named = masked_frames_of(scope, spec) if b.loop is not None else None
    if named is not None and b.loop is not None:
        with b.ir.masked(named.mask, named.frames):
            outputs = _made(scope, b, over_steps(spec, named, b.loop), sources)
            return held(b, outputs, "Give initial_output.", "initial_output")
    return _made(scope, b, spec, sources)


def _made(scope: Scope, b: LayerBuilder, spec: LayerSpec, sources: Sequence[Value]) -> Outputs:
    outputs = spec.layer.build(b, *joined_sources(b, spec, sources))
    return finish_layer(scope, b, spec, outputs if isinstance(outputs, Outputs) else Outputs(outputs))
