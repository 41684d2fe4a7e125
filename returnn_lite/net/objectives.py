"""Losses and constraints: from a layer's output to sums over real frames (SEMANTICS 1.5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from returnn_lite.dims import Dim, DimKind, Symbol
from returnn_lite.ir import Origin
from returnn_lite.ir.builder import Builder
from returnn_lite.ir.open_body import OUTERMOST
from returnn_lite.ir.ops.losses import FrameCount
from returnn_lite.ir.ops.search import SumOverBeam
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, LayerError, Outputs
from returnn_lite.layers.loss import Loss
from returnn_lite.net.context import LossValue, NetworkContext, NotChecked, OutputConstraint
from returnn_lite.net.decoding import LOSS_CLASSES, decode_options, unknown_name
from returnn_lite.net.hypotheses import hypotheses_of
from returnn_lite.net.outputs import LossParts, NetworkOutputs
from returnn_lite.net.parameters import parameters_below
from returnn_lite.net.resolution import target as target_of
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec


def add_layer_loss(scope: Scope, b: LayerBuilder, spec: LayerSpec, outputs: Outputs) -> None:
    """Builds the loss of a layer where the layer is: for each step of a loop, or for whole sequences.

    In search the steps of a loop are not those of the target, so that losses inside of it are left out.
    """
    options = spec.common.loss
    name = options.loss
    assert name is not None
    if scope.mode.search and (options.loss_only_on_non_search or scope.point.level > 0):
        return
    given = dict(options.loss_opts or {})
    if options.loss_scale is not None and given.get("scale", options.loss_scale) != options.loss_scale:
        raise LayerError("loss_scale and scale of loss_opts say the same", "Leave out one of them.", "loss_scale")
    scale = given.pop("scale", options.loss_scale)
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float)):
        raise LayerError(f"scale is a number, not {scale!r}", "", "loss_opts")
    loss = decoded_loss(scope.context, spec, name, given, "loss")

    def loss_of(options: Mapping[str, Any]) -> Loss:
        rest = {name: value for name, value in options.items() if name != "class"}
        return decoded_loss(scope.context, spec, options.get("class"), rest, "loss_opts")

    path, keys = scope.path_of(spec), targets_of(spec)
    for key in keys if loss.needs_target else (None,):
        target = target_of(scope, key) if key is not None else None
        terms = loss.terms(b, outputs.value, target, loss_of)
        report = f"{path}/{key}" if key is not None and len(keys) > 1 else path
        count = loss.own_count(b) if loss.has_own_count() else terms.count
        factor = 1.0 if scale is None else float(scale)
        scope.losses.append(LossValue(report, terms.value, terms.error, count, factor, loss.use_normalized_loss))


def decoded_loss(context: NetworkContext, spec: LayerSpec, name: object, options: Mapping[str, Any], at: str) -> Loss:
    """A loss by its name and options. Raises LayerError for an unknown name, at the option `at`."""
    if not isinstance(name, str) or name not in LOSS_CLASSES:
        raise LayerError(f"there is no loss '{name}'", unknown_name(str(name), list(LOSS_CLASSES)), at)
    loss = decode_options(context, LOSS_CLASSES[name], options, (*spec.path, "loss_opts"))
    if loss is None:
        raise NotChecked(spec.name)
    return loss


def targets_of(spec: LayerSpec) -> tuple[str | None, ...]:
    """The targets of a layer's loss: those of a list, else the layer's own or the default one."""
    given = spec.common.loss.target
    return tuple(given) if isinstance(given, list) and given else (spec.target,)


def add_constraint(scope: Scope, b: LayerBuilder, spec: LayerSpec, factor: float) -> None:
    """L2: factor times the sum of squares of the parameters of a layer, and of the layers inside of it."""
    context = scope.context
    with context.builder.at(OUTERMOST):
        for name in parameters_below(scope, spec):
            parameter, value = context.parameters.by_name[name]
            if parameter.trainable:
                context.constraints.append((factor, _sum_of_squares(context.builder, value)))


def add_output_constraints(scope: Scope, b: LayerBuilder, spec: LayerSpec, built: View, value: View) -> None:
    """Builds the constraints of a layer where the layer is: darc1 on what its class built, smoothing on its output.

    In search the steps of a loop have none.
    """
    options = spec.common.parameters
    if scope.mode.search and scope.point.level > 0:
        return
    path = scope.path_of(spec)
    if options.darc1:
        before = b.surroundings.compilation.preactivations.before_activation(b, built) or built
        along, size = _feature(before, "darc1"), b.unary("abs", before)
        scope.losses.append(OutputConstraint(f"{path}:darc1", size, None, None, options.darc1, largest_along=along))
    if options.spatial_smoothing:
        energy = smoothing_energy(b, value, _feature(value, "spatial_smoothing"))
        scope.losses.append(OutputConstraint(f"{path}:smoothing", energy, None, None, options.spatial_smoothing))


def _feature(value: View, option: str) -> Dim:
    feature = value.type.feature
    if feature is None or feature.size is None or not value.type.is_float:
        raise LayerError(f"the output is {value.type}, which has no float features", "", option)
    return feature


def smoothing_energy(b: LayerBuilder, x: View, feature: Dim) -> View:
    """For each frame the sum of squares of what a high-pass filter leaves of the features as an image.

    The image has h rows and w columns, w the largest divisor up to the square root, and is closed to a torus; the
    filter takes the mean of the eight neighbours off (Xiong et al. 2016, "Achieving Human Parity").
    """
    assert feature.size is not None
    width = next(w for w in range(math.isqrt(feature.size), 0, -1) if feature.size % w == 0)
    if width < 3:
        message = f"{feature} is no image of 3 rows and 3 columns at least: {feature.size // width} times {width}"
        raise LayerError(message, "Choose a size with such factors.", "spatial_smoothing")
    rows = Symbol(f"{b.name}:rows", DimKind.SPATIAL, feature.size // width)
    columns = Symbol(f"{b.name}:columns", DimKind.SPATIAL, width)
    image = b.split_dim(b.with_feature(x, None), feature, (rows, columns))
    neighbours = _with_both_sides(b, _with_both_sides(b, image, rows), columns)
    filtered = b.sub(b.mul(image, 1.125), b.mul(neighbours, 0.125))
    return b.reduce("sum", b.unary("square", filtered), (rows, columns))


def _with_both_sides(b: LayerBuilder, x: View, over: Dim) -> View:
    """The sum of each element and those before and after it along a dim that is closed to a ring."""
    total = x
    for distance in (1, (over.size or 1) - 1):
        place = b.copy_of_dim(over)
        index = b.binary("mod", b.add(b.iota(place), distance), over.size or 1)
        total = b.add(total, b.relabel(b.gather(x, index, over, clip=True), place, over))
    return total


def _sum_of_squares(builder: Builder, value: View) -> View:
    return builder.reduce("sum", builder.unary("square", value), value.type.dims)


def totals(context: NetworkContext) -> NetworkOutputs[View]:
    """All losses, the constraints, and the objective."""
    builder = context.builder
    losses: dict[str, LossParts[View]] = {}
    constraint: View | None = None
    objective: View | None = None
    output_constraints = [loss for loss in context.losses if isinstance(loss, OutputConstraint)]
    for loss in context.losses:
        if isinstance(loss, OutputConstraint):
            continue
        with builder.within(Origin(loss.name)):
            parts = losses[loss.name] = _parts(context, loss)
            if parts.sum is not None and loss.scale:
                scaled = builder.binary("divide_no_nan", parts.sum, parts.count) if loss.mean else parts.sum
                scaled = scaled if loss.scale == 1 else builder.mul(scaled, loss.scale)
                objective = scaled if objective is None else builder.add(objective, scaled)
    constraints = [*context.constraints, *((c.scale, _constraint(context, c)) for c in output_constraints)]
    if constraints:
        terms = [builder.mul(value, factor) for factor, value in constraints]
        constraint = terms[0]
        for term in terms[1:]:
            constraint = builder.add(constraint, term)
        objective = constraint if objective is None else builder.add(objective, constraint)
    return NetworkOutputs(losses=losses, constraints=constraint, objective=objective)


def _parts(context: NetworkContext, loss: LossValue) -> LossParts[View]:
    measured = loss.value if loss.value is not None else loss.error
    assert measured is not None, "a loss has a value or an error"
    count = _count(context, loss.count, measured)
    error = None if loss.error is None else _total(context, loss.error)
    return LossParts(count, None if loss.value is None else _total(context, loss.value), error)


def _constraint(context: NetworkContext, constraint: OutputConstraint) -> View:
    assert constraint.value is not None
    if constraint.largest_along is None:
        return _total(context, constraint.value)
    along = (constraint.largest_along,)
    return context.builder.reduce("max", _total(context, constraint.value, kept=along), along)


def _total(context: NetworkContext, value: View, kept: tuple[Dim, ...] = ()) -> View:
    """The sum over all frames of all sequences, and hypotheses. A frame of a ragged dim is there for each sequence.

    Of a value behind `prev:` it may show only later that it differs between these: so they are made explicit here.
    """
    builder = context.builder
    found = hypotheses_of(context, value)
    value = value if found is None else builder.apply(SumOverBeam(found.beam), value)
    value = builder.expand(value, *dict.fromkeys(_varied_over(builder, value.type.dims)))
    over = tuple(dim for dim in value.type.dims if dim not in kept)
    return builder.reduce("sum", builder.cast(value, "float32"), over)


def _varied_over(builder: Builder, dims: Iterable[Dim]) -> tuple[Dim, ...]:
    """The dims that the lengths of some vary over, and the lengths of these."""
    found = dict.fromkeys(over for dim in dims for over in builder.lengths_over(dim))
    return (*_varied_over(builder, found), *found) if found else ()


def _count(context: NetworkContext, count: View | float | None, measured: View) -> View:
    if isinstance(count, float):
        return context.builder.constant(count)
    if count is not None:
        return _total(context, count)
    return context.builder.apply(FrameCount(), measured)
