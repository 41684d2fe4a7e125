"""`custom_score_combine` of a choice: how the scores of a step and of the hypotheses combine (SEMANTICS 3.8).

An expression is made of primitives, for one hypothesis. A function of a Python config gets what RETURNN gives it:
arrays of all hypotheses, so that it can compare them (published configs join those of one label sequence).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from returnn_lite.config.expression import ExpressionError
from returnn_lite.config.expression_parser import parse_expression
from returnn_lite.dims import Dim
from returnn_lite.ir.ops.search import NEVER, CombineScores
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder
from returnn_lite.layers.evaluation import Evaluation
from returnn_lite.layers.expression_items import tensor

OPTION = "custom_score_combine"
ARGUMENTS = ("layer", "scores_in", "scores_base", "t", "end_flags", "batch_dim", "scores_beam_in", "base_beam_in")


def combined_by_expression(
    b: LayerBuilder, expression: str, log_p: View, before: View, ended: View, step: View
) -> View:
    """The scores of a hypothesis's extensions, from an expression of scores_in, scores_base, t and end_flags.

    scores_in are those of the classes in this step, for a hypothesis that has ended 0 for class 0; scores_base is that
    of the hypothesis.
    """
    classes = b.feature_of(log_p)
    base = b.binary("maximum", before, NEVER)
    names = {"scores_in": b.with_feature(scores_behind_end(b, log_p, ended), classes), "scores_base": base}
    try:
        node = parse_expression(expression)
    except ExpressionError as error:
        b.fail(str(error), option=OPTION)
    known = {**b.surroundings.compilation.functions, **names, "t": step, "end_flags": ended}
    evaluation = Evaluation(b, (), known, OPTION)
    combined = tensor(b, evaluation.item(node), "an expression that gives scores")
    if classes not in combined.type or not combined.type.is_float:
        b.fail(
            f"the result is {combined.type}, no score for each of {classes}",
            'Begin with scores_in, as in "scores_in + 0.5 * scores_base".',
            OPTION,
        )
    return combined


def scores_behind_end(b: LayerBuilder, log_p: View, ended: View) -> View:
    """The scores of a step; those of a hypothesis that has ended are 0 for class 0 and NEVER for the others."""
    stay = b.select(b.binary("equal", b.iota(b.feature_of(log_p)), 0), 0.0, NEVER)
    return b.select(ended, stay, log_p)


@dataclass(frozen=True)
class _Output:
    """What a function may ask of a layer's output."""

    placeholder: Any
    dim: int | None
    dtype: str
    sparse: bool

    def get_placeholder_as_batch_major(self) -> Any:
        return self.placeholder

    def copy_as_batch_major(self) -> _Output:
        return self


@dataclass(frozen=True)
class _Layer:
    """What a function may ask of a layer. Batch and hypotheses are one axis, the first, hypotheses fastest."""

    name: str
    output: _Output
    explicit_search_sources: Any = field(default=None)


def function_on_arrays(
    b: LayerBuilder, function: Callable[..., object], classes: Dim, read: Mapping[int | str, View], before: View
) -> CombineScores:
    """A function of a Python config as RETURNN calls it. `read` are its layer's explicit_search_sources, a dict of
    them if the keys are names."""
    _check_parameters(b, function)
    names = [f"{b.name}:{key}" for key in read]
    described = [_described(value) for value in read.values()]
    own_name, size = b.name, classes.size
    keys = list(read)

    def call(sources: Sequence[object], **arrays: object) -> object:
        layers = [
            _Layer(name, _Output(array, *facts)) for name, array, facts in zip(names, sources, described, strict=True)
        ]
        by_name = any(isinstance(key, str) for key in keys)
        explicit = dict(zip(keys, layers, strict=True)) if by_name else layers
        return function(layer=_Layer(own_name, _Output(None, size, "int32", True), explicit), **arrays)

    one_at_first = b.ir.body is not None and any(delay.now == before for delay in b.ir.body.delays)
    return CombineScores(call, getattr(function, "__name__", OPTION), one_at_first)


def _described(value: View) -> tuple[int | None, str, bool]:
    dim = value.type.sparse if value.type.sparse is not None else value.type.feature
    return (None if dim is None else dim.size), value.type.dtype, value.type.sparse is not None


def _check_parameters(b: LayerBuilder, function: Callable[..., object]) -> None:
    """Fails if the function can't be called with what it gets, all by name."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(ARGUMENTS))
    except TypeError as error:
        b.fail(
            f"the function does not take what it gets: {error}",
            f"def f(scores_in, scores_base, **kwargs), of {', '.join(ARGUMENTS)}.",
            OPTION,
        )
