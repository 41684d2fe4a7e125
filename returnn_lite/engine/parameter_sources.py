"""Where parameters are from: a checkpoint, the folder of a run, or a config's model."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from returnn_lite.config.diagnostics import ConfigError
from returnn_lite.engine.checkpoints import Checkpoint, CheckpointError, ModelFiles
from returnn_lite.engine.models import load_for_inference, saved_params
from returnn_lite.engine.network import CompiledNetwork, NetworkCompiler
from returnn_lite.engine.options import ForwardOptions, ModelOptions, engine_options
from returnn_lite.engine.parameter_set import ParameterSet
from returnn_lite.tf.stored_values import OPTIMIZER

OF_TRAINING = ("global_step", "learning_rate")
"""What checkpoints, ours and RETURNN's, have of the training beside parameters and the optimizer's variables."""
RETURNNS_OPTIMIZER = "optimize/"


def of_checkpoint(prefix: str) -> ParameterSet:
    """Those of a checkpoint, without the optimizer's variables and texts. Raises CheckpointError."""
    checkpoint = Checkpoint(prefix)
    shapes = checkpoint.shapes
    names = sorted(name for name in shapes if name not in OF_TRAINING and not _is_of_optimizer(name, shapes))
    arrays = {name: checkpoint.read(name) for name in names}
    arrays = {name: array for name, array in arrays.items() if array.dtype.kind not in "OSU"}
    return ParameterSet(arrays, f"checkpoint '{checkpoint.prefix}'")


def _is_of_optimizer(name: str, known: Container[str]) -> bool:
    """Ours have a place of their own; TensorFlow 1 puts them below the parameter, RETURNN both into one place."""
    name = name.removeprefix(RETURNNS_OPTIMIZER)
    begins = (name[: slash.start()] for slash in re.finditer("/", name))
    return name.startswith(OPTIMIZER) or any(begin in known for begin in begins)


def of_folder(path: str) -> ParameterSet:
    """Those of the last epoch in the folder of a run. Raises CheckpointError without a checkpoint, or with several
    models'."""
    matches = (re.fullmatch(r"(.+)\.\d{3,}\.index", one.name) for one in Path(path).glob("*.index"))
    models = sorted({match[1] for match in matches if match})
    whole = [model for model in models if ModelFiles(str(Path(path) / model)).epochs()]
    if len(whole) != 1:
        found = f"checkpoints of several models, {', '.join(whole)}: name one" if whole else "no checkpoint"
        raise CheckpointError(f"the folder '{path}' has {found}")
    return of_model(str(Path(path) / whole[0]))


def of_model(path: str) -> ParameterSet:
    """Those of the last epoch of a model, which is a path without the epoch. Raises CheckpointError."""
    files = ModelFiles(path)
    epochs = files.epochs()
    if not epochs:
        raise CheckpointError(f"model '{path}' has no checkpoint that is whole")
    return of_checkpoint(files.prefix(epochs[-1]))


def of_network(config: Mapping[str, Any], compiler: NetworkCompiler) -> ParameterSet:
    """Those of the network of a config: of the checkpoint that a task would use; if the model has none yet, the
    initial ones. Raises ConfigError and EngineError."""
    options = engine_options(ModelOptions, config)
    runnable = _with_all_parameters(config, compiler)
    origin = f"the initial parameters of model '{options.model}', which has no checkpoint yet"
    asked = (options.load, options.load_epoch, options.epoch)
    if any(value is not None for value in asked) or ModelFiles(options.model).epochs():
        epoch = load_for_inference(options, runnable)
        origin = f"checkpoint '{ModelFiles(options.model).prefix(epoch) if epoch else options.load}'"
    arrays = {name: np.asarray(variable) for name, variable in saved_params(runnable).items()}
    return ParameterSet(dict(sorted(arrays.items())), origin, runnable.forget_biases)


def _with_all_parameters(config: Mapping[str, Any], compiler: NetworkCompiler) -> CompiledNetwork:
    """The network as it is trained; one without a loss as task forward has it."""
    try:
        return compiler("train")
    except ConfigError:  # a mistake of another kind is found again
        return compiler("forward", [engine_options(ForwardOptions, config).forward_output_layer])
