"""Files of parameters as `rnn.py params` takes them: what a user may name, and what is written."""

from __future__ import annotations

import glob
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from returnn_lite.cli.loading import PYTHON_SUFFIXES, LoadedConfig, UsageError, load
from returnn_lite.cli.tasks import quiet_import
from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from returnn_lite.engine.parameter_set import ParameterSet

    Arrays = Mapping[str, NDArray[Any]]

ARCHIVE = ".npz"


def read_parameters(source: str, overrides: Sequence[str]) -> ParameterSet:
    """The parameters of an archive, a folder, a model, a checkpoint or a config. Raises UsageError, ConfigError and
    EngineError."""
    kind = _kind(source)
    if overrides and kind != "config":
        raise UsageError(f"'{overrides[0]}' overrides a config, and '{source}' is none")
    if kind == "archive":
        from returnn_lite.engine.archives import read_archive
        from returnn_lite.engine.parameter_set import ParameterSet

        return ParameterSet(read_archive(source), f"'{source}'")
    if kind == "config":
        return _of_config(load(source, overrides))
    with quiet_import():
        from returnn_lite.engine import parameter_sources as sources
    read = {"folder": sources.of_folder, "model": sources.of_model, "checkpoint": sources.of_checkpoint}
    return read[kind](source)


def _kind(source: str) -> str:
    """What a user has named. Raises UsageError if it is nothing."""
    path = Path(source)
    if path.is_dir():
        return "folder"
    if Path(f"{source}.index").exists() or path.suffix == ".index" or ".data-" in path.name:
        return "checkpoint"
    if path.exists() or path.suffix in (".yaml", ".yml", ".json", *PYTHON_SUFFIXES):
        return "archive" if path.suffix == ARCHIVE else "config"
    if any(path.parent.glob(f"{glob.escape(path.name)}.[0-9][0-9][0-9]*.index")):
        return "model"
    files = (
        "" if path.suffix == ARCHIVE else f": neither a file, a folder or a model, nor a checkpoint '{source}.index'"
    )
    raise UsageError(f"there is no '{source}'{files}")


def _of_config(loaded: LoadedConfig) -> ParameterSet:
    with quiet_import():
        from returnn_lite.engine.network import NetworkCompiler
        from returnn_lite.engine.parameter_sources import of_network
    compiler = NetworkCompiler(loaded.data, locate=loaded.locate, functions=loaded.functions)
    try:
        return of_network(loaded.data, compiler)
    except ConfigError as error:
        raise ConfigError(loaded.placed(error)) from error


def require_archive(path: str) -> str:
    """The path. Raises UsageError if it is not one of an archive."""
    if Path(path).suffix != ARCHIVE:
        raise UsageError(f"'{path}' does not end in {ARCHIVE}")
    return path


def require_new(path: str) -> None:
    """Raises UsageError if the file or the checkpoint is there."""
    for ending in ("", ".index", ".data-00000-of-00001"):
        if Path(path + ending).exists():
            raise UsageError(f"'{path}{ending}' exists, and nothing is replaced: name another, or remove it")


def write_parameters(path: str, arrays: Arrays, what: str) -> int:
    """Writes a file that is not there yet, and says so."""
    infinite = [name for name, array in arrays.items() if array.dtype.kind in "fc" and not np.isfinite(array).all()]
    if infinite:
        note(f"not all numbers are finite in {', '.join(infinite[:5])}{', ..' if len(infinite) > 5 else ''}")
    if Path(path).suffix == ARCHIVE:
        from returnn_lite.engine.archives import write_archive

        write_archive(path, arrays)
    else:
        with quiet_import():
            from returnn_lite.engine.checkpoints import write_checkpoint

        write_checkpoint(path, arrays)
    print(f"wrote {path}: {len(arrays)} parameters, {what}")
    return 0


def note(text: str) -> None:
    """Tells what does not keep a command from its end."""
    print(f"rnn.py: {text}", file=sys.stderr)
