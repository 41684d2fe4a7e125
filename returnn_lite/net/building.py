"""The driver of the build: what a layer needs is built first, while the layer waits on a stack of its own, however deep
networks and chains are.

A layer is built once; how, `net/layer_building.py` says.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from returnn_lite.ir.views import View
from returnn_lite.layers.base import (
    LayerError,
    Outputs,
)
from returnn_lite.net.common_effects import joined_sources
from returnn_lite.net.context import NotChecked, Unavailable
from returnn_lite.net.expected_types import ExpectedTypes
from returnn_lite.net.layer_building import MISTAKES, built_layer, layer_builder, outputs_of_build, read_sources
from returnn_lite.net.output_claims import as_claimed
from returnn_lite.net.overlays import owner
from returnn_lite.net.previous_values import previous_outputs
from returnn_lite.net.references import Reference, ReferenceKind, parse_reference
from returnn_lite.net.scope import Driver, OneLayer, Result, Scope, SomeLayers, Task
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.unknown_names import no_such_layer, report_unknown_names, report_unknown_targets


class TaskDriver(Driver):
    """Runs tasks, each on top of those that wait for it."""

    def build(self, wanted: OneLayer | SomeLayers) -> None:
        """Builds layers with what they need. Raises LayerError, NotChecked and Unavailable for one that can't be."""
        _run(_task_of(wanted))

    def made_of(self, scope: Scope, spec: LayerSpec, sources: Sequence[View]) -> View:
        """What a layer makes of other values than its sources, at the builder's place."""
        b = layer_builder(scope, spec, scope.path_of(spec))
        made = spec.layer.build(b, *joined_sources(b, spec, sources))
        return as_claimed(scope, b, spec, _run(outputs_of_build(scope, spec, b.name, made)).value)

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
            outputs = yield from built_layer(scope, spec)
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
