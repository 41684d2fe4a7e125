"""What all tasks have in common: the run's directory, its log, and keys that are refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from returnn_lite.engine.files import require_writable
from returnn_lite.engine.options import ModelOptions, check_engine_keys
from returnn_lite.engine.run_directory import LOGGER, RunDirectory


@contextmanager
def session(config: Mapping[str, Any], model: ModelOptions, task: str) -> Iterator[RunDirectory]:
    """The directory of a run; inside, what is logged is printed and goes to the run's log file."""
    check_engine_keys(config)
    directory = RunDirectory(Path(model.model).parent)
    require_writable(model.model, "model")
    printing = _Printing()
    LOGGER.addHandler(printing)
    try:
        with directory.recording(task, config, model.random_seed):
            yield directory
    finally:
        LOGGER.removeHandler(printing)


class _Printing(logging.Handler):
    """Prints to what is standard output at the moment: a progress bar puts itself there, to stay below the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)
