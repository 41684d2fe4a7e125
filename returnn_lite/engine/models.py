"""Which parameters a run begins with: those of a checkpoint of its own, of another one, or fresh ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from returnn_lite.config.decode import decode_value, describe
from returnn_lite.config.diagnostics import ConfigError, Diagnostic, nearest_hint
from returnn_lite.engine.checkpoints import Checkpoint, CheckpointError, ModelFiles, Preload
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.executable import Executable
from returnn_lite.engine.options import ModelOptions

_log = logging.getLogger(__name__)
_PRELOAD_TYPES: Mapping[str, Any] = {
    "filename": str,
    "prefix": str,
    "init_for_train": bool,
    "ignore_missing": bool,
    "ignore_params": list[str],
    "ignore_params_prefixes": list[str],
    "var_name_mapping": dict[str, str],
}


def load_for_inference(options: ModelOptions, executable: Executable) -> int:
    """Reads the parameters for eval, search or forward; the epoch they are from (0 for a file given with `load`).

    Raises CheckpointError if there is no checkpoint, or it does not fit.
    """
    files = ModelFiles(options.model)
    epoch = options.load_epoch if options.load_epoch is not None else options.epoch
    if options.load is not None:
        prefix, epoch = options.load, 0
    else:
        there = files.epochs()
        if epoch is None and not there:
            raise CheckpointError(f"there is no checkpoint '{options.model}.*.index' yet; run task train first")
        epoch = there[-1] if epoch is None else epoch
        prefix = files.prefix(epoch)
    preloaded = preload(options, executable, for_train=False)
    rest = {name: variable for name, variable in executable.params.items() if name not in preloaded}
    Checkpoint(prefix).restore(rest)
    _log.info("loaded the model '%s'", prefix)
    return epoch


def init_for_train(options: ModelOptions, import_model: str | None, executable: Executable) -> None:
    """Reads the parameters that the first epoch begins with, as far as the config names files for them."""
    source = import_model if import_model is not None else options.load
    if source is not None:
        Checkpoint(source).restore(executable.params)
        _log.info("begin with the model '%s'", source)
    preload(options, executable, for_train=True)


def preload(options: ModelOptions, executable: Executable, *, for_train: bool) -> set[str]:
    """Reads what `preload_from_files` says for this kind of run; the names of the parameters."""
    found: set[str] = set()
    for name, values in options.preload_from_files.items():
        entry = _preload(name, values)
        if entry.init_for_train is for_train:
            loaded = Checkpoint(entry.filename).preload(executable.params, entry)
            _log.info("preload '%s': %d parameters from '%s'", name, len(loaded), entry.filename)
            found |= set(loaded)
    return found


def _preload(name: str, values: Mapping[str, Any]) -> Preload:
    wrong = []
    decoded = {}
    for key, value in values.items():
        path = ("preload_from_files", name, key)
        if key not in _PRELOAD_TYPES:
            hint = nearest_hint(key, list(_PRELOAD_TYPES)).strip() or f"There are {', '.join(_PRELOAD_TYPES)}."
            wrong.append(Diagnostic(None, path, f"there is no option '{key}'", hint))
            continue
        try:
            decoded[key] = decode_value(_PRELOAD_TYPES[key], value)
        except ValueError:
            wrong.append(Diagnostic(None, path, f"expected {describe(_PRELOAD_TYPES[key])}, got {value!r}"))
    if "filename" not in values:
        wrong.append(Diagnostic(None, ("preload_from_files", name), "'filename' is missing", "Give the checkpoint."))
    if wrong:
        raise ConfigError(wrong)
    return Preload(**decoded)


def check_params(executable: Executable) -> None:
    """Raises EngineError if there is nothing to train."""
    if not executable.trainable:
        raise EngineError("the network has no trainable parameters; use task eval or forward")
