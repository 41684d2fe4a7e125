"""The body of a `rec` layer: which dim it runs over, its roots, how it ends, and what the outside sees of it
(SEMANTICS 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from returnn_lite.config.options import AxisSpec
from returnn_lite.dims import Copy, Dim, DimKind, Symbol, TensorType
from returnn_lite.dims.axes import default_time, resolve_axis
from returnn_lite.ir import Ending, Value
from returnn_lite.ir.builder import OpenState, kept_name
from returnn_lite.ir.ops.reduction import Last
from returnn_lite.ir.ops.search import Decide
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.layers.base import Hypotheses, LayerError, LoopRequest, Outputs
from returnn_lite.net.context import LossValue, NetworkContext
from returnn_lite.net.failures import NotChecked, Unavailable
from returnn_lite.net.hypothesis_scores import HypothesisScores, hypotheses_of
from returnn_lite.net.max_length import max_length
from returnn_lite.net.parameters import ParameterScope, scope_of_parameters
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec, NetworkSpec, read_network, root_layers
from returnn_lite.net.tasks import SomeLayers, Task


class LoopScope(Scope):
    """The layers of a loop body."""

    def __init__(
        self,
        context: NetworkContext,
        spec: NetworkSpec,
        path: str,
        parameters: ParameterScope,
        parent: Scope,
        inputs: Mapping[str, Value],
        over: Dim,
        limit: Value | None,
    ) -> None:
        super().__init__(context, spec, path, parameters, parent, inputs)
        self.loop = self
        self.over = over
        self.limit = limit
        """The most steps of each sequence, if `end` says how many there are."""
        self.losses: list[LossValue] = []
        self.scores = HypothesisScores(self)
        self._ended_before: Value | None = None
        self._ended: OpenState | None = None
        self._renamed: dict[Value, Value] = {}

    def base(self, text: str) -> Outputs:
        """A value from around, whose dims are not the loop's even where it has the loop's dim: `base:` is never
        sliced."""
        outputs = super().base(text)
        return replace(outputs, value=self.unsliced(outputs.value))

    def unsliced(self, value: Value) -> Value:
        """The value with a copy of the loop's dim in place of it."""
        if self.over not in value.type:
            return value
        if value not in self._renamed:
            builder = self.context.builder
            copy = Copy(f"{self.over.name}'", self.over.kind, self.over.size, self.over.over, of=self.over)
            with builder.at(self.outer_place):
                self._renamed[value] = builder.relabel(value, self.over, copy, "a copy for use inside the loop")
        return self._renamed[value]

    def data_from_around(self, value: Value) -> Value:
        """A frame of data that runs over the loop's dim, or over what it takes frames of; other data whole."""
        return self.context.builder.element(value)

    def has_own_target(self, key: str) -> bool:
        """Whether a step publishes the target; what the loop runs over is none."""
        return key in self.published

    def target_from_around(self, key: str, value: Value) -> Value:
        """A frame of the target; its time dim is declared to be the loop's."""
        builder = self.context.builder
        time = _time_of(value.type)
        if self.over not in value.type and time is not None:
            with builder.at(self.outer_place):
                reason = f"the target '{key}' and the loop of '{self.path}'"
                value = builder.relabel(value, time, self.over, reason)
        return builder.element(value)

    def searches(self) -> bool:
        """Whether a choice of this loop, or of one around, searches."""
        own = any(spec.layer.searches(self.mode) for spec in self.spec.layers.values())
        return own or (self.parent is not None and self.parent.searches())

    def label_at_step(self, key: str) -> Value:
        """The target's label at this step. Where search says how many steps there are, 0 beyond the target's end."""
        if self.limit is None or key.startswith("layer:") or self.has_own_target(key) or self.parent is None:
            return self.target(key)
        builder = self.context.builder
        with builder.at(self.outer_place):
            whole = self.parent.target(key)
        time = default_time(whole.type)
        if time is None:
            return whole
        step = builder.apply(StepIndex())
        label = builder.gather(self.unsliced(whole), step, time, clip=True)
        return builder.select(builder.binary("less", step, builder.length(time)), label, builder.like(0, label))

    def ended_before(self) -> Value:
        """Whether a hypothesis (a sequence) had ended before this step."""
        if self._ended_before is None:
            with self.context.builder.at(self.place):
                self._ended_before = self._make_ended_before()
        return self._ended_before

    def _make_ended_before(self) -> Value:
        builder = self.context.builder
        step = builder.apply(StepIndex())
        limit = self.limit if self.limit is not None else builder.length(self.over)
        beyond = builder.binary("greater_equal", step, limit)
        if self.limit is None:
            return beyond
        with builder.at(self.outer_place):
            not_yet = builder.constant(False, "bool")
        self._ended = builder.delay(f"{self.path}:ended", TensorType((), "bool"), not_yet)
        return builder.binary("logical_or", self._ended.now, beyond)

    def ending(self, include_end: bool) -> Ending | None:
        """How the loop ends, if its length is not known before."""
        if self.limit is None:
            return None
        before = self.ended_before()
        builder = self.context.builder
        with builder.at(self.place):
            ended = builder.binary("logical_or", self.layer("end").value, before)
            if include_end:  # the last step that its limit allows is the one that a sequence ends with
                last = builder.binary("greater_equal", builder.add(builder.apply(StepIndex()), 1), self.limit)
                ended = builder.binary("logical_or", ended, last)
        assert self._ended is not None
        self._ended.next = ended
        return Ending(ended, self.limit, include_end)


