"""How one layer is built: its sources are read and joined, its class builds, and the common options do the rest.

Layers inside of it are what its class asks for while it builds (`inner_scopes`, `loops`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from returnn_lite.dims import DimError
from returnn_lite.ir import Origin
from returnn_lite.ir.views import View
from returnn_lite.layers.base import (
    Building,
    LayerBuilder,
    LayerError,
    LoopRequest,
    NetworkRequest,
    Outputs,
    UnitRequest,
)
from returnn_lite.layers.builder import AxisError
from returnn_lite.layers.masked import held
from returnn_lite.net.common_effects import finish_layer, joined_sources
from returnn_lite.net.context import NotChecked, Unavailable
from returnn_lite.net.inner_scopes import scope_inside
from returnn_lite.net.loops import built_loop
from returnn_lite.net.masked_frames import masked_frames_of, over_steps
from returnn_lite.net.previous_values import assumed
from returnn_lite.net.reads import record_read
from returnn_lite.net.references import UNIT
from returnn_lite.net.resolution import outputs_of
from returnn_lite.net.scope import Scope, SomeLayers, Task
from returnn_lite.net.specs import LayerSpec, root_layers
from returnn_lite.net.surroundings import LayerSurroundings

MISTAKES = (LayerError, DimError, NotChecked, Unavailable)


def layer_builder(scope: Scope, spec: LayerSpec, path: str) -> LayerBuilder:
    return LayerBuilder(scope.context.builder, LayerSurroundings(scope, spec), path, spec.name)


def built_layer(scope: Scope, spec: LayerSpec) -> Task[Outputs]:
    """Builds a layer at the builder's place. Raises NotChecked once its mistakes are reported."""
    context = scope.context
    path = scope.path_of(spec)
    context.layers.config_paths.setdefault(path, spec.path)
    b = layer_builder(scope, spec, path)
    try:
        origin = Origin(path, str(context.locate(spec.path) or ""), recompute=scope.mark_of(spec))
        if (recompute := spec.layer.recomputes()) is not None:
            context.layers.recomputed[path] = recompute
        with context.builder.within(origin):
            sources = read_sources(scope, spec) if spec.layer.reads_sources(scope.mode) else []
            for reference in spec.sources if sources else ():
                record_read(scope, path, reference, is_source=True)
            result = yield from _result(scope, b, spec, sources)
    except (LayerError, DimError, NotChecked) as error:
        _report(scope, spec, error)
        raise NotChecked(spec.name) from None
    context.layers.names.setdefault(result.value, path)
    context.layers.values[path] = result.value
    context.layers.of_step[path] = result.value
    context.layers.kinds[path] = spec.class_name
    context.layers.cells[path] = spec.layer.cell_records()
    return result


def _report(scope: Scope, spec: LayerSpec, error: LayerError | DimError | NotChecked) -> None:
    if isinstance(error, LayerError):
        scope.context.report(spec, error)
    elif isinstance(error, DimError):
        hint = _hint_on_types(scope, spec)
        option = spec.option_of_axis(error.description) if isinstance(error, AxisError) else ""
        scope.context.report(spec, LayerError(str(error), hint, option))


def _hint_on_types(scope: Scope, spec: LayerSpec) -> str:
    """What to do if a layer does not fit the type that the step before of another one was taken to have."""
    unknown = set(assumed(scope))
    for link in spec.links:
        if link.reference in unknown:
            name = link.text.removeprefix("prev:")
            return f"Nothing says what '{link.text}' is: give '{name}' an out_type, or initial_output as a layer."
    return ""


def read_sources(scope: Scope, spec: LayerSpec) -> list[View]:
    """The values of the sources. Raises LayerError if one is wrong; if several are, the others are reported."""
    values = []
    wrong: list[LayerError] = []
    for reference in spec.sources:
        if reference == "none":
            continue
        try:
            values.append(outputs_of(scope, reference).value)
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


def _result(scope: Scope, b: LayerBuilder, spec: LayerSpec, sources: Sequence[View]) -> Task[Outputs]:
    """What the layer makes of its sources, under a mask if its options name the frames of one."""
    named = masked_frames_of(scope, spec) if b.loop is not None else None
    if named is not None and b.loop is not None:
        with b.ir.masked(named.mask, named.frames):
            outputs = yield from _made(scope, b, over_steps(spec, named, b.loop), sources)
            return held(b, outputs, "Give initial_output.", "initial_output")
    return (yield from _made(scope, b, spec, sources))


def _made(scope: Scope, b: LayerBuilder, spec: LayerSpec, sources: Sequence[View]) -> Task[Outputs]:
    made = spec.layer.build(b, *joined_sources(b, spec, sources))
    return finish_layer(scope, b, spec, (yield from outputs_of_build(scope, spec, b.name, made)))


def outputs_of_build(scope: Scope, spec: LayerSpec, path: str, made: View | Outputs | Building) -> Task[Outputs]:
    """What a layer's `build` makes; one that asks for layers inside gets them."""
    if not isinstance(made, Generator):
        return made if isinstance(made, Outputs) else Outputs(made)
    try:
        request = next(made)
        while True:
            try:
                inside = yield from _answer(scope, spec, path, request)
            except MISTAKES as error:
                request = made.throw(error)
            else:
                request = made.send(inside)
    except StopIteration as end:
        outputs = end.value
    assert isinstance(outputs, Outputs)
    return outputs


def _answer(scope: Scope, spec: LayerSpec, path: str, request: NetworkRequest | UnitRequest | LoopRequest) -> Task[Any]:
    """What a layer gets for a request. Raises NotChecked if what it asks for can't be built."""
    if isinstance(request, LoopRequest):
        return (yield from built_loop(scope, spec, path, request))
    child = scope_inside(scope, spec, path, request)
    scope.children[spec.name] = child
    roots = [UNIT] if isinstance(request, UnitRequest) else root_layers(child.spec, in_loop=False)
    yield SomeLayers(child, roots, all_of_them=True)
    if child.failed or child.spec.broken:
        raise NotChecked(spec.name)
    return child.built[UNIT] if isinstance(request, UnitRequest) else child.built
