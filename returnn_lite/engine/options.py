"""The config's keys that the engine reads, and how they are decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from returnn_lite.config.decode import decode
from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.config.options import option
from returnn_lite.data import BatchOptions, Chunking, DataError, SeqOrdering, dataset_mistakes, parse_chunking
from returnn_lite.engine.checkpoint_options import checkpoint_mistakes
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.gradient_options import GradientOptions
from returnn_lite.engine.learning_rate import LearningRateOptions
from returnn_lite.engine.optimizer_options import OptimizerOptions

Options = TypeVar("Options")
PerKey = int | dict[str, int]


@dataclass(frozen=True)
class ModelOptions:
    """Which model a run works with, and where it leaves its files."""

    model: str = option("path of the model files, without epoch; its folder is the run's directory")
    learning_rate_file: str | None = option("default: learning_rates in the run's directory", default=None)
    random_seed: int = option("decides initial parameters, dropout and noise", default=42)
    load: str | None = option("a checkpoint to begin with (train, if there is none yet) or to use", default=None)
    load_epoch: int | None = option("the epoch whose checkpoint to use; default the last", default=None)
    epoch: int | None = option("the same as load_epoch", default=None)
    preload_from_files: dict[str, dict[str, Any]] = option("parameters to read from other checkpoints", default={})

    def __post_init__(self) -> None:
        if Path(self.model).name != self.model.rpartition("/")[2] or Path(self.model).name in ("", ".", ".."):
            raise EngineError(f"model: '{self.model}' is a folder; give a file's name in it, for example 'run/model'")


@dataclass(frozen=True)
class BatchingOptions:
    """How batches are made; see `returnn_lite.data.BatchOptions`."""

    batch_size: PerKey = option("frames of a batch, padding included")
    max_seqs: int | None = option("sequences of a batch", default=None)
    max_seq_length: PerKey | None = option("training and evaluation leave out longer sequences", default=None)
    min_seq_length: PerKey | None = option("training and evaluation leave out shorter sequences", default=None)
    max_pad_size: PerKey | None = option("frames of padding in a batch", default=None)
    batching: str | None = option("seq_ordering of datasets that give none", default=None)
    chunking: str | int | dict[str, Any] | list[Any] | None = option("chunks for training, 'size:step'", default=None)
    min_chunk_size: PerKey = option("shorter chunks at the end of a sequence are left out", default=0)

    def __post_init__(self) -> None:
        self.for_train()
        if self.batching is not None:
            try:
                SeqOrdering(self.batching)
            except ValueError as error:
                raise DataError(f"batching: {error}") from error

    def for_train(self) -> BatchOptions:
        """Limits and chunks."""
        return self._limits(parse_chunking(self.chunking, self.min_chunk_size))

    def for_eval(self) -> BatchOptions:
        """Limits; sequences whole."""
        return self._limits(None)

    def for_all(self) -> BatchOptions:
        """No sequence is left out: for search and forward."""
        return BatchOptions(self.batch_size, self.max_seqs)

    def _limits(self, chunking: Chunking | None) -> BatchOptions:
        return BatchOptions(
            self.batch_size, self.max_seqs, self.max_seq_length, self.min_seq_length, self.max_pad_size, chunking
        )


@dataclass(frozen=True)
class TrainOptions:
    """What task train does."""

    train: dict[str, Any] = option("the dataset to train on")
    dev: dict[str, Any] | None = option("the dataset whose score decides about the learning rate", default=None)
    eval: dict[str, Any] | None = option("a further dataset to evaluate after each epoch", default=None)
    eval_datasets: dict[str, dict[str, Any]] = option("further datasets to evaluate, by name", default={})
    num_epochs: int = option("the last epoch", default=5, least=1)
    save_interval: int = option("save the model every so many epochs, and after the last", default=1, least=1)
    cleanup_old_models: bool | dict[str, Any] = option(
        "remove checkpoints but for keep_last_n (2), keep_best_n (4) and those of the list keep", default=False
    )
    import_model_train_epoch1: str | None = option("a checkpoint that the first epoch begins with", default=None)
    stop_on_nonfinite_train_score: bool = option("stop when a score is not a number", default=True)

    def eval_options(self) -> dict[str, dict[str, Any]]:
        """The datasets to evaluate by name, "dev" first."""
        named = {"dev": self.dev, "eval": self.eval}
        return {**{name: data for name, data in named.items() if data is not None}, **self.eval_datasets}


@dataclass(frozen=True)
class EvalOptions:
    """What task eval does."""

    dev: dict[str, Any] | None = option("a dataset to evaluate", default=None)
    eval: dict[str, Any] | None = option("a dataset to evaluate", default=None)
    eval_datasets: dict[str, dict[str, Any]] = option("datasets to evaluate, by name", default={})
    eval_output_file: str | None = option("file for the scores, a Python dict", default=None)


@dataclass(frozen=True)
class SearchOptions:
    """What task search does."""

    search_data: dict[str, Any] | str | None = option(
        "the dataset, or the key of one, for example config:dev; default eval, else dev", default=None
    )
    search_output_layer: str | list[str] = option("layers whose hypotheses are wanted", default="decision")
    search_output_file: str | None = option("file for the hypotheses; .gz allowed; must not exist", default=None)
    search_output_file_format: Literal["py", "txt"] = option("a Python dict by tag, or a line each", default="py")
    search_target: str | None = option("data key of the gold labels; default the config's target", default=None)
    target: str = option("default data key of targets", default="classes")


@dataclass(frozen=True)
class ForwardOptions:
    """What task forward does."""

    forward_data: dict[str, Any] | str | None = option("the dataset, or the key of one", default=None)
    forward_output_layer: str = option("the layer whose output is written", default="output")
    forward_batch_size: PerKey | None = option("frames of a batch; default batch_size", default=None)
    forward_override_hdf_output: bool = option("replace an existing file", default=False)
    output_file: str | None = option("HDF file; default <model>.<epoch>.<layer>.hdf", default=None)


OPTION_CLASSES: tuple[type, ...] = (
    ModelOptions,
    BatchingOptions,
    TrainOptions,
    EvalOptions,
    SearchOptions,
    ForwardOptions,
    LearningRateOptions,
    OptimizerOptions,
    GradientOptions,
)
"""All classes of engine options: together they say which keys of a config the engine knows."""

UNSUPPORTED: Mapping[str, str] = {
    "pretrain": "Train the full network; pretraining is not supported yet",
    "pretrain_learning_rate": "Pretraining is not supported yet",
    "dynamic_learning_rate": "Use learning_rates or a learning_rate_control",
    "maximize_grad_norm": "Remove it; there is no such loss term",
    "decouple_constraints": "Use the optimizer adamw for weight decay apart from the gradient",
    "gradient_clip_global_norm_tag": "Use gradient_clip_global_norm",
    "start_epoch": "Runs resume after their last checkpoint; import_model_train_epoch1 begins anew from one",
    "start_batch": "Runs resume after their last complete epoch",
    "load_on_init": "Use preload_from_files",
    "search_do_eval": "Run task eval for losses; search reports error rates",
    "forward_use_search": "Use task search",
    "eval_output_file_per_seq": "Use eval_output_file",
    "use_horovod": "Training on several machines is not supported",
    "window": "Use a layer of class window",
    "context_window": "Use a layer of class window",
    "chunking_variance": "Chunks of random size are not supported",
    "newbob_learning_rate_growth_factor": "The key is newbob_learning_rate_growth",
}
"""Keys of RETURNN's engine that this one does not have, and what to do instead."""


