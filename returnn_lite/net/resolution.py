"""What a reference stands for in a scope: a layer of it or of one around, the step before of one, data, a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from returnn_lite.dims import MarkedType
from returnn_lite.dims.axes import time_to_run_over
from returnn_lite.ir.ops.sources import StepIndex
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerError, Outputs
from returnn_lite.net.context import NotChecked, Unavailable
from returnn_lite.net.overlays import owner
from returnn_lite.net.references import UNIT, Reference, ReferenceKind, is_read_around, parse_reference
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.unknown_names import no_network_around, no_such_key, no_such_layer, no_such_part


def outputs_of(scope: Scope, text: str) -> Outputs:
    """What a reference stands for in a scope. Raises LayerError, NotChecked or Unavailable."""
    reference = parse_reference(text)
    kind, builder = reference.kind, scope.context.builder
    if scope.seen is not None and scope.parent is not None and is_read_around(reference):
        with builder.at(scope.parent.point):
            outputs = outputs_of(scope.parent, text)
        return replace(outputs, value=scope.seen(outputs.value))
    if kind is ReferenceKind.DATA:
        return Outputs(data(scope, reference.name))
    if kind is ReferenceKind.STEP:
        if builder.body is None:
            raise LayerError("':i' is the step of a loop, and there is none here")
        return Outputs(builder.apply(StepIndex()))
    if kind is ReferenceKind.BASE:
        return _from_parent(scope, reference.name)
    if kind is ReferenceKind.PREVIOUS:
        return scope.driver.previous(scope, reference)
    if kind is ReferenceKind.NONE:
        raise LayerError("'none' is no layer here")
    return part(owner(scope, reference), reference)


def part(scope: Scope, reference: Reference) -> Outputs:
    """A layer of this scope, or what is below it: `x`, `x/part`, `subnet/layer`."""
    outputs = scope.layer(reference.name)
    if not reference.parts:
        return outputs
    rest = "/".join(reference.parts)
    if rest in outputs.parts:
        found, spec = layer_of_part(scope, scope.spec.layers[reference.name], reference.parts)
        below = {
            key.removeprefix(f"{rest}/"): state for key, state in outputs.state.items() if key.startswith(f"{rest}/")
        }
        return Outputs(outputs.parts[rest], state=below if found is scope else found.built[spec.name].state)
    child = scope.children.get(reference.name)
    if child is not None and child.point.level == scope.point.level:
        return part(child, Reference(ReferenceKind.LAYER, reference.parts[0], reference.parts[1:]))
    raise no_such_part(scope, reference, list(outputs.parts))


def layer_of_part(scope: Scope, spec: LayerSpec, parts: Sequence[str]) -> tuple[Scope, LayerSpec]:
    """The layer that a part of a layer is, and its scope, once the layer is built; the layer itself if the part is a
    result of it (`x/0` of a split). A loop's parts are its own: they have its frames."""
    current = scope, spec
    for name in parts:
        inside = _scope_inside(*current)
        if inside is None or name not in inside.spec.layers:
            return scope, spec
        current = inside, inside.spec.layers[name]
    return current


def _scope_inside(scope: Scope, spec: LayerSpec) -> Scope | None:
    inside = scope.children.get(spec.name)
    while inside is not None and UNIT in inside.spec.layers:
        inside = inside.children.get(UNIT)
    return inside if inside is not None and inside.point.level == scope.point.level else None


def _from_parent(scope: Scope, text: str) -> Outputs:
    """A reference resolved in the parent. Its dims are not a loop's even where it has the loop's dim: `base:` is never
    sliced."""
    if scope.parent is None:
        raise no_network_around(text)
    with scope.context.builder.at(scope.parent.point):
        outputs = outputs_of(scope.parent, text)
    if scope.is_body and scope.loop is not None:
        outputs = replace(outputs, value=scope.loop.unsliced(outputs.value))
    return outputs


# Data and targets


def data(scope: Scope, key: str) -> View:
    """A data key: an input of this scope, published data, or what the scopes around have."""

    def is_here(one: Scope) -> bool:
        _build_publisher(one, key)
        return _has_own_data(one, key)

    return _from_around(scope, is_here, lambda one: _own_data(one, key), _data_inside)


def _from_around(
    scope: Scope,
    is_here: Callable[[Scope], bool],
    value_in: Callable[[Scope], View],
    inside: Callable[[Scope, View], View],
) -> View:
    """What the first scope has in which it is, or the outermost one, as each scope on the way in shows it."""
    builder, way = scope.context.builder, [scope]
    while not is_here(way[-1]) and way[-1].parent is not None:
        way.append(way[-1].parent)
    with builder.at(builder.point if way[-1] is scope else way[-1].point):
        value = value_in(way[-1])
    for one in reversed(way[:-1]):
        with builder.at(builder.point if one is scope else one.point):
            value = inside(one, value)
    return value


def _data_inside(scope: Scope, value: View) -> View:
    """Data of the scope around as they are here: a frame in a loop, of what runs over its dim or gives it frames."""
    if scope.seen is not None:
        return scope.seen(value)
    return scope.context.builder.element(value) if scope.is_body else value


