"""Files of parameters as `rnn.py params` takes them: what a user may name, and what is written."""

from __future__ import annotations

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
    """The parameters of an archive, a folder, a checkpoint or a config. Raises UsageError, ConfigError, EngineError."""
    path = Path(source)
    is_config = not (path.suffix == ARCHIVE or path.is_dir() or _is_checkpoint(source))
    if overrides and not is_config:
        raise UsageError(f"'{overrides[0]}' overrides a config, and '{source}' is none")
    if path.suffix == ARCHIVE:
        if not path.exists():
            raise UsageError(f"there is no file '{source}'")
        from returnn_lite.engine.archives import read_archive
        from returnn_lite.engine.parameter_set import ParameterSet

        return ParameterSet(read_archive(source), f"'{source}'")
    loaded = _config(source, overrides) if is_config else None
    with quiet_import():
        from returnn_lite.engine import parameter_sources as sources
        from returnn_lite.engine.network import NetworkCompiler
    if loaded is None:
        return sources.of_folder(source) if path.is_dir() else sources.of_checkpoint(source)
    compiler = NetworkCompiler(loaded.data, locate=loaded.locate, functions=loaded.functions)
    try:
        return sources.of_network(loaded.data, compiler)
    except ConfigError as error:
        raise ConfigError(loaded.placed(error)) from error


def _is_checkpoint(source: str) -> bool:
    return Path(f"{source}.index").exists() or Path(source).suffix == ".index" or ".data-" in Path(source).name


def _config(source: str, overrides: Sequence[str]) -> LoadedConfig:
    if not Path(source).exists() and Path(source).suffix not in (".yaml", ".yml", ".json", *PYTHON_SUFFIXES):
        raise UsageError(f"there is no '{source}': neither a file or folder, nor a checkpoint '{source}.index'")
    return load(source, overrides)


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
        from returnn_lite.engine.checkpoints import write_checkpoint

        write_checkpoint(path, arrays)
    print(f"wrote {path}: {len(arrays)} parameters, {what}")
    return 0


def note(text: str) -> None:
    """Tells what does not keep a command from its end."""
    print(f"rnn.py: {text}", file=sys.stderr)
