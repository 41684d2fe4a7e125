"""Layers that work on each element by itself."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import reduce
from itertools import pairwise
from typing import Any

from returnn_lite.config.options import (
    Activation,
    DimSpec,
    Expression,
    LayerRef,
    Unspecified,
    UnspecifiedType,
    option,
)
from returnn_lite.ir.expressions import DTYPES_BY_RANGE as DTYPES
from returnn_lite.ir.ops import elementwise
from returnn_lite.ir.views import View
from returnn_lite.layers import legacy
from returnn_lite.layers.affine import selected_feature
from returnn_lite.layers.align import align
from returnn_lite.layers.base import Layer, LayerBuilder, LayerError
from returnn_lite.layers.evaluate import evaluate
from returnn_lite.layers.functions import SAME_AS

BINARY_NAMES: Mapping[str, str] = {
    **SAME_AS,
    "==": "equal",
    "!=": "not_equal",
    "<>": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
COMBINE_KINDS = elementwise.BINARY | elementwise.BINARY_BOOL
ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "pow", "average", "maximum", "minimum")
"""Kinds that mean nothing for numbers of classes."""


class ActivationLayer(Layer, names=("activation",)):
    """An activation function of each element; softmax and log_softmax go over the feature dim."""

    joins_sources = True
    keeps_type_of = "from"

    activation: Activation | None = option("name of the function; null for none")
    opts: dict[str, Any] | None = option("options of the function, such as alpha of leaky_relu", default=None)

    def build(self, b: LayerBuilder, x: View) -> View:
        return b.activation(self.activation, x, self.opts)


class Copy(Layer, names=("copy", "identity")):
    """The source as it is; several are joined along the feature dim."""

    joins_sources = True
    keeps_type_of = "from"

    in_dim: DimSpec | None = option("the feature dim, a Dim", default=None)
    extra_deps: tuple[LayerRef, ...] = option("layers that must be computed, too; not used", default=())

    def build(self, b: LayerBuilder, x: View) -> View:
        for reference in self.extra_deps:
            b.layer(reference)
        return selected_feature(b, x, self.in_dim)


class Combine(Layer, names=("combine",)):
    """The sources joined from left to right by a function of two operands; then bias and activation.

    Sources broadcast over the dims they lack; which of their dims are the same is said by `align`. Parameter: b [F].
    """

    keeps_type_of = "from"

    kind: str = option("add, sub, mul, average, truediv, floordiv, mod, pow, maximum, minimum, logical_and, ..., eval")
    allow_broadcast_all_sources: bool | UnspecifiedType = option(
        "whether no source needs to have all dims", default=Unspecified
    )
    activation: Activation | None = option("applied to the result", default=None)
    with_bias: bool = option("whether to add a bias over the feature dim", default=False)
    eval: Expression | None = option("for kind 'eval': an expression of source(0), source(1), ...", default=None)
    eval_locals: dict[str, Any] | None = option("names in the expression", default=None)
    eval_for_output_loss: bool = option(
        "whether the expression is applied to the sources' losses, too",
        default=False,
        unsupported="sources have no losses of their own here: they come from fast_bw and ctc_loss layers only",
    )

    def build(self, b: LayerBuilder, *sources: View) -> View:
        if self.kind != "eval":
            for name, given in (("eval", self.eval), ("eval_locals", self.eval_locals)):
                if given is not None:
                    b.fail(f"{name} is for kind 'eval', but the kind is '{self.kind}'", "leave it out", name)
        if self.kind in ARITHMETIC:
            self._check_features(b, sources)
        y = self._combined(b, self._aligned(b, sources))
        if self.with_bias:
            y = b.add(y, b.param("b", (b.feature_of(y),), 0.0))
        return b.activation(self.activation, y)

    def _check_features(self, b: LayerBuilder, sources: tuple[View, ...]) -> None:
        """Numbers of classes are none to compute with, where the others have features: an embedding is missing."""
        features = next((x for x in sources if x.type.feature is not None), None)
        sparse = next((i for i, x in enumerate(sources) if x.type.sparse is not None), None)
        if features is not None and sparse is not None:
            name = b.source_names[sparse]
            raise LayerError(
                f"'{name}' is {sources[sparse].type}: class indices, while '{features.name}' has features",
                f"Put a linear layer on '{name}', its embedding, and combine that.",
                "from",
                sparse,
            )

    def _aligned(self, b: LayerBuilder, sources: tuple[View, ...]) -> list[View]:
        return align(b, sources, broadcast_all=broadcasts_all(b, self.allow_broadcast_all_sources))

    def _combined(self, b: LayerBuilder, sources: list[View]) -> View:
        if self.kind == "eval":
            if self.eval is None:
                b.fail("kind 'eval' needs the option 'eval'", option="eval")
            return evaluate(b, self.eval, sources, self.eval_locals or {}, option="eval")
        if self.kind == "average":
            return b.binary("truediv", reduce(b.add, sources), float(len(sources)))
        kind = primitive_of(self.kind, COMBINE_KINDS | {"average", "eval"})
        return reduce(lambda left, right: binary(b, kind, left, right), sources)


class Compare(Layer, names=("compare",)):
    """Whether each source compares to the next, and the last one to `value`: true where all of them do."""

    output_dtype = "bool"

    kind: str = option("equal, not_equal, less, less_equal, greater, greater_equal, or ==, !=, ...", default="equal")
    value: float | int | bool | None = option("what the last source is compared to", default=None)
    allow_broadcast_all_sources: bool | UnspecifiedType = option(
        "whether no source needs to have all dims", default=Unspecified
    )

    def build(self, b: LayerBuilder, *sources: View) -> View:
        if len(sources) == 1 and self.value is None:
            b.fail("one source needs something to compare it to", "give 'value' or a second source", "value")
        kind = primitive_of(self.kind, elementwise.BINARY_COMPARE)
        operands = align(b, sources, broadcast_all=broadcasts_all(b, self.allow_broadcast_all_sources))
        results = [b.binary(kind, left, right) for left, right in pairwise(operands)]
        if self.value is not None:
            results.append(b.binary(kind, operands[-1], self.value))
        return reduce(lambda left, right: b.binary("logical_and", left, right), results)


class Switch(Layer, names=("switch",)):
    """`true_from` where `condition` is true, else `false_from`; numbers broadcast. Both are computed."""

    source_count = (0, 0)
    keeps_type_of = "true_from"

    condition: LayerRef | bool = option("a bool layer, or true or false")
    true_from: LayerRef | float | int | bool | None = option("a layer or a number")
    false_from: LayerRef | float | int | bool | None = option("a layer or a number")

    def build(self, b: LayerBuilder) -> View:
        if isinstance(self.condition, bool):
            return self._chosen(b, self.true_from if self.condition else self.false_from)
        condition = b.layer(self.condition)
        if condition.type.dtype != "bool":
            b.fail(f"'{self.condition}' is {condition.type}, not bool", "use a compare layer", "condition")
        branches = [self._branch(b, name) for name in ("true_from", "false_from")]
        values = [branch for branch in branches if isinstance(branch, View)]
        aligned = iter(align(b, [*values, condition]))
        if_true, if_false = (next(aligned) if isinstance(branch, View) else branch for branch in branches)
        return b.select(next(aligned), if_true, if_false)

    def _branch(self, b: LayerBuilder, name: str) -> View | float | int | bool:
        given: LayerRef | float | int | bool | None = getattr(self, name)
        if given is None:
            b.fail(f"{name} is null", "give a layer or a number", name)
        return b.layer(given) if isinstance(given, str) else given

    def _chosen(self, b: LayerBuilder, given: LayerRef | float | int | bool | None) -> View:
        if given is None:
            b.fail("the branch that is taken is null", "give a layer or a number", "condition")
        return b.layer(given) if isinstance(given, str) else b.constant(given, dtype_of(given))


class Cast(Layer, names=("cast",)):
    """The source in another dtype; a float is cut off towards zero."""

    joins_sources = True

    dtype: str = option("float32, int32, bool, ...")

    def build(self, b: LayerBuilder, x: View) -> View:
        return b.cast(x, checked_dtype(b, self.dtype))


class Gating(Layer, names=("gating",)):
    """Gated units (Dauphin et al. 2017): activation(first half of the features) * gate_activation(second half)."""

    joins_sources = True

    activation: Activation | None = option("of the first half")
    gate_activation: Activation | None = option("of the second half", default="sigmoid")

    def build(self, b: LayerBuilder, x: View) -> View:
        feature = b.feature_of(x)
        if feature.size is not None and feature.size % 2:
            b.fail(f"the features are split in halves, but {feature} has an odd size")
        half = b.surroundings.out_feature() or feature // 2
        if half.size is not None and feature.size is not None and half.size * 2 != feature.size:
            b.fail(f"the output has half of {feature}, not {half.size} features", option="n_out")
        value, gate = b.split(x, feature, [half, half])
        return b.mul(b.activation(self.activation, value), b.activation(self.gate_activation, gate))


class Print(Layer, names=("print",)):
    """The source, printed each time it is computed."""

    joins_sources = True
    keeps_type_of = "from"

    summarize: int = option("how many elements are printed", default=99)
    extra_print_args: tuple[Any, ...] = option("printed before the value", default=())

    def build(self, b: LayerBuilder, x: View) -> View:
        message = " ".join([b.name, *map(str, self.extra_print_args)])
        printed = b.apply(elementwise.PrintValue(message, self.summarize), x)
        b.ir.require_computed(printed)
        return printed


def primitive_of(kind: str, allowed: frozenset[str]) -> str:
    """The primitive that a kind of combine or compare names."""
    plain = kind.removeprefix("tf.").removeprefix("math.")
    name = BINARY_NAMES.get(plain, plain)
    if name in allowed:
        return name
    near = difflib.get_close_matches(plain, [*allowed, *BINARY_NAMES], n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(allowed))}"
    raise LayerError(f"there is no kind '{kind}'", hint, "kind")


def binary(b: LayerBuilder, kind: str, left: View, right: View) -> View:
    """A function of two operands; ints are divided, and their logarithms taken, as floats."""
    if kind in ("truediv", "logaddexp", "divide_no_nan") and not left.type.is_float and not right.type.is_float:
        left, right = b.cast(left, "float32"), b.cast(right, "float32")
    return b.binary(kind, left, right)


def broadcasts_all(b: LayerBuilder, given: bool | UnspecifiedType) -> bool:
    """Whether sources may be repeated so that none has all dims; out_shape says that it is meant."""
    return b.surroundings.given.has_out_shape or legacy.default(b, "sources.broadcast_all", given)


def dtype_of(number: float | int | bool) -> str:
    """The dtype that a Python number means."""
    return "bool" if isinstance(number, bool) else "int32" if isinstance(number, int) else "float32"


def checked_dtype(b: LayerBuilder, name: str, option_name: str = "dtype") -> str:
    """The dtype of that name."""
    plain = name.removeprefix("tf.")
    if plain not in DTYPES:
        near = difflib.get_close_matches(plain, DTYPES, n=1)
        b.fail(f"there is no dtype '{name}'", f"did you mean '{near[0]}'?" if near else ", ".join(DTYPES), option_name)
    return plain


LAYERS = (ActivationLayer, Copy, Combine, Compare, Switch, Cast, Gating, Print)