def _own_data(scope: Scope, key: str) -> View:
    if _has_own_data(scope, key):
        return scope.published[key] if key in scope.published else scope.inputs[key]
    context = scope.context
    if key in context.published:
        return context.published[key]
    if key in context.extern_data.broken:
        raise NotChecked(key)
    if key not in context.extern_data:
        raise no_such_key(context, key)
    if not context.extern_data.entries[key].available_for_inference and not scope.mode.targets:
        raise Unavailable(f"data:{key}")
    return context.data(key)


def _build_publisher(scope: Scope, key: str) -> None:
    """Builds the layer of this scope that publishes a key, if there is one and it does not read the key itself."""
    name = scope.spec.publishers.get(key)
    if name is not None and name not in scope.in_progress:
        reference = Reference(ReferenceKind.LAYER, name)
        part(owner(scope, reference), reference)


def publish(scope: Scope, key: str, value: View) -> None:
    """Makes a value data of this name: everywhere, or in the loop around, whose frame it is. What an overlay publishes
    counts only where the network below does not."""
    if scope.below is not None and key in scope.below.spec.publishers:
        return
    while scope.parent is not None and scope.parent.point.level == scope.point.level:
        scope = scope.parent
    published = scope.context.published if scope.point.level == 0 else scope.published
    published[key] = value


def _has_own_data(scope: Scope, key: str) -> bool:
    """Whether a data key means something else here than around: an input, or what a step of this loop publishes."""
    return key in scope.published or key in scope.inputs


def has_own_target(scope: Scope, key: str) -> bool:
    """The same of a target; what a loop runs over is none."""
    return key in scope.published if scope.is_body else _has_own_data(scope, key)


def target(scope: Scope, key: str, option: str = "target") -> View:
    """The target of a key that an option names: published or extern data, or a layer (`layer:NAME`)."""
    try:
        if key.startswith("layer:"):
            return outputs_of(scope, key.removeprefix("layer:")).value
        return _from_around(
            scope,
            lambda one: has_own_target(one, key),
            lambda one: data(one, key),
            lambda one, value: _target_inside(one, key, value),
        )
    except LayerError as error:
        raise error.at(option) from error


def _target_inside(scope: Scope, key: str, value: View) -> View:
    """A target of the scope around as it is here: a frame in a loop, whose dim its time is declared to be."""
    if scope.is_body and scope.loop is not None:
        builder, over, time = scope.context.builder, scope.loop.over, time_to_run_over(value.type)
        if over not in value.type and time is not None:
            with builder.at(scope.loop.around):
                value = builder.relabel(value, time, over, f"the target '{key}' and the loop of '{scope.path}'")
    return _data_inside(scope, value)


def target_type(scope: Scope, key: str, option: str = "target") -> MarkedType:
    """The type of a target, which an option names, and which may not be available as a value in this mode."""
    if _is_extern_data(scope, key):
        return scope.context.extern_data.entries[key].type
    try:
        return target(scope, key, option).type
    except Unavailable:
        expected = _type_of_published(scope, key)
        if expected is None:
            raise
        return expected


def _is_extern_data(scope: Scope, key: str) -> bool:
    """Whether a target means here what comes from outside, and nothing that the network makes."""
    while not has_own_target(scope, key) and scope.parent is not None:
        scope = scope.parent
    return not has_own_target(scope, key) and key in scope.context.extern_data and key not in scope.context.published


def _type_of_published(scope: Scope, key: str) -> MarkedType | None:
    """The type that a layer of this scope or of one around publishes, as far as it is known without its value."""
    while key not in scope.spec.publishers and scope.parent is not None:
        scope = scope.parent
    name = scope.spec.publishers.get(key)
    return None if name is None else scope.expected.of(scope.spec.layers[name])


def gold_label(scope: Scope, key: str) -> View:
    """The label of a target that a choice takes without search. Where search says how many steps there are, it is 0
    beyond the target's end."""
    body = scope
    while not body.is_body and body.parent is not None:
        body = body.parent
    loop, parent = body.loop, body.parent
    if loop is None or parent is None or key.startswith("layer:"):
        return target(scope, key)
    if loop.limit is None or has_own_target(body, key):
        return target(body, key)
    builder = scope.context.builder
    with builder.at(loop.around):
        whole = target(parent, key)
    time = whole.type.default_time
    if time is None:
        return whole
    step = builder.apply(StepIndex())
    label = builder.gather(loop.unsliced(whole), step, time, clip=True)
    return builder.select(builder.binary("less", step, builder.length(time)), label, builder.like(0, label))


# Layers by name


def find_spec(scope: Scope, reference: str) -> tuple[Scope, LayerSpec]:
    """The layer that a reference in `reuse_params` names, and its scope."""
    while scope.seen is not None and scope.parent is not None:
        scope = scope.parent
    if reference.startswith("base:"):
        if scope.parent is None:
            raise LayerError(f"'{reference}': the network is not inside another one", "", "reuse_params")
        return find_spec(scope.parent, reference.removeprefix("base:"))
    named = parse_reference(reference)
    if named.kind not in (ReferenceKind.LAYER, ReferenceKind.OVERLAY):
        raise no_such_layer(scope, reference).at("reuse_params")
    found = owner(scope, named)
    if named.name not in found.spec.layers:
        raise no_such_layer(found, named.name).at("reuse_params")
    if not named.parts:
        return found, found.spec.layers[named.name]
    found.layer(named.name)
    if named.name not in found.children:
        raise LayerError(f"layer '{named.name}' has no layers inside", "", "reuse_params")
    return find_spec(found.children[named.name], "/".join(named.parts))