def built_loop(scope: Scope, spec: LayerSpec, path: str, request: LoopRequest) -> Task[Outputs]:
    """Builds a rec layer with a subnetwork and returns its stacked output; sub-layers marked as outputs are parts."""
    context, builder = scope.context, scope.context.builder
    network = read_network(context, request.layers, (*spec.path, "unit"), scope.mode)
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
    opened = builder.open_loop(over, frames)
    try:
        if source is not None:
            inputs = dict.fromkeys(("data", "source"), builder.element(source, f"{path}/data"))
        parameters = scope_of_parameters(scope, spec).inside(spec.layer.inner_scope)
        body = LoopScope(context, network, path, parameters, scope, inputs, over, limit)
        if limit is not None:
            opened.ended_before = body.ended_before
        scope.children[spec.name] = body
        return (yield from _finish_loop(body, scope, path, request))
    except BaseException:
        builder.abandon_loops(scope.place)
        raise


def _require_new_dim(scope: Scope, over: Dim) -> None:
    """Fails if a loop around runs over the same dim: its frames are one step of that."""
    around: Scope | None = scope
    while around is not None:
        if isinstance(around, LoopScope) and around.over == over:
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
    time = None if source is None else _time_of(source.type)
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


def _dims_of_frames(scope: Scope, network: NetworkSpec, source: Value | None) -> Iterator[Dim]:
    """What a loop that ends itself takes a frame of in each step, so that it has at most as many."""
    time = None if source is None else _time_of(source.type)
    if time is not None:
        yield time
    for other in network.layers.values():
        axis = other.layer.axis_of_frames()
        if axis is not None and other.sources[0].startswith(("base:", "data:")):
            yield _unstacked_dim(scope, other, axis)


def _time_of(type_: TensorType) -> Dim | None:
    return type_.time or next((dim for dim in type_.dims if dim.is_ragged), None)


def _unstacked_dim(scope: Scope, spec: LayerSpec, axis: AxisSpec) -> Dim:
    if isinstance(axis, Dim):
        return axis
    value = scope.outputs(spec.sources[0].removeprefix("base:")).value
    return resolve_axis(axis, value.type, scope.context.builder.layers_with)


def _time_of_target(scope: Scope, key: str, option: str) -> Dim:
    scope.target(key, option)  # an input, even where no layer reads the target: its lengths are needed
    type_ = scope.target_type(key, option)
    time = _time_of(type_)
    if time is None:
        raise LayerError(f"the target '{key}' has no time dim to loop over: {type_}", "", option)
    return time


