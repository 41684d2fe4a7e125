"""The driver of the build: what a layer needs is built first, while the layer waits on a stack of its own, however deep
networks and chains are.

A layer is built once: its sources are read and joined, its class builds, and the common options do the rest. Layers
inside of it are what its class asks for while it builds (`inner_scopes`, `loops`).
"""

from __future__ import annotations

import itertools
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
from returnn_lite.net.expected_types import ExpectedTypes
from returnn_lite.net.inner_scopes import scope_inside
from returnn_lite.net.loops import built_loop
from returnn_lite.net.masked_frames import masked_frames_of, over_steps
from returnn_lite.net.output_claims import as_claimed
from returnn_lite.net.overlays import owner
from returnn_lite.net.previous_values import assumed, previous_outputs
from returnn_lite.net.references import UNIT, Reference, ReferenceKind, parse_reference
from returnn_lite.net.resolution import outputs_of, record_read
from returnn_lite.net.scope import Driver, OneLayer, Result, Scope, SomeLayers, Task
from returnn_lite.net.specs import LayerSpec, root_layers
from returnn_lite.net.surroundings import LayerSurroundings
from returnn_lite.net.unknown_names import no_such_layer, report_unknown_names, report_unknown_targets

MISTAKES = (LayerError, DimError, NotChecked, Unavailable)


class TaskDriver(Driver):
    """Runs tasks, each on top of those that wait for it."""

    def build(self, wanted: OneLayer | SomeLayers) -> None:
        """Builds layers with what they need. Raises LayerError, NotChecked and Unavailable for one that can't be."""
        _run(_task_of(wanted))

    def made_of(self, scope: Scope, spec: LayerSpec, sources: Sequence[View]) -> View:
        """What a layer makes of other values than its sources, at the builder's place."""
        b = _layer_builder(scope, spec, scope.path_of(spec))
        made = spec.layer.build(b, *joined_sources(b, spec, sources))
        return as_claimed(scope, b, spec, _run(_outputs(scope, spec, b.name, made)).value)

    def previous(self, scope: Scope, reference: Reference) -> Outputs:
        """What a `prev:` reference reads: a State, which is made when it is first read. Raises LayerError."""
        return previous_outputs(scope, reference)

    def expected_types(self, scope: Scope) -> ExpectedTypes:
        """What is known of the layers of a new scope before they are built."""
        return ExpectedTypes(scope)


def _run(task: Task[Result]) -> Result:
    stack: list[Task[Any]] = [task]
    result: Any = None
    failure: Exception | None = None
    while stack:
        try:
            needed = stack[-1].throw(failure) if failure is not None else next(stack[-1])
        except StopIteration as end:
            stack.pop()
            result, failure = end.value, None
        except MISTAKES as error:
            stack.pop()
            failure = error.with_traceback(None)
        else:
            failure = None
            stack.append(_task_of(needed))
    if failure is not None:
        raise failure
    made: Result = result
    return made


def _task_of(wanted: OneLayer | SomeLayers) -> Task[None]:
    if isinstance(wanted, OneLayer):
        return _one_layer(wanted.scope, wanted.name)
    return _all_layers(wanted.scope, wanted.names) if wanted.all_of_them else _some_layers(wanted.scope, wanted.names)


def _some_layers(scope: Scope, names: Sequence[str]) -> Task[None]:
    for text in names:
        reference = parse_reference(text)
        try:
            found, name = owner(scope, reference), reference.name
        except LayerError:  # no overlay is here, which has been said of the layer that names it
            continue
        if reference.kind in (ReferenceKind.LAYER, ReferenceKind.OVERLAY) and _is_to_build(found, name):
            try:
                yield OneLayer(found, name)
            except (NotChecked, Unavailable):
                found.failed.add(name)


def _is_to_build(scope: Scope, name: str) -> bool:
    """True for a layer that is there, and neither built nor being built nor known to have mistakes."""
    done = name in scope.built or name in scope.unavailable or name in scope.failed or name in scope.in_progress
    return not done and name in scope.spec.layers


