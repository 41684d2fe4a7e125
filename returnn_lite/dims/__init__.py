"""Dims and types: the named sizes that tensors range over, and how axis descriptions name them."""

from returnn_lite.dims.dim import Dim, conv_dim, linear_dim, product_dim
from returnn_lite.dims.kind import DimKind
from returnn_lite.dims.markers import MarkedType
from returnn_lite.dims.masked import Masked
from returnn_lite.dims.symbols import Copy, Declared, Symbol, Unknown
from returnn_lite.dims.types import DimError, TensorType, display_order, require_one_dtype, union_of_dims

__all__ = [
    "Copy",
    "Declared",
    "Dim",
    "DimError",
    "DimKind",
    "MarkedType",
    "Masked",
    "Symbol",
    "TensorType",
    "Unknown",
    "conv_dim",
    "display_order",
    "linear_dim",
    "product_dim",
    "require_one_dtype",
    "union_of_dims",
]
