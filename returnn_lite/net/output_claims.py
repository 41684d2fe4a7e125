"""What the common options say of a layer's output: out_type, out_dim, n_out, out_shape and size_target.

What can be made true is made true (a dtype, a Dim, lengths); everything else is compared with what the layer made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.config.options import Unspecified
from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir.views import View
from returnn_lite.layers.base import LayerBuilder, LayerError
from returnn_lite.layers.pointwise import checked_dtype
from returnn_lite.net.resolution import target_type
from returnn_lite.net.scope import Scope
from returnn_lite.net.specs import LayerSpec

LAYOUT = ("batch_dim_axis", "time_dim_axis", "name")
"""Keys of out_type without influence: the order of dims has no meaning here, and layers have their own names."""
OUT_TYPE = ("dim", "dtype", "sparse", "sparse_dim", "shape", "dim_tags", "feature_dim_axis", *LAYOUT)


def as_claimed(scope: Scope, b: LayerBuilder, spec: LayerSpec, value: View) -> View:
    """The output as the options say it is. Raises LayerError where it is not and can't be made so."""
    target = spec.common.loss.target
    if isinstance(target, list) and len(target) > 1 and spec.common.loss.loss is None and not spec.layer.gives_labels():
        raise LayerError("several targets are for a loss", "Give one, or a loss.", "target")
    value = _with_out_type(b, spec, value)
    value = _with_out_dim(b, spec, value)
    value = _with_lengths(scope, b, spec, value)
    _check_size(spec, value)
    _check_shape(spec, value)
    return value


def _with_out_type(b: LayerBuilder, spec: LayerSpec, value: View) -> View:
    given = spec.common.output.out_type
    if given is None:
        return value
    if not isinstance(given, Mapping):
        raise LayerError(
            "out_type as a function is not supported",
            "Leave it out, types are found from the layer; or give a dict with dim, dtype, sparse.",
            "out_type",
        )
    for key in given:
        if key not in OUT_TYPE:
            hint = nearest_hint(str(key), list(OUT_TYPE)).strip() or f"It has {', '.join(OUT_TYPE)}."
            raise LayerError(f"out_type: '{key}' is not supported", hint, "out_type")
    dtype = given.get("dtype")
    if dtype is not None:
        value = b.cast(value, checked_dtype(b, str(dtype), "out_type"))
    sparse = _class_dim(b, given, value)
    feature = None if sparse is not None and value.type.sparse is None else value.type.feature
    if "feature_dim_axis" in given and given["feature_dim_axis"] is None:
        feature = None
    value = b.with_feature(b.as_index(value, sparse), feature)
    _check_out_type(given, value)
    return value


def _class_dim(b: LayerBuilder, given: Mapping[str, Any], value: View) -> Dim | None:
    """The class dim that out_type asks for."""
    have, wanted = value.type.sparse, given.get("sparse_dim")
    if given.get("sparse") is False or ("sparse_dim" in given and wanted is None):
        return None
    if wanted is None and (given.get("sparse") or have is not None):
        wanted = given.get("dim")
    if wanted is None:
        if given.get("sparse") and have is None:
            raise LayerError("out_type: the number of classes is missing", "Give dim or sparse_dim.", "out_type")
        return have
    if not isinstance(wanted, Dim | int) or isinstance(wanted, bool):
        raise LayerError(f"out_type: expected a size or a Dim, got {wanted!r}", "", "out_type")
    if isinstance(wanted, int):
        return have if have is not None and have.size == wanted else b.new_feature(wanted, "classes")
    return wanted


