"""What the options of a layer say of its type, where no trial of it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from returnn_lite.dims import Dim, DimError, DimKind, MarkedType, Symbol
from returnn_lite.layers.base import LayerError, Outputs
from returnn_lite.net.context import NotChecked, Unavailable
from returnn_lite.net.decoding import LOSS_CLASSES
from returnn_lite.net.parameters import out_feature
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec
from returnn_lite.net.surroundings import given_options
from returnn_lite.net.trial import feature_only


def said_type(scope: Scope, spec: LayerSpec, known: Callable[[str], Outputs | None]) -> MarkedType | None:
    """What the options say, as far as they are right: a mistake is reported where the layer is built.

    `known` gives what a reference stands for, as far as that is known.
    """
    try:
        return _said_by_options(scope, spec, known)
    except (LayerError, DimError, NotChecked, Unavailable):
        return None


def _said_by_options(scope: Scope, spec: LayerSpec, known: Callable[[str], Outputs | None]) -> MarkedType | None:
    layer = spec.layer
    if isinstance(spec.common.output.out_type, Mapping):
        said = _said_by_out_type(spec.common.output.out_type, scope.path_of(spec))
        if said is not None:
            return said
    if layer.output_dtype is not None:
        return MarkedType((), layer.output_dtype)
    if layer.keeps_type_of is None:
        feature = out_feature(scope, spec) if _says_size(spec) else None
        return None if feature is None else MarkedType((feature,), feature=feature)
    given = getattr(layer, layer.keeps_type_of) if layer.keeps_type_of != "from" else None
    names = spec.sources if layer.keeps_type_of == "from" else [given] if isinstance(given, str) else []
    if layer.joins() and len(names) > 1:
        return None
    types = [outputs.value.type for name in names if (outputs := known(name)) is not None]
    if types and layer.keeps_dims:
        return types[0]
    return feature_only(types[0]) if types else None


def _says_size(spec: LayerSpec) -> bool:
    """Whether the options are about the size of the output: a target is not where the loss does without."""
    loss = LOSS_CLASSES.get(str(spec.common.loss.loss))
    return loss is None or loss.needs_target or given_options(spec).size_option != "target"


def _said_by_out_type(given: Mapping[str, Any], path: str) -> MarkedType | None:
    """The type that out_type says, if it says dtype or shape; `as_claimed` checks it when the layer is there."""
    dim, shape = given.get("dim"), given.get("shape")
    dtype = str(given.get("dtype", "int32" if given.get("sparse") else "float32")).removeprefix("tf.")
    classes = given.get("sparse_dim", dim if given.get("sparse") else None)
    if classes is not None:
        known = classes if isinstance(classes, Dim) else Symbol(f"{path}:classes", DimKind.FEATURE, classes)
        return MarkedType((), dtype, known)
    if dim is not None:
        feature = dim if isinstance(dim, Dim) else Symbol(f"{path}:feature", DimKind.FEATURE, dim)
        return MarkedType((feature,), dtype, feature=feature)
    return MarkedType((), dtype) if shape is not None and not tuple(shape) else None