def engine_options(cls: type[Options], config: Mapping[str, Any]) -> Options:
    """The options of a class from a config. Raises ConfigError with everything that is wrong with them."""
    options, found = _decoded(cls, config)
    if options is None or found:
        raise ConfigError(found)
    return options


def _decoded(cls: type[Options], config: Mapping[str, Any]) -> tuple[Options | None, list[Diagnostic]]:
    found: list[Diagnostic] = []

    def report(name: str, message: str, hint: str) -> None:
        found.append(Diagnostic(None, (name,), message, hint))

    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    given = {name: config[name] for name in names if name in config}
    try:
        return decode(cls, given, report), found
    except (EngineError, DataError, ValueError) as error:
        key, _, rest = str(error).partition(": ")
        if key in given:
            return None, [*found, Diagnostic(None, (key,), rest)]
        meant = next(((name,) for name in given if name in str(error)), ())
        return None, [*found, Diagnostic(None, meant, str(error))]


def dataset_options(config: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A dataset's dict with what the config says for all datasets: `batching` is their seq_ordering."""
    batching = config.get("batching")
    return data if batching is None else {"seq_ordering": batching, **data}


def engine_mistakes(config: Mapping[str, Any]) -> list[Diagnostic]:
    """What is wrong with the keys that the engine reads, each mistake at its key.

    Only a config that has a `task` needs the keys of that task, so that one with nothing but a network can be checked.
    """
    task = config.get("task")
    found: list[Diagnostic] = []
    if task is not None and task not in TASK_OPTIONS:
        found.append(Diagnostic(None, ("task",), f"there is no task {task!r}", f"The tasks are {', '.join(TASKS)}."))
    needed = {ModelOptions, BatchingOptions, TASK_OPTIONS[str(task)]} if task in TASK_OPTIONS else set()
    for cls in OPTION_CLASSES:
        _, mistakes = _decoded(cls, config)
        found += [one for one in mistakes if cls in needed or any(key in config for key in one.path)]
    return found + list(checkpoint_mistakes(config)) + _dataset_mistakes(config)


def _dataset_mistakes(config: Mapping[str, Any]) -> list[Diagnostic]:
    """Datasets with a wrong class or option."""
    named: dict[tuple[str, ...], Any] = {(key,): config.get(key) for key in DATASET_KEYS}
    further = config.get("eval_datasets")
    if isinstance(further, Mapping):
        named |= {("eval_datasets", key): options for key, options in further.items()}
    found = []
    for path, options in named.items():
        if isinstance(options, Mapping):
            found += [
                Diagnostic(None, (*path, option) if option in options else path, message)
                for option, message in dataset_mistakes(options)
            ]
    return found


TASK_OPTIONS: Mapping[str, type] = {
    "train": TrainOptions,
    "eval": EvalOptions,
    "search": SearchOptions,
    "forward": ForwardOptions,
}
TASKS = tuple(TASK_OPTIONS)
DATASET_KEYS = ("train", "dev", "eval", "search_data", "forward_data")


def is_set(config: Mapping[str, Any], key: str) -> bool:
    """Whether a key has a value that would do something; a window of one frame does nothing."""
    return config.get(key) not in (None, False, 0, "") and not (key.endswith("window") and config[key] == 1)


def check_engine_keys(config: Mapping[str, Any]) -> None:
    """Raises ConfigError for keys of RETURNN's engine that are not supported, whatever the task."""
    wrong = [
        Diagnostic(None, (key,), f"'{key}' is not supported", f"{hint}.")
        for key, hint in UNSUPPORTED.items()
        if is_set(config, key)
    ]
    if wrong:
        raise ConfigError(wrong)
