"""returnn_lite: a compiler from declarative network configs to TensorFlow graphs.

import returnn_lite as rl

net = rl.compile(network, extern_data={"data": {"dim": 40}}, mode="train")
out = net.run({"data": x}, seq_lens={"data": [7, 5]})
"""

from returnn_lite import weights
from returnn_lite.compiler import Network, check, compile
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.dims import Declared as Dim
from returnn_lite.dims import DimKind
from returnn_lite.ir.batches import BatchError
from returnn_lite.ir.host_calls import FunctionError

__all__ = [
    "BatchError",
    "ConfigError",
    "Diagnostic",
    "Dim",
    "DimKind",
    "FunctionError",
    "Network",
    "check",
    "compile",
    "weights",
]
