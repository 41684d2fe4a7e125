"""What a loss is: its base, the terms that it makes, and what holds of an output and its target.

`net` sums the terms over every real frame. Nothing here sees padding, loops or batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform

from returnn_lite.config.options import Callback, LayerRef, option
from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder


@dataclass(frozen=True)
class LossTerms:
    """What a loss makes, unreduced: its value and error per frame or sequence, and what they count (None: frames)."""

    value: View | None
    error: View | None = None
    count: View | None = None


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
@dataclass(frozen=True, kw_only=True)
class Loss:
    """Base of the losses; a subclass annotates what `loss_opts` may hold.

    Where the output has axes besides those of its target, the target is the same for each of their entries, and each
    is a frame that the loss sums and counts; so it is the other way round.
    """

    class_names: ClassVar[tuple[str, ...]] = ()
    needs_target: ClassVar[bool] = True

    use_normalized_loss: bool = option(
        "the objective is the sum divided by what the reported loss is divided by", default=False
    )
    custom_norm_factor: float | Callback | None = option(
        "what the sum over a batch is multiplied by in the report, instead of one over the number of frames",
        default=None,
    )
    custom_inv_norm_factor: LayerRef | None = option(
        "layer whose sum over all frames, in a loop over all steps, is what the loss is divided by", default=None
    )
    use_flatten_frames: bool = option("packs the real frames first; padding never counts either way", default=True)

    def __init_subclass__(cls, names: Sequence[str] = ()) -> None:
        super().__init_subclass__()
        cls.class_names = tuple(names)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @classmethod
    def more_classes(cls, options: Mapping[str, Any]) -> int:
        """How many classes the output has besides those of its target, by what `loss_opts` says: a blank, or none."""
        return 0

    def build(self, b: LayerBuilder, output: View, logits: View | None, target: View | None) -> LossTerms:
        """The terms of the loss. `logits` is what went into the softmax that made the output, if one did."""
        raise TypeError(f"{type(self).__name__} does not build")

    def terms(
        self, b: LayerBuilder, output: View, target: View | None, loss_of: Callable[[Mapping[str, Any]], Loss]
    ) -> LossTerms:
        """The terms of the loss. `loss_of` gives another loss, of a dict with its class and options, or raises
        LayerError."""
        return self.build(b, output, b.logits_of(output), target)

    def has_own_count(self) -> bool:
        """True if options say what the loss is divided by."""
        return self.custom_norm_factor is not None or self.custom_inv_norm_factor is not None

    def own_count(self, b: LayerBuilder) -> View | float | None:
        """What options say that the loss is divided by: the sum of a value, or a number for each batch."""
        if self.custom_inv_norm_factor is not None:
            if self.custom_norm_factor is not None:
                b.fail("custom_norm_factor and custom_inv_norm_factor say the same", "leave one out", "loss_opts")
            return b.layer(self.custom_inv_norm_factor)
        if self.custom_norm_factor is None:
            return None
        if not isinstance(self.custom_norm_factor, int | float):
            b.fail(
                "custom_norm_factor is a number; a function would get objects of RETURNN",
                "name a layer that computes its inverse as custom_inv_norm_factor",
                "loss_opts",
            )
        if not self.custom_norm_factor > 0:
            b.fail(f"custom_norm_factor is a positive number, not {self.custom_norm_factor}", "", "loss_opts")
        return 1.0 / self.custom_norm_factor


def fitted_target(b: LayerBuilder, output: View, target: View | None) -> View:
    """The target with the output's time dim in place of its own; lengths are compared at run time.

    Raises LayerError if there is no target, one of other classes, or one that `check_axes` refuses.
    """
    target = required(b, target)
    check_classes(b, output, target)
    have, want = target.type.default_time, output.type.default_time
    if not (have is None or want is None or have == want or have in output.type or want in target.type):
        target = b.relabel(target, have, want, f"the output of '{b.name}' and its target")
    check_axes(b, output, target)
    return target


def check_axes(b: LayerBuilder, output: View, target: View, own: Sequence[Dim] = ()) -> None:
    """Raises LayerError if both the output and the target have axes that the other lacks, but for the batch, the
    classes and those that the loss itself goes along (`own`): what belongs to what is not said then.

    If only one has more, the other is the same for all of these, and each counts as a frame.
    """
    known = {output.type.feature, target.type.feature, *own}
    more = [
        [dim for dim in x.type.dims if dim not in other.type and dim not in known and dim.kind is not DimKind.BATCH]
        for x, other in ((output, target), (target, output))
    ]
    if all(more):
        left, right = (", ".join(map(str, dims)) for dims in more)
        b.fail(
            f"the output has {left}, which the target lacks, and the target {right}, which the output lacks",
            "Reduce, merge or repeat axes of one of them, so that only one has more.",
            "target",
        )


def required(b: LayerBuilder, target: View | None) -> View:
    """The target. Raises LayerError if there is none."""
    if target is None:
        b.fail("the loss needs a target", "Give target.", "target")
    return target


def check_classes(b: LayerBuilder, output: View, target: View, blanks: int = 0) -> None:
    """Raises LayerError if the output has not as many classes as the target, and `blanks` more.

    The classes are what a sparse value numbers, else the feature dim; a value without one is a number.
    """
    have, want = classes_of(output), classes_of(target)
    if have is None or want is None:
        fits = have is want
    else:
        fits = have.size is None or want.size is None or have.size == want.size + blanks
    if fits:
        return
    more = f", so that {blanks} more for the blank is needed" if blanks else ""
    b.fail(
        f"the output has {_counted(have)}, but the target {_counted(want)}{more}",
        "Leave n_out out, so that the target says the size, or give another target.",
        b.surroundings.given.size_option,
    )


def classes_of(value: View) -> Dim | None:
    """The dim of the classes of a sparse value, of any other its feature dim."""
    return value.type.sparse or value.type.feature


def _counted(classes: Dim | None) -> str:
    return "no classes" if classes is None else f"{classes.size} classes"
