"""The body of a `rec` layer: which dim it runs over, its roots, how it ends, and what the outside sees of it
(SEMANTICS 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from returnn_lite.config.options import AxisSpec
from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.dims.axes import resolve_axis, time_to_run_over
from returnn_lite.dims.names import numbered
from returnn_lite.ir.open_body import kept_name
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.ops.search import Decide
from returnn_lite.ir.views import View
from returnn_lite.layers.base import Hypotheses, LayerError, LoopRequest, Outputs
from returnn_lite.net.context import LossValue, NetworkContext, NotChecked, Unavailable
from returnn_lite.net.hypotheses import hypotheses_of
from returnn_lite.net.initial_outputs import initial_output
from returnn_lite.net.inner_scopes import network_inside
from returnn_lite.net.loop_body import LoopBody
from returnn_lite.net.made_frames import layers_of_all_steps
from returnn_lite.net.max_length import max_length
from returnn_lite.net.parameters import scope_of_parameters
from returnn_lite.net.previous_values import connect
from returnn_lite.net.references import ReferenceKind
from returnn_lite.net.resolution import outputs_of, target, target_type
from returnn_lite.net.scope import Scope, SomeLayers, Task
from returnn_lite.net.specs import LayerSpec, NetworkSpec, root_layers


def built_loop(scope: Scope, spec: LayerSpec, path: str, request: LoopRequest) -> Task[Outputs]:
    """Builds a rec layer with a subnetwork and returns its stacked output; sub-layers marked as outputs are parts."""
    context, builder = scope.context, scope.context.builder
    network = network_inside(scope, spec, request.layers, "unit")
    if "output" not in network.layers and "output" not in network.broken:
        raise LayerError(
            "the unit has no layer 'output'", "Name the layer whose frames are the result 'output'.", "unit"
        )
    over = _known_dim(scope, spec, network, request)
    limit = None
    frames: tuple[Dim, ...] = ()
    if over is None:
        if "end" not in network.layers:
            raise LayerError(
                "the number of steps is not known here: there is no source with time, and no layer 'end'",
                "Add a layer 'end' to the unit: true when a sequence ends.",
                "unit",
            )
        frames = tuple(_dims_of_frames(scope, network, request.source))
        limit = max_length(scope, request.max_seq_len, frames)
        over = Symbol(f"{path}:time", DimKind.SPATIAL, None, (context.extern_data.batch,))
    _require_new_dim(scope, over)
    inputs = {}
    source = request.source
    opened = builder.open_loop(over, frames, request.unroll)
    try:
        if source is not None and (limit is None or time_to_run_over(source.type) in (None, *frames)):
            inputs = dict.fromkeys(("data", "source"), builder.element(source, f"{path}/data"))
        parameters = scope_of_parameters(scope, spec).inside(spec.layer.inner_scope)
        searches = scope.searches or any(other.layer.searches(scope.mode) for other in network.layers.values())
        loop = LoopBody(builder, path, over, limit, scope.point, context.extern_data.batch, searches)
        if limit is not None:
            opened.ended_before = loop.ended_before
        body = scope.inside(network, path, parameters, inputs, body=loop, marks=scope.marks_inside(spec))
        scope.children[spec.name] = body
        return (yield from _finish_loop(body, loop, scope, request))
    except BaseException:
        builder.abandon_loops(scope.point)
        raise


def _require_new_dim(scope: Scope, over: Dim) -> None:
    """Fails if a loop around runs over the same dim: its frames are one step of that."""
    around: Scope | None = scope
    while around is not None:
        if around.loop is not None and around.loop.over == over:
            raise LayerError(
                f"the loop would run over {over}, but so does the loop around, which sees one frame of it",
                "Give a source with a time of its own, or an 'axis'.",
            )
        around = around.parent


def _known_dim(scope: Scope, spec: LayerSpec, network: NetworkSpec, request: LoopRequest) -> Dim | None:
    """The dim of the loop if its length is known (SEMANTICS 3.3), in this order: axis, source, size_target, target.

    In search a layer `end` decides the length even of a loop with a source, up to its frames, unless there is a
    size_target, or a choice that keeps the target among the hypotheses, or losses are computed beside the search, which
    is an overlay's.
    """
    source = request.source
    size_target = spec.common.loss.size_target
    keeps_target = any(other.layer.keeps_target() for other in network.layers.values())
    by_end = scope.mode.search and not scope.mode.steps_of_target and not keeps_target
    if by_end and "end" in network.layers and request.axis is None and size_target is None:
        return None
    if request.axis is not None:
        if isinstance(request.axis, Dim):
            return request.axis
        if source is None:
            raise LayerError(f"axis {request.axis!r}: there is no source to find it in", "Give 'from'.", "axis")
        return resolve_axis(request.axis, source.type, scope.context.builder.layers_with)
    time = None if source is None else time_to_run_over(source.type)
    if time is not None:
        return time
    for other in network.layers.values():
        axis = other.layer.axis_of_loop()
        if axis is not None:
            return _unstacked_dim(scope, other, axis)
    if size_target is not None:
        return _time_of_target(scope, size_target, "size_target")
    if spec.target is not None and scope.mode.targets and not by_end:
        return _time_of_target(scope, spec.target, "target")
    return None


def _dims_of_frames(scope: Scope, network: NetworkSpec, source: View | None) -> Iterator[Dim]:
    """What a loop that ends itself takes a frame of in each step, so that it has at most as many; a source that no step
    reads says nothing."""
    time = None if source is None else time_to_run_over(source.type)
    links = (link for other in network.layers.values() for link in other.links)
    if time is not None and any(link.reference.kind is ReferenceKind.DATA for link in links):
        yield time
    for other in network.layers.values():
        axis = other.layer.axis_of_frames()
        if axis is not None and other.sources[0].startswith(("base:", "data:")):
            yield _unstacked_dim(scope, other, axis)


def _unstacked_dim(scope: Scope, spec: LayerSpec, axis: AxisSpec) -> Dim:
    if isinstance(axis, Dim):
        return axis
    value = outputs_of(scope, spec.sources[0].removeprefix("base:")).value
    return resolve_axis(axis, value.type, scope.context.builder.layers_with)


def _time_of_target(scope: Scope, key: str, option: str) -> Dim:
    target(scope, key, option)  # an input, even where no layer reads the target: its lengths are needed
    type_ = target_type(scope, key, option)
    time = time_to_run_over(type_)
    if time is None:
        raise LayerError(f"the target '{key}' has no time dim to loop over: {type_}", "", option)
    return time


def _finish_loop(body: Scope, loop: LoopBody, scope: Scope, request: LoopRequest) -> Task[Outputs]:
    context, builder, path = body.context, body.context.builder, body.path
    roots = root_layers(body.spec, in_loop=True)
    yield SomeLayers(body, roots + (["end"] if loop.limit is not None else []), all_of_them=True)
    if loop.beam is not None and scope.point.level > 0:
        raise LayerError(
            "a search in a loop inside of another loop is not supported", "Choose in the outer loop.", "unit"
        )
    ending = None
    if loop.limit is not None and "end" not in body.failed:
        ending = loop.ending(body.layer("end").value, request.include_eos)
    yield from _connect_previous(body)
    loop.complete_scores()
    stacks = list(layers_of_all_steps(body))
    if body.failed or body.spec.broken:
        raise NotChecked(path)
    names = [f"{path}:{name}" for name in numbered(loss.name.removeprefix(f"{path}/") for loss in body.losses)]
    losses = [
        (f"{name}:{kind}", value)
        for name, loss in zip(names, body.losses, strict=True)
        for kind, value in (("value", loss.value), ("error", loss.error), ("count", _count_in_body(body, loss)))
        if value is not None
    ]
    left = ((f"{path}:scores", loop.reported), (f"{path}:pointers", loop.pointers))
    finals = [(name, value) for name, value in left if value is not None]
    opened = builder.body
    assert opened is not None
    outer = builder.close_loop([*stacks, *losses], finals, ending)
    if loop.beam is not None:
        scores, pointers = outer[f"{path}:scores"], outer[f"{path}:pointers"]
        found = Hypotheses(loop.beam, scores, loop.over, loop.limit is not None, pointers)
        context.hypotheses.append(found)
    for before, _ in opened.kept:
        _assign_last(context, before, builder.apply(Last(loop.over), outer[kept_name(before)], before))
    for name, loss in zip(names, body.losses, strict=True):
        value, error, count = (outer.get(f"{name}:{kind}") for kind in ("value", "error", "count"))
        scope.losses.append(replace(loss, value=value, error=error, count=loss.count if count is None else count))
    return _seen_from_outside(body, loop.over, outer)


def _assign_last(context: NetworkContext, before: View, last: View) -> None:
    """Has what is behind a loop assigned for the next batch; of hypotheses that of the best."""
    found = hypotheses_of(context, last)
    if found is not None:
        last = context.builder.apply(Decide(found.beam, ()), last, found.scores)
    context.builder.assign(before, last)


def _count_in_body(body: Scope, loss: LossValue) -> View | None:
    """What a loss counts in each step; None for a number, and for a value from around the loop, which counts once."""
    opened = body.context.builder.body
    assert opened is not None
    return loss.count if isinstance(loss.count, View) and loss.count in opened.values else None


def _seen_from_outside(body: Scope, over: Dim, outer: Mapping[str, View]) -> Outputs:
    builder, path = body.context.builder, body.path
    parts: dict[str, View] = {}
    inside: dict[str, dict[str, View]] = {}
    for key, value in outer.items():
        below = key.removeprefix(f"{path}/")
        name, slash, _ = below.partition("/")
        if slash and below != key:
            inside.setdefault(name, {})[below] = value
    for name, spec in body.spec.layers.items():
        whole = outer.get(f"{path}/{name}")
        if whole is None:
            continue
        timed = builder.with_time(whole, over)
        body.context.layers.values[f"{path}/{name}"] = timed
        if spec.common.output.is_output_layer or spec.common.output.need_last or name == "output":
            parts |= {name: timed, **inside.get(name, {})}
    return Outputs(parts["output"], parts, initial=_initial_outputs(body, over, outer))


def _initial_outputs(body: Scope, over: Dim, outer: Mapping[str, View]) -> dict[str, View]:
    """What the layers whose last frame is wanted were before the first step, where their options say."""
    found: dict[str, View] = {}
    for name, spec in body.spec.layers.items():
        whole = outer.get(f"{body.path}/{name}")
        if spec.common.output.need_last and whole is not None:
            value = initial_output(body, spec, whole.type.without(over))
            found |= {} if value is None else {name: value}
    return found


def _connect_previous(body: Scope) -> Task[None]:
    """Connects every State of the body and of the subnetworks in it."""
    for scope, reference in body.unconnected:  # grows: layers that are built for this may need more States
        yield SomeLayers(scope, [reference.name])
        try:
            connect(scope, reference)
        except (NotChecked, Unavailable):
            body.failed.add(reference.name)
        except LayerError as error:
            body.failed.add(reference.name)
            body.context.report(scope.spec.layers[reference.name], error)
