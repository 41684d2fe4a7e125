"""The verbs that run a network: train, eval, search, forward. They import TensorFlow, so only when they run."""

from __future__ import annotations

import importlib.metadata
import os

from returnn_lite.cli.loading import LoadedConfig

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "ABSL_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2"}
"""Variables that TensorFlow reads when it is imported, set so that standard error has our messages only."""


class RunError(Exception):
    """A run that failed. The message says why."""


def version() -> str:
    """The version of returnn_lite."""
    return f"returnn_lite {importlib.metadata.version('returnn_lite')}"


def quiet_tensorflow() -> None:
    """Keeps TensorFlow from writing about itself; a user who sets its variables keeps what they set."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def run_task(task: str, loaded: LoadedConfig) -> int:
    """Runs one of the four tasks. Raises ConfigError and RunError."""
    quiet_tensorflow()
    from returnn_lite.data import DataError
    from returnn_lite.engine.errors import EngineError
    from returnn_lite.engine.evaluation import run_eval
    from returnn_lite.engine.forwarding import run_forward
    from returnn_lite.engine.network import NetworkCompiler
    from returnn_lite.engine.search import run_search
    from returnn_lite.engine.training import run_train

    tasks = {"train": run_train, "eval": run_eval, "search": run_search, "forward": run_forward}
    compiler = NetworkCompiler(loaded.data, locate=loaded.locate, functions=loaded.functions)
    try:
        tasks[task](loaded.data, compiler)
    except (EngineError, DataError, OSError) as error:
        raise RunError(str(error)) from error
    return 0
