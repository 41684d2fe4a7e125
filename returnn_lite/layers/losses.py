"""The losses of single frames: from an output and its target to an unreduced value, error and count (SEMANTICS 1.5).

`net` sums them over every real frame. Nothing here sees padding, loops or batches.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from returnn_lite.config.options import option
from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.ops.elementwise import PrintValue, StraightThroughClip
from returnn_lite.ir.ops.losses import SigmoidCrossEntropy, SparseCrossEntropy
from returnn_lite.ir.ops.reduction import ArgReduce
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.loss import Loss, LossTerms, fitted_target


class CrossEntropy(Loss, names=("ce",)):
    """-log p[target], summed over real frames; the error counts the frames whose best class is another."""

    focal_loss_factor: float = option("f of (1-p)**f, which the loss is multiplied by", default=0.0)
    label_smoothing: float = option("probability that is spread over the other classes", default=0.0)
    label_smoothing_gaussian: bool = option(
        "weighs each class by a Gaussian over its distance to the true one, 1 - label_smoothing wide", default=False
    )
    use_fused: bool = option("which implementation; the result is the same", default=True)
    input_type: Literal["prob", "logits"] = option("what the output is", default="prob")
    safe_log_opts: dict[str, Any] | None = option(
        "of the logarithm of probabilities that are not a softmax's (of that it is exact); eps: the least of them; "
        "use_fake_grad: below eps, too, the gradient is that at eps, by default",
        default=None,
    )
    debug_dump: bool = option("prints the target and its probabilities", default=False)
    fake_upper_bound: float | None = option(
        "bounds the value of each frame; the gradient is that without it", default=None
    )

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        if not 0.0 <= self.label_smoothing <= 1.0:
            b.fail(f"label_smoothing is a probability, not {self.label_smoothing}", "", "loss_opts")
        if self.safe_log_opts is not None:
            self._safe_log_options(b)
        target = fitted_target(b, output, target)
        if self.input_type == "logits":
            logits = output
        scores = logits if logits is not None else output
        classes = b.feature_of(scores)
        if target.type.sparse is None:
            if self.label_smoothing or self.label_smoothing_gaussian or self.focal_loss_factor or self.debug_dump:
                b.fail(
                    f"label_smoothing, focal_loss_factor and debug_dump want a sparse target, not {target.type}",
                    "leave them out",
                    "loss_opts",
                )
            target = _same_feature(b, target, classes)
            value = self._dense(b, output, logits, target, classes)
        else:
            value = of_target = self._sparse(b, output, logits, target, classes)
            if self.debug_dump:
                self._dump(b, target, of_target)
            if self.label_smoothing:
                value = self._smoothed(b, _log_probabilities(b, output, logits, classes), target, classes)
            value = self._focused(b, value, of_target)
        if self.fake_upper_bound is not None:
            value = b.apply(StraightThroughClip(upper=float(self.fake_upper_bound)), value)
        return LossTerms(value, _frame_errors(b, scores, target, classes))

    def _sparse(self, b: LayerBuilder, output: View, logits: View | None, target: View, classes: Dim) -> View:
        if self.label_smoothing_gaussian and not 0 < self.label_smoothing < 1:
            b.fail(
                f"a Gaussian needs a label_smoothing between 0 and 1, not {self.label_smoothing:g}",
                "set it, or leave label_smoothing_gaussian out",
                "loss_opts",
            )
        if logits is not None:
            return b.apply(SparseCrossEntropy(classes), logits, target)
        return b.unary("neg", self._safe_log(b, b.gather(output, target, classes)))

    def _dump(self, b: LayerBuilder, target: View, of_target: View) -> None:
        probability = b.unary("exp", b.unary("neg", of_target))
        for name, value in (("target", target), ("probability of the target", probability)):
            b.ir.require_computed(b.apply(PrintValue(f"{b.name} {name}", 10000), value))

    def _safe_log(self, b: LayerBuilder, p: View) -> View:
        if self.safe_log_opts is None:
            return b.unary("safe_log", p)
        least, straight = self._safe_log_options(b)
        return b.unary(
            "log", b.apply(StraightThroughClip(lower=least), p) if straight else b.binary("maximum", p, least)
        )

    def _safe_log_options(self, b: LayerBuilder) -> tuple[float, bool]:
        if self.label_smoothing:
            b.fail("safe_log_opts has no influence on smoothed labels", "leave it out", "loss_opts")
        given = {"eps": 1e-20, "use_fake_grad": True, **(self.safe_log_opts or {})}
        if set(given) != {"eps", "use_fake_grad"}:
            b.fail(f"safe_log_opts has eps and use_fake_grad, not {', '.join(sorted(given))}", "", "loss_opts")
        least, straight = given["eps"], given["use_fake_grad"]
        if isinstance(least, bool) or not isinstance(least, int | float) or not least > 0:
            b.fail(f"safe_log_opts: eps is a positive number, not {least!r}", "", "loss_opts")
        if not isinstance(straight, bool):
            b.fail(f"safe_log_opts: use_fake_grad is true or false, not {straight!r}", "", "loss_opts")
        return float(least), straight

    def _smoothed(self, b: LayerBuilder, log_p: View, target: View, classes: Dim) -> View:
        """Cross-entropy with a soft target, less the entropy of the uniformly smoothed one, so that with that its
        minimum is 0."""
        size, eps = classes.size, self.label_smoothing
        if size is None or size < 2:
            b.fail(f"label smoothing needs several classes, not {classes}", "", "loss_opts")
        other = eps / (size - 1)
        if self.label_smoothing_gaussian:
            weighted = b.dot(_gaussian(b, target, classes, 1 - eps), log_p, classes)
        else:
            chosen = b.gather(log_p, target, classes)
            total = b.reduce("sum", log_p, classes)
            weighted = b.add(b.mul(chosen, 1.0 - eps - other), b.mul(total, other))
        entropy = -((1 - eps) * math.log(1 - eps) if eps < 1 else 0.0) - eps * math.log(other)
        return b.sub(b.unary("neg", weighted), entropy)

    def _dense(self, b: LayerBuilder, output: View, logits: View | None, target: View, classes: Dim) -> View:
        log_p = self._safe_log(b, output) if logits is None else b.softmax(logits, classes, log=True)
        return b.unary("neg", b.dot(target, log_p, classes))

    def _focused(self, b: LayerBuilder, value: View, of_target: View) -> View:
        """The loss weighted by how improbable the target is; `of_target` is -log p[target]."""
        if not self.focal_loss_factor:
            return value
        rest = b.sub(1.0, b.unary("exp", b.unary("neg", of_target)))
        return b.mul(b.binary("pow", rest, self.focal_loss_factor), value)


def _gaussian(b: LayerBuilder, target: View, classes: Dim, deviation: float) -> View:
    """The density of a normal distribution around the target, at each class.

    It does not add up to 1. RETURNN takes it for normalised in the gradient where it fuses a softmax with the loss;
    here the gradient is always the derivative of the loss.
    """
    distance = b.sub(b.cast(b.iota(classes), "float32"), b.cast(target, "float32"))
    exponent = b.mul(b.mul(distance, distance), -0.5 / deviation**2)
    return b.mul(b.unary("exp", exponent), 1 / (deviation * math.sqrt(2 * math.pi)))


def _log_probabilities(b: LayerBuilder, output: View, logits: View | None, classes: Dim) -> View:
    return b.unary("safe_log", output) if logits is None else b.softmax(logits, classes, log=True)


def _same_feature(b: LayerBuilder, target: View, classes: Dim) -> View:
    return b.relabel(target, b.feature_of(target), classes, f"the classes of '{b.name}' and of its target")


def _frame_errors(b: LayerBuilder, scores: View, target: View, classes: Dim) -> View:
    """1 for each frame whose best class is not the target's."""
    best = b.apply(ArgReduce("max", classes), scores)
    wanted = target if target.type.sparse is not None else b.apply(ArgReduce("max", classes), target)
    return b.cast(b.binary("not_equal", b.cast(best, "int32"), b.cast(wanted, "int32")), "float32")


