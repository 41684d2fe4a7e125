"""Which parameters a run begins with: those of a checkpoint of its own, of another one, or fresh ones."""

from __future__ import annotations

import logging

import tensorflow as tf

from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.engine.checkpoint_options import preload_options
from returnn_lite.engine.checkpoints import Checkpoint, CheckpointError, ModelFiles
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.options import ModelOptions
from returnn_lite.engine.runnable import Runnable

_log = logging.getLogger(__name__)


def load_for_inference(options: ModelOptions, runnable: Runnable) -> int:
    """Reads the parameters for eval, search or forward; the epoch they are from (0 for a file given with `load`).

    Raises CheckpointError if there is no checkpoint, or it does not fit.
    """
    files = ModelFiles(options.model)
    epoch = _chosen_epoch(options)
    if options.load is not None:
        prefix, epoch = options.load, 0
    else:
        there = files.epochs()
        if epoch is None and not there:
            raise CheckpointError(f"there is no checkpoint '{options.model}.*.index' yet; run task train first")
        epoch = there[-1] if epoch is None else epoch
        prefix = files.prefix(epoch)
    preloaded = preload(options, runnable, for_train=False)
    rest = {name: variable for name, variable in saved_params(runnable).items() if name not in preloaded}
    checkpoint = Checkpoint(prefix)
    checkpoint.restore(rest, runnable.optional, runnable.forget_biases)
    _log.info("loaded the model '%s'", prefix)
    return epoch


def saved_params(runnable: Runnable) -> dict[str, tf.Variable]:
    """The parameters that checkpoints of the network have."""
    unsaved = frozenset(runnable.unsaved)
    return {name: variable for name, variable in runnable.params.items() if name not in unsaved}


def _chosen_epoch(options: ModelOptions) -> int | None:
    """The epoch that the config asks for; at most one of the keys that say which model to use may be given."""
    given = {key: getattr(options, key) for key in ("load", "load_epoch", "epoch")}
    keys = [key for key, value in given.items() if value is not None]
    if len(keys) > 1 and (options.load is not None or options.load_epoch != options.epoch):
        message = f"{' and '.join(keys)} contradict each other"
        raise ConfigError([Diagnostic(None, (keys[0],), message, "Give one of them.")])
    return options.load_epoch if options.load_epoch is not None else options.epoch


def init_for_train(options: ModelOptions, import_model: str | None, runnable: Runnable) -> None:
    """Reads the parameters that the first epoch begins with, as far as the config names files for them."""
    if import_model is not None and options.load is not None:
        message = "load and import_model_train_epoch1 contradict each other"
        raise ConfigError([Diagnostic(None, ("load",), message, "Give one of them.")])
    source = import_model if import_model is not None else options.load
    if source is not None:
        Checkpoint(source).restore(saved_params(runnable), runnable.optional, runnable.forget_biases)
        _log.info("begin with the model '%s'", source)
    preload(options, runnable, for_train=True)


def preload(options: ModelOptions, runnable: Runnable, *, for_train: bool) -> set[str]:
    """Reads what `preload_from_files` says for this kind of run; the names of the parameters."""
    found: set[str] = set()
    for name, entry in preload_options(options.preload_from_files).items():
        if entry.init_for_train is for_train:
            may_lack = {*runnable.optional, *runnable.unsaved}
            loaded = Checkpoint(entry.filename).preload(runnable.params, entry, may_lack, runnable.forget_biases)
            _log.info("preload '%s': %d parameters from '%s'", name, len(loaded), entry.filename)
            found |= set(loaded)
    return found


def check_params(runnable: Runnable) -> None:
    """Raises EngineError if there is nothing to train."""
    if not runnable.trainable:
        raise EngineError("the network has no trainable parameters; use task eval or forward")
