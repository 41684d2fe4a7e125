"""The verbs that run a network: train, eval, search, forward. They import TensorFlow, so only when they run."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from returnn_lite.cli.loading import LoadedConfig

STDERR = 2
"""The file descriptor."""


class RunError(Exception):
    """A run that failed. The message says why."""


def version() -> str:
    """The version of returnn_lite."""
    from returnn_lite.engine.run_directory import package_version

    return f"returnn_lite {package_version('returnn_lite')}"


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Keeps TensorFlow from writing about itself to standard error while it is imported, and later but for errors.

    Some of its lines come before its log level holds and from C++, so the file descriptor is turned away meanwhile.
    What was written is shown if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    original = os.dup(STDERR)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), STDERR)
        try:
            yield
        except BaseException:
            written.seek(0)
            os.write(original, written.read())
            raise
        finally:
            os.dup2(original, STDERR)
            os.close(original)


def run_task(task: str, loaded: LoadedConfig) -> int:
    """Runs one of the four tasks. Raises ConfigError and RunError."""
    with quiet_import():
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
