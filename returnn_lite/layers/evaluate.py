"""The `eval` layer: an expression of its sources, so that it is typed and can leave loops. A function of a Python
config becomes a HostCall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite.config.expression import (
    ExpressionError,
)
from returnn_lite.config.expression_parser import parse_expression
from returnn_lite.config.options import Expression, option
from returnn_lite.ir.views import View
from returnn_lite.layers.align import align
from returnn_lite.layers.base import Layer, LayerBuilder
from returnn_lite.layers.evaluation import Evaluation
from returnn_lite.layers.expression_items import tensor
from returnn_lite.layers.host_calls import function_of_sources


def evaluate(
    b: LayerBuilder,
    expression: Expression,
    sources: Sequence[View],
    names: Mapping[str, Any],
    *,
    option: str = "eval",
) -> View:
    """The value of an expression of sources. `names` are the numbers and functions that it may use, `eval_locals`."""
    aligned = align(b, sources)
    if callable(expression):
        return function_of_sources(b, expression, aligned, names, option)
    try:
        node = parse_expression(expression)
    except ExpressionError as error:
        b.fail(f"{option}: {error}", option=option)
    evaluation = Evaluation(b, aligned, {**b.surroundings.compilation.functions, **names}, option)
    result = evaluation.item(node)
    unused = [i for i in range(len(sources)) if i not in evaluation.used]
    if unused:
        b.fail(
            f"{option}: source({unused[0]}) is not used",
            "remove it from 'from', or use it; copy's extra_deps orders layers",
            option,
        )
    return tensor(b, result, "an expression that gives a tensor")


class Eval(Layer, names=("eval",)):
    """An expression of the sources, such as "source(0) * 0.5 + tf.nn.relu(source(1))".

    Names are TensorFlow's; each expands to primitives. A literal axis is one of the per-step view, batch first.
    """

    keeps_type_of = "from"
    source_count = (0, None)

    eval: Expression = option("the expression, or a function of a Python config that gets `source`")
    eval_locals: dict[str, Any] | None = option("names in the expression", default=None)

    def build(self, b: LayerBuilder, *sources: View) -> View:
        return evaluate(b, self.eval, sources, self.eval_locals or {}, option="eval")


LAYERS = (Eval,)