def _all_layers(scope: Scope, roots: Sequence[str]) -> Task[None]:
    report_unknown_targets(scope)
    yield from _some_layers(scope, roots)
    for spec in [scope.spec.layers[name] for name in scope.built]:
        if not spec.layer.reads_sources(scope.mode):
            yield from _unread_sources(scope, spec)


def _unread_sources(scope: Scope, spec: LayerSpec) -> Task[None]:
    """Builds the sources of a layer whose output does not depend on them: they may have mistakes."""
    yield from _some_layers(scope, [source for source in spec.sources if source in scope.spec.layers])
    try:
        with scope.context.builder.at(scope.point):
            read_sources(scope, spec)
    except LayerError as error:
        scope.context.report(spec, error)
        scope.failed.add(spec.name)
    except (NotChecked, Unavailable):
        return


def _one_layer(scope: Scope, name: str) -> Task[None]:
    spec = _begun(scope, name)
    if spec is None:
        return
    try:
        is_wrong = report_unknown_names(scope, spec)
        yield from _some_layers(scope, spec.needed_layers)
        if is_wrong:
            raise NotChecked(name)
        with scope.context.builder.at(scope.point):
            outputs = yield from _built(scope, spec)
    except NotChecked:
        scope.failed.add(name)
        raise
    except Unavailable:
        scope.unavailable.add(name)
        raise
    finally:
        del scope.in_progress[name]
    scope.built[name] = outputs
    scope.expected.is_built(name)


def _begun(scope: Scope, name: str) -> LayerSpec | None:
    """The layer to be built, which is in progress from now on; None if it is there.

    Raises LayerError for a name that is not here, NotChecked and Unavailable for a layer that can't be built.
    """
    if name in scope.built:
        return None
    if name in scope.unavailable:
        raise Unavailable(name)
    if name in scope.failed or name in scope.spec.broken:
        raise NotChecked(name)
    if name not in scope.spec.layers:
        raise no_such_layer(scope, name)
    if name in scope.in_progress:
        names = list(scope.in_progress)
        _report_cycle(scope, [*names[names.index(name) :], name])
        raise NotChecked(name)
    scope.in_progress[name] = None
    return scope.spec.layers[name]


def _report_cycle(scope: Scope, cycle: Sequence[str]) -> None:
    """Reports layers that need each other, at the one that reads what comes after it in the config: that is where the
    cycle closes for a reader."""
    order = {name: number for number, name in enumerate(scope.spec.layers)}
    pairs = list(itertools.pairwise(cycle))
    reader, read = next((pair for pair in pairs if order[pair[0]] <= order[pair[1]]), pairs[-1])
    spec = scope.spec.layers[reader]
    message = f"the layers {' -> '.join(cycle)} need each other in the same step"
    hint = "In a loop, read one of them from the step before with 'prev:'."
    scope.context.report(spec, LayerError(message, hint, spec.option_that_says(read)))


def _layer_builder(scope: Scope, spec: LayerSpec, path: str) -> LayerBuilder:
    return LayerBuilder(scope.context.builder, LayerSurroundings(scope, spec), path, spec.name)


def _built(scope: Scope, spec: LayerSpec) -> Task[Outputs]:
    """Builds a layer at the builder's place. Raises NotChecked once its mistakes are reported."""
    context = scope.context
    path = scope.path_of(spec)
    context.layers.config_paths.setdefault(path, spec.path)
    b = _layer_builder(scope, spec, path)
    try:
        origin = Origin(path, str(context.locate(spec.path) or ""), recompute=scope.mark_of(spec))
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
    return finish_layer(scope, b, spec, (yield from _outputs(scope, spec, b.name, made)))


def _outputs(scope: Scope, spec: LayerSpec, path: str, made: View | Outputs | Building) -> Task[Outputs]:
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
