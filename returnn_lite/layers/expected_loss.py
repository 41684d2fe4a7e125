"""Minimum-risk training: the loss that hypotheses are expected to have (SEMANTICS 1.5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from returnn_lite.config.options import option
from returnn_lite.dims import DimKind
from returnn_lite.ir.ops.search import ExpectedOverBeam
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.loss import Loss, LossTerms


class ExpectedLoss(Loss, names=("expected_loss",)):
    """Another loss of each hypothesis, weighted by the hypotheses' probabilities; the gradient goes through these.

    The output must come from a choice with `search: True`.
    """

    loss: dict[str, Any] = option("class and options of the other loss")
    loss_kind: Literal["error", "value"] = option("which number of the other loss")
    norm_scores: bool = option("the probabilities of the beam add up to one", default=True)
    norm_scores_stop_gradient: bool = option("without a gradient of their sum", default=True)
    divide_beam_size: bool = option("divides by the size of the beam", default=True)
    subtract_average_loss: bool = option("subtracts the average over the beam", default=True)
    loss_correction_grad_only: bool = option(
        "the average is subtracted in the gradient, not in the value", default=False
    )

    def terms(
        self, b: LayerBuilder, output: View, target: View | None, loss_of: Callable[[Mapping[str, Any]], Loss]
    ) -> LossTerms:
        found = b.surroundings.search.left_in(output)
        if found is None:
            b.fail(
                f"expected_loss needs hypotheses, and '{output.name}' does not come from search",
                "Set search: True in the choice.",
                "loss",
            )
        other = loss_of(self.loss)
        if other.use_normalized_loss or other.has_own_count():
            b.fail(
                "the loss inside of expected_loss is not reported, so nothing is divided",
                "give use_normalized_loss and custom_* to expected_loss",
                "loss_opts",
            )
        terms = other.terms(b, output, target, loss_of)
        risk = terms.error if self.loss_kind == "error" else terms.value
        if risk is None:
            b.fail(f"'{self.loss['class']}' has no {self.loss_kind}", "Take the other loss_kind.", "loss_opts")
        frames = tuple(dim for dim in risk.type.dims if dim.kind not in (DimKind.BATCH, DimKind.BEAM))
        risk = b.cast(b.reduce("sum", risk, frames), found.scores.type.dtype)
        rule = ExpectedOverBeam(
            found.beam, self.norm_scores, self.norm_scores_stop_gradient, self.subtract_average_loss
        )
        value = b.apply(rule, risk, found.scores)
        if self.loss_correction_grad_only and self.subtract_average_loss:
            whole = b.apply(dataclasses.replace(rule, centered=False), risk, found.scores)
            value = b.add(value, b.stop_gradient(b.sub(whole, value)))
        size = found.beam.size or 1
        if self.divide_beam_size:
            value = b.mul(value, 1.0 / size)
        return LossTerms(value, None, None if terms.count is None else b.mul(terms.count, float(size)))