def _finish_loop(body: LoopScope, scope: Scope, path: str, request: LoopRequest) -> Task[Outputs]:
    context, builder = body.context, body.context.builder
    roots = root_layers(body.spec, in_loop=True)
    yield SomeLayers(body, roots + (["end"] if body.limit is not None else []), all_of_them=True)
    if body.scores.beam is not None and scope.place.level > 0:
        raise LayerError(
            "a search in a loop inside of another loop is not supported", "Choose in the outer loop.", "unit"
        )
    ending = body.ending(request.include_eos) if "end" not in body.failed else None
    yield from _complete_previous(body)
    body.scores.complete()
    if body.failed or body.spec.broken:
        raise NotChecked(path)
    stacks = [(f"{path}/{name}", outputs.value) for name, outputs in body.built.items()]
    stacks += [
        (f"{path}/{name}/{part}", v) for name, outputs in body.built.items() for part, v in outputs.parts.items()
    ]
    losses = [
        (f"{path}:{kind}:{index}", value)
        for index, loss in enumerate(body.losses)
        for kind, value in (("value", loss.value), ("error", loss.error), ("count", _count_in_body(body, loss)))
        if value is not None
    ]
    finals = [] if body.scores.reported is None else [(f"{path}:scores", body.scores.reported)]
    finals += [] if body.scores.pointers is None else [(f"{path}:pointers", body.scores.pointers)]
    opened = builder.body
    assert opened is not None
    outer = builder.close_loop([*stacks, *losses], finals, ending)
    if body.scores.beam is not None:
        scores, pointers = outer[f"{path}:scores"], outer[f"{path}:pointers"]
        found = Hypotheses(body.scores.beam, scores, body.over, body.limit is not None, pointers)
        context.hypotheses.append(found)
    for before, _ in opened.kept:
        _assign_last(context, before, builder.apply(Last(body.over), outer[kept_name(before)], before))
    for index, loss in enumerate(body.losses):
        value, error, count = (outer.get(f"{path}:{kind}:{index}") for kind in ("value", "error", "count"))
        scope.add_loss(replace(loss, value=value, error=error, count=loss.count if count is None else count))
    return _seen_from_outside(body, path, outer)


def _assign_last(context: NetworkContext, before: Value, last: Value) -> None:
    """Has what is behind a loop assigned for the next batch; of hypotheses that of the best."""
    found = hypotheses_of(context, last)
    if found is not None:
        last = context.builder.apply(Decide(found.beam, ()), last, found.scores)
    context.builder.assign(before, last)


def _count_in_body(body: LoopScope, loss: LossValue) -> Value | None:
    """What a loss counts in each step; None for a number, and for a value from around the loop, which counts once."""
    opened = body.context.builder.body
    assert opened is not None
    return loss.count if isinstance(loss.count, Value) and loss.count in opened.values else None


def _seen_from_outside(body: LoopScope, path: str, outer: Mapping[str, Value]) -> Outputs:
    builder = body.context.builder
    parts = {}
    for name, spec in body.spec.layers.items():
        whole = outer.get(f"{path}/{name}")
        if whole is None:
            continue
        timed = builder.annotate(whole, sparse=whole.type.sparse, feature=whole.type.feature, time=body.over)
        body.context.layer_values[f"{path}/{name}"] = timed
        if spec.common.output.is_output_layer or spec.common.output.need_last or name == "output":
            parts[name] = timed
            prefix = f"{path}/{name}/"
            parts.update(
                {f"{name}/{key.removeprefix(prefix)}": v for key, v in outer.items() if key.startswith(prefix)}
            )
    return Outputs(parts["output"], parts, initial=_initial_outputs(body, path, outer))


def _initial_outputs(body: LoopScope, path: str, outer: Mapping[str, Value]) -> dict[str, Value]:
    """What the layers whose last frame is wanted were before the first step, where their options say."""
    found: dict[str, Value] = {}
    for name, spec in body.spec.layers.items():
        whole = outer.get(f"{path}/{name}")
        if spec.common.output.need_last and whole is not None:
            value = body.previous.initial(spec, whole.type.without(body.over))
            found |= {} if value is None else {name: value}
    return found


def _complete_previous(body: LoopScope) -> Task[None]:
    """Connects every State of the body and of the subnetworks in it; that may build layers, which may need more
    States."""
    progress = True
    while progress:
        progress = False
        for scope in list(_scopes_in(body)):
            for reference in scope.previous.pending():
                progress = True
                yield SomeLayers(scope, [reference.name])
                try:
                    scope.previous.complete(reference)
                except (NotChecked, Unavailable):
                    body.failed.add(reference.name)
                except LayerError as error:
                    body.failed.add(reference.name)
                    body.context.report(scope.spec.layers[reference.name], error)


def _scopes_in(scope: Scope) -> Iterator[Scope]:
    """A scope and those of the networks in it that are no loops."""
    waiting = [scope]
    while waiting:
        one = waiting.pop()
        yield one
        inside = [child for child in one.children.values() if child.place.level == one.place.level]
        waiting += reversed(inside)