def _check_out_type(given: Mapping[str, Any], value: View) -> None:
    """dim, shape and dim_tags are claims."""
    type_ = value.type
    dim = given.get("dim")
    if dim is not None and type_.sparse is None:
        have = None if type_.feature is None else type_.feature.size
        if type_.feature is None or (have is not None and have != (dim.size if isinstance(dim, Dim) else dim)):
            raise LayerError(f"the output is {type_}, but out_type says dim {dim}", "", "out_type")
    others = [dim for dim in type_.dims if dim.kind not in (DimKind.BATCH, DimKind.BEAM)]
    shape = given.get("shape")
    if shape is not None and not _same_sizes(shape, others):
        raise LayerError(
            f"the output is {type_}, but out_type says shape {tuple(shape)!r}",
            "shape has the size of each dim but the batch, null where it is dynamic.",
            "out_type",
        )
    tags = given.get("dim_tags")
    if tags is not None and {tag for tag in tags if tag not in type_} | {d for d in others if d not in tags}:
        raise LayerError(f"the output is {type_}, but out_type says dim_tags {tuple(tags)!r}", "", "out_type")


def _same_sizes(shape: Sequence[Any], dims: Sequence[Dim]) -> bool:
    """Whether the dims have these sizes, in any order; a dim whose size is not known yet may have any."""
    wanted = Counter(size.size if isinstance(size, Dim) else size for size in shape)
    have = Counter(None if dim.is_dynamic else dim.size for dim in dims if dim.is_dynamic or dim.size is not None)
    return not have - wanted and len(dims) == sum(wanted.values())


def _with_out_dim(b: LayerBuilder, spec: LayerSpec, value: View) -> View:
    given, feature = spec.common.output.out_dim, value.type.feature
    if given is None or given == feature or (given == value.type.sparse and feature is None):
        return value
    if feature is None:
        raise LayerError(f"out_dim is {given}, but the output has no feature dim: {value.type}", "", "out_dim")
    size = given.size if isinstance(given, Dim) else given
    if isinstance(size, bool) or not isinstance(size, int) or feature.size not in (None, size):
        raise LayerError(
            f"out_dim is {given}, but the layer makes {value.type}",
            f"Give {feature.size}, or a Dim of that size; or leave it out.",
            "out_dim",
        )
    return b.relabel(value, feature, given, f"out_dim of '{b.name}'") if isinstance(given, Dim) else value


def _with_lengths(scope: Scope, b: LayerBuilder, spec: LayerSpec, value: View) -> View:
    """The time of the output called as that of the size_target, where there is one; a loop takes it itself.

    One step of a loop over the target's frames has its lengths already.
    """
    key = spec.common.loss.size_target
    if key is None or spec.layer.takes_lengths or scope.mode.search or not scope.mode.targets:
        return value
    have = value.type.default_time
    want = target_type(scope, key, "size_target").default_time
    if have is None and want is not None and b.loop is want:
        return value
    if have is None:
        raise LayerError(f"the output has no time dim: {value.type}", "Leave size_target out.", "size_target")
    if want is None:
        raise LayerError(f"the target '{key}' has no time dim", "", "size_target")
    return b.relabel(value, have, want, f"'{b.name}' takes the lengths of the target '{key}'")


def _check_size(spec: LayerSpec, value: View) -> None:
    """n_out of a layer that computes its size itself is a claim about it."""
    n_out = spec.common.output.n_out
    if n_out is Unspecified or not isinstance(n_out, int):
        return
    have = value.type.sparse or value.type.feature
    if have is None:
        raise LayerError(f"n_out is {n_out}, but the output has no feature dim: {value.type}", "Leave it out.", "n_out")
    if have.is_ragged or (have.size is not None and have.size != n_out):
        raise LayerError(
            f"n_out is {n_out}, but the layer makes {value.type}",
            "Leave it out." if have.is_ragged else f"Write n_out: {have.size}, or leave it out.",
            "n_out",
        )


def _check_shape(spec: LayerSpec, value: View) -> None:
    shape = spec.common.output.out_shape
    if shape is None:
        return
    for dim in shape:
        if not isinstance(dim, Dim):
            raise LayerError(f"out_shape is a set of Dims, but has {dim!r}", "", "out_shape")
    if set(shape) != set(value.type.dims):
        listed = ", ".join(sorted(str(dim) for dim in shape))
        raise LayerError(f"the output is {value.type}, but out_shape says {{{listed}}}", "", "out_shape")
