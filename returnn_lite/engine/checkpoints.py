"""Model files: ``<model>.001.index`` and ``.data-...`` in TensorFlow's checkpoint format, under RETURNN's names.

Variables are stored by name as tensors, with nothing about the objects that held them, so that a checkpoint of RETURNN
can be read and RETURNN can read ours. A checkpoint exists once its index does: that file is renamed last.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.engine.checkpoint_options import Preload
from returnn_lite.engine.errors import EngineError
from returnn_lite.tf.lstm_weights import converted
from returnn_lite.tf.stored_values import OPTIMIZER, of_this_shape

_log = logging.getLogger(__name__)
_DATA = ".data-00000-of-00001"
_INDEX = ".index"
# What TensorFlow's reader raises for files that are not whole.
_READ_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)


MOST_TOLD = 8
"""How many missing parameters a message names."""


class CheckpointError(EngineError):
    """A checkpoint that is missing, damaged, or does not fit the network."""


@dataclass(frozen=True)
class ModelFiles:
    """The checkpoints of a model: `model` is the path that the config gives, without the epoch."""

    model: str

    def prefix(self, epoch: int) -> str:
        """The path of an epoch's checkpoint, without the endings of its files."""
        return f"{self.model}.{epoch:03d}"

    def epochs(self) -> list[int]:
        """The epochs that have a complete checkpoint, in order."""
        folder, name = Path(self.model).parent, Path(self.model).name
        pattern = re.compile(re.escape(name) + r"\.(\d{3,})\.index")
        found = (pattern.fullmatch(path.name) for path in folder.glob("*.index"))
        return sorted(epoch for match in found if match and self._is_complete(epoch := int(match[1])))

    def _is_complete(self, epoch: int) -> bool:
        return Path(self.prefix(epoch) + _DATA).exists()

    def save(self, epoch: int, variables: Mapping[str, Any]) -> str:
        """Writes a checkpoint: everything under temporary names, which are then given their own. Its prefix."""
        prefix = self.prefix(epoch)
        write_checkpoint(prefix, variables)
        return prefix

    def remove(self, epoch: int) -> None:
        """Removes a checkpoint, its index first: then it does not exist any more."""
        for ending in (_INDEX, _DATA):
            Path(self.prefix(epoch) + ending).unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Removes what a process left that was killed while it wrote a checkpoint."""
        folder, name = Path(self.model).parent, Path(self.model).name
        for path in folder.glob(f"{name}.*"):
            match = re.fullmatch(re.escape(name) + r"\.\d{3,}\.tmp-(\d+)\..*", path.name)
            if match and not Path(f"/proc/{match[1]}").exists():
                path.unlink(missing_ok=True)


def write_checkpoint(prefix: str, variables: Mapping[str, Any]) -> None:
    """Writes variables, tensors or arrays under their names. Raises CheckpointError if the disk does not take them."""
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{prefix}.tmp-{os.getpid()}"
    try:
        tf.raw_ops.SaveV2(
            prefix=temporary,
            tensor_names=list(variables),
            shape_and_slices=[""] * len(variables),
            tensors=[tf.convert_to_tensor(variable) for variable in variables.values()],
        )
        for ending in (_DATA, _INDEX):
            os.replace(temporary + ending, prefix + ending)
    except (tf.errors.OpError, OSError) as error:
        raise CheckpointError(f"checkpoint '{prefix}' cannot be written: {error}") from error
    finally:
        for ending in (_DATA, _INDEX):
            Path(temporary + ending).unlink(missing_ok=True)


class Checkpoint:
    """A checkpoint to read. `prefix` may have one of the endings of its files."""

    def __init__(self, prefix: str) -> None:
        self.prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", prefix)
        if not Path(self.prefix + _INDEX).exists():
            folder = Path(self.prefix).parent
            there = sorted(path.name.removesuffix(_INDEX) for path in folder.glob("*.index"))
            raise CheckpointError(f"checkpoint '{self.prefix}' does not exist; in '{folder}' there are {there}")
        try:
            self._reader = tf.train.load_checkpoint(self.prefix)
            self.shapes: Mapping[str, Sequence[int]] = self._reader.get_variable_to_shape_map()
        except _READ_ERRORS as error:
            raise CheckpointError(f"checkpoint '{self.prefix}' is damaged: {error}") from error
        self.converted: set[str] = set()
        """Names that parameters were made of which have another form."""

    def read(self, name: str) -> NDArray[Any]:
        """The array of a name. Raises CheckpointError if there is none, or its file is damaged."""
        if name not in self.shapes:
            params = [other for other in self.shapes if not other.startswith(OPTIMIZER)]
            raise CheckpointError(f"checkpoint '{self.prefix}' has no '{name}'.{nearest_hint(name, params)}")
        try:
            found = self._reader.get_tensor(name)
        except _READ_ERRORS as error:
            raise CheckpointError(f"checkpoint '{self.prefix}' is damaged at '{name}': {error}") from error
        # Of bytes, NumPy's own type would leave out zeros at the end.
        return np.asarray(found, object if isinstance(found, bytes) else None)

    def restore(
        self,
        variables: Mapping[str, Any],
        may_lack: Collection[str] = (),
        forget_biases: Mapping[str, float] | None = None,
    ) -> None:
        """Assigns all variables by name, after all were read; those of LSTMs from whatever form they are stored in
        (`forget_biases`: what the network adds at run time, by the name of the bias). Raises CheckpointError if one is
        missing that it may not lack, or differs in shape: then none is assigned."""
        self._assign({name: name for name in variables}, variables, may_lack, forget_biases or {})

    def _assign(
        self,
        sources: Mapping[str, str],
        variables: Mapping[str, Any],
        may_lack: Collection[str],
        forget_biases: Mapping[str, float],
    ) -> list[str]:
        """Assigns variables from the names that they have in the checkpoint; the names of those."""
        arrays = self._converted(sources, variables, forget_biases)
        direct = {}
        for name, source in sources.items():
            if source not in self.shapes and name in may_lack and name not in arrays:
                _log.info("checkpoint '%s' has no '%s', which stays as it is", self.prefix, source)
            elif name not in arrays:
                direct[name] = source
        arrays |= self._fitting(direct, variables)
        for name, array in arrays.items():
            variables[name].assign(array)
        return list(arrays)

    def _converted(
        self, sources: Mapping[str, str], variables: Mapping[str, Any], forget_biases: Mapping[str, float]
    ) -> dict[str, NDArray[Any]]:
        """The parameters of LSTMs that the checkpoint has in another form."""
        arrays = {}
        for name, source in sources.items():
            shape = tuple(variables[name].shape)
            if tuple(self.shapes.get(source, ())) == shape and source in self.shapes:
                continue
            found = converted(source, shape, self.shapes, self.read, forget_biases.get(name, 0.0))
            if found is not None:
                arrays[name] = found.value
                self.converted.update(found.sources)
                _log.info("checkpoint '%s': '%s' is made of %s", self.prefix, name, ", ".join(found.sources))
        return arrays

    def _fitting(self, sources: Mapping[str, str], variables: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The arrays of parameters, by the names that they have in the checkpoint. Raises CheckpointError that names
        all that are missing or of another shape."""
        shapes = {name: tuple(variables[name].shape) for name in sources}
        wrong = {name: source for name, source in sources.items() if tuple(self.shapes.get(source, ())) != shapes[name]}
        wrong |= {name: source for name, source in sources.items() if source not in self.shapes}
        if wrong:
            raise CheckpointError(self._told(wrong, shapes, set(sources.values())))
        return {name: self.read(source) for name, source in sources.items()}

    def _told(self, wrong: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], used: Collection[str]) -> str:
        """What is said of parameters that are missing or of another shape; of an optimizer's only where there are no
        others."""
        params = {name: source for name, source in wrong.items() if not source.startswith(OPTIMIZER)}
        told = [self._told_one(name, source, shapes[name], used) for name, source in (params or wrong).items()]
        more = [f"{len(told) - MOST_TOLD} more do not fit"] if len(told) > MOST_TOLD else []
        advice = "import_model_train_epoch1 begins anew with its parameters: it was made with another optimizer."
        if params:
            advice = "preload_from_files with ignore_missing or ignore_params begins with the others."
        return f"checkpoint '{self.prefix}': {'; '.join([*told[:MOST_TOLD], *more])}. {advice}"

    def _told_one(self, name: str, source: str, shape: tuple[int, ...], used: Collection[str]) -> str:
        if source in self.shapes:
            return f"'{source}' has shape {list(self.shapes[source])}, the parameter '{name}' has {list(shape)}"
        what = f"'{source}' {list(shape)}" if source == name else f"'{source}' {list(shape)} for the parameter '{name}'"
        return f"has no {what}{of_this_shape(source, shape, self.shapes, used)}"

    def warn_of_unused(self, names: Iterable[str]) -> None:
        """Logs which variables of the checkpoint are none of these: of another network, or another optimizer."""
        unused = sorted(set(self.shapes) - self.converted - {*names, "_CHECKPOINTABLE_OBJECT_GRAPH"})
        if unused:
            shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
            _log.warning("checkpoint '%s' has %d variables that are not used: %s", self.prefix, len(unused), shown)

    def preload(
        self,
        params: Mapping[str, Any],
        options: Preload,
        may_lack: Collection[str] = (),
        forget_biases: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Assigns the parameters that `options` say, those of LSTMs as `restore` does; the names of those. Raises
        CheckpointError if one is missing."""
        sources = {}
        for name in params:
            inside = name.removeprefix(options.prefix)
            ignored = inside in options.ignore_params or inside.startswith(tuple(options.ignore_params_prefixes))
            if name.startswith(options.prefix) and not ignored:
                sources[name] = options.var_name_mapping.get(inside, inside)
        assigned = self._assign(sources, params, sources if options.ignore_missing else may_lack, forget_biases or {})
        if not assigned:
            raise CheckpointError(
                f"preload_from_files: no parameter of the network is in '{self.prefix}' (prefix '{options.prefix}')"
            )
        return assigned


def superfluous(
    epochs: Iterable[int],
    scores: Mapping[int, Mapping[str, float]],
    keep_last_n: int,
    keep_best_n: int,
    keep: Iterable[int],
) -> list[int]:
    """The epochs whose checkpoints are neither among the last, nor among the best by any score of the data set "dev"
    (of "train" if there is none), nor in `keep`. `scores` are the errors by epoch as in the learning-rate file."""
    there = sorted(epochs)
    kept = {*there[-keep_last_n:]} if keep_last_n else set()
    kept |= set(keep)
    keys = {key for epoch in there for key in scores.get(epoch, {})}
    for key in {key for key in keys if key.startswith("dev_")} or {key for key in keys if key.startswith("train_")}:
        scored = [epoch for epoch in there if key in scores.get(epoch, {})]
        kept |= set(sorted(scored, key=lambda epoch: (_rank(scores[epoch][key]), -epoch))[:keep_best_n])
    return [epoch for epoch in there if epoch not in kept]


def _rank(score: float) -> float:
    """A score to sort by: what is no number is the worst."""
    return math.inf if math.isnan(score) else score
