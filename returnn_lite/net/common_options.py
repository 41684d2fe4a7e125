"""The options that every layer takes (SEMANTICS 1.4), in the four groups in which `net` applies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from returnn_lite.config.options import (
    AxisSpec,
    Callback,
    DimSpec,
    LayerRef,
    Unspecified,
    UnspecifiedType,
    option,
)

UPDATER_OPTS = ("optimizer", "learning_rate_multiplier")
"""What `updater_opts` may hold."""


@dataclass(frozen=True)
class OutputOptions:
    """What the layer's output is and who may see it."""

    n_out: int | UnspecifiedType | None = option("size of the feature dim", default=Unspecified)
    out_dim: DimSpec | None = option("the feature dim itself (a Dim), or its size", default=None)
    out_type: dict[str, Any] | Callback | None = option(
        "the output's type: dtype, sparse and feature_dim_axis: null change it; dim, shape and dim_tags must fit",
        default=None,
    )
    out_shape: tuple[Any, ...] | set[Any] | None = option(
        "the Dims that the output must have, for verification", default=None
    )
    initial_output: LayerRef | float | int | bool | str | None = option(
        "what prev: of the layer is in the first step", default=None
    )
    is_output_layer: bool = option("seen from outside of a loop, and built although nothing needs it", default=False)
    beyond_the_end: Literal["zero", "repeat", "hold"] | None = option(
        "what stands beyond the end of shorter sequences where the output leaves the network: zero, the default; "
        "repeat: the last frame; hold: of a recurrent layer whose output is its state, that after the last step, or "
        "before the first of an empty sequence. Inside of the network, and in files, there are no such frames",
        default=None,
    )
    need_last: bool = option("the last frame is wanted by a rec_last_output layer", default=False)
    only_on_eval: bool = option("built only where losses are computed", default=False)
    only_on_search: bool = option("built only in search", default=False)
    register_as_extern_data: str | None = option("publishes the output under this data key", default=None)


@dataclass(frozen=True)
class ParameterOptions:
    """Where the layer's parameters come from, and what is done with them."""

    reuse_params: LayerRef | dict[str, Any] | None = option("a layer whose parameters are used", default=None)
    name_scope: str | None = option("name scope of the parameters; '/a/b' is absolute, '' the parent's", default=None)
    trainable: bool | None = option("False freezes the parameters", default=None)
    L2: float | None = option(
        "adds L2 * sum(w**2) over the parameters of the layer, and of layers inside of it, to the objective",
        default=None,
    )
    darc1: float | None = option(
        "adds darc1 * the largest of the features' sums of abs(x) over all frames to the objective, where x is the "
        "output before its activation",
        default=None,
    )
    spatial_smoothing: float | None = option(
        "adds spatial_smoothing * the squares of the features' differences from their neighbours to the objective, "
        "where the features are an image of at least 3 by 3",
        default=None,
    )
    param_dropout: float | None = option(
        "dropout rate of each element of the trainable parameters in training; one mask for all steps", default=None
    )
    param_dropout_min_ndim: int | None = option("least number of dims of a parameter for param_dropout", default=None)
    param_variational_noise: float | None = option(
        "standard deviation of Gaussian noise on the trainable parameters in training", default=None
    )
    param_device: str | None = option("device of the parameters; the backend places them here", default=None)
    updater_opts: dict[str, Any] | None = option("optimizer options for this layer's parameters", default=None)
    custom_param_importer: str | Callback | None = option(
        "how parameters are imported", default=None, unsupported="use preload_from_files"
    )


@dataclass(frozen=True)
class LossOptions:
    """Targets and losses."""

    target: LayerRef | list[str] | None = option(
        "target data key, for the loss and the output's size; a list gives the loss with each", default=None
    )
    size_target: str | None = option("target that only gives lengths: of a loop, or of the output's time", default=None)
    loss: str | None = option("the loss", default=None)
    loss_scale: float | None = option("factor of the loss in the objective", default=None)
    loss_opts: dict[str, Any] | None = option("options of the loss", default=None)
    loss_only_on_non_search: bool | None = option("no loss in search", default=None)
    copy_output_loss_from_source_idx: int | None = option(
        "the source whose output loss is the layer's",
        default=None,
        unsupported="layers have no losses of their own here: give the loss to a layer",
    )


@dataclass(frozen=True)
class InputOptions:
    """What is done with the sources before the layer, with the output after it, and where it is put."""

    in_dim: DimSpec | None = option("the feature dim of the joined sources, a Dim; or its size", default=None)
    dropout: float = option("dropout rate on the joined sources", default=0.0)
    dropout_axis: AxisSpec | None = option("axes along which the dropout mask varies", default=None)
    dropout_noise_shape: dict[str, int | None] | list[int | None] | None = option(
        "axis to 1 (shared) or null (independent); '*' for all", default=None
    )
    dropout_on_forward: bool = option("dropout outside of training, too", default=False)
    batch_norm: bool | dict[str, Any] = option("batch norm on the output", default=False)
    collocate_with: LayerRef | list[LayerRef] | None = option(
        "kept in the loop with these layers; has no influence on results", default=None
    )
    encapsulate: bool = option(
        "keeps the layers inside in one place in RETURNN; has no influence on results", default=False
    )
    control_dependencies_on_output: Callback | None = option(
        "TensorFlow control dependencies", default=None, unsupported="use a print layer or an assertion"
    )
    debug_print_layer_output: bool | None = option("prints the output in each step", default=None)