class BinaryCrossEntropy(Loss, names=("bin_ce", "sse_sigmoid")):
    """Cross-entropy of the sigmoid of the output, averaged over features. The output is taken as logits."""

    pos_weight: float | None = option("factor of the positive class", default=None)

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        target = fitted_target(b, output, target)
        x = b.surroundings.compilation.preactivations.before_sigmoid(b, output) or output
        feature = b.feature_of(x)
        if target.type.sparse is not None:
            b.fail(f"the target must be dense, not {target.type}", "", "target")
        target = _same_feature(b, target, feature)
        value = b.apply(SigmoidCrossEntropy(1.0 if self.pos_weight is None else self.pos_weight), x, target)
        wrong = b.binary("not_equal", b.binary("greater", x, 0.0), b.binary("greater", target, 0.5))
        return LossTerms(b.reduce("mean", value, feature), b.reduce("mean", b.cast(wrong, "float32"), feature))


class Mse(Loss, names=("mse",)):
    """The squared difference, averaged over features. Of a softmax, the probabilities are compared."""

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        return _distance(b, output, target, of_element="square", over_features="mean")


class L1(Loss, names=("l1",)):
    """The absolute difference, summed over features."""

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        return _distance(b, output, target, of_element="abs", over_features="sum")


class MeanL1(Loss, names=("mean_l1",)):
    """The absolute difference, averaged over features."""

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        return _distance(b, output, target, of_element="abs", over_features="mean")


def _distance(b: LayerBuilder, output: View, target: View | None, of_element: str, over_features: str) -> LossTerms:
    """How far the output is from the target (a class stands for 1 at its place); frames whose largest element differs
    are errors."""
    target = fitted_target(b, output, target)
    feature = output.type.feature
    if feature is None:
        return LossTerms(b.unary(of_element, b.sub(output, target)))
    if target.type.sparse is None:
        target = _same_feature(b, target, feature)
    errors = _frame_errors(b, output, target, feature)
    if target.type.sparse is not None:
        target = b.cast(b.binary("equal", target, b.iota(feature)), output.type.dtype)
    return LossTerms(b.reduce(over_features, b.unary(of_element, b.sub(output, target)), feature), errors)


class AsIs(Loss, names=("as_is",)):
    """The output itself is the loss."""

    needs_target: ClassVar[bool] = False

    as_error: bool = option("it is the error instead", default=False)

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        value = b.cast(output, "float32") if not output.type.is_float else output
        time = value.type.default_time
        inner = [dim for dim in value.type.dims if dim.kind in (DimKind.SPATIAL, DimKind.FEATURE) and dim != time]
        value = b.reduce("sum", value, tuple(inner)) if inner else value  # it counts frames, not elements
        return LossTerms(None, value) if self.as_error else LossTerms(value)


LOSSES: tuple[type[Loss], ...] = (
    CrossEntropy,
    BinaryCrossEntropy,
    Mse,
    L1,
    MeanL1,
    AsIs,
)
