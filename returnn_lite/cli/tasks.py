"""The verbs that run a network: train, eval, search, forward. They import TensorFlow, so only when they run."""

from __future__ import annotations

import importlib.metadata
import os

from returnn_lite.cli.loading import LoadedConfig


class RunError(Exception):
    """A run that failed. The message says why."""


def version() -> str:
    """The version of returnn_lite."""
    return f"returnn_lite {importlib.metadata.version('returnn_lite')}"


def run_task(task: str, loaded: LoadedConfig) -> int:
    """Runs one of the four tasks. Raises ConfigError and RunError."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from returnn_lite.data import DataError
    from returnn_lite.engine.evaluation import run_eval
    from returnn_lite.engine.executable import EngineError
    from returnn_lite.engine.forwarding import run_forward
    from returnn_lite.engine.network import NetworkCompiler
    from returnn_lite.engine.search import run_search
    from returnn_lite.engine.training import run_train

    tasks = {"train": run_train, "eval": run_eval, "search": run_search, "forward": run_forward}
    try:
        tasks[task](loaded.data, NetworkCompiler(loaded.data, locate=loaded.locate))
    except (EngineError, DataError, OSError) as error:
        raise RunError(str(error)) from error
    return 0
