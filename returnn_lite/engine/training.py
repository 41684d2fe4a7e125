"""Task train: epochs of updates, each followed by a checkpoint, an evaluation and the next learning rate.

Everything that the next epoch needs is on disk when an epoch ends, and nothing of the epoch before is touched until
then: a run that is killed or interrupted at any point goes on from its last checkpoint with the same command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.data import Dataset, make_dataset
from returnn_lite.engine.checkpoint_options import cleanup_options
from returnn_lite.engine.checkpoints import Checkpoint, ModelFiles, superfluous
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.evaluation import Evaluator
from returnn_lite.engine.feeding import check_dataset, computing, feeds, planned, require_batches, signature
from returnn_lite.engine.files import require_writable
from returnn_lite.engine.gradient_options import GradientOptions
from returnn_lite.engine.gradients import Accumulator, transformed
from returnn_lite.engine.learning_rate import LearningRateControl, LearningRateOptions
from returnn_lite.engine.learning_rate_file import EpochRecord, read_learning_rates, write_learning_rates
from returnn_lite.engine.models import check_params, init_for_train, saved_params
from returnn_lite.engine.optimizer_options import OptimizerOptions
from returnn_lite.engine.optimizers import Optimizers
from returnn_lite.engine.options import BatchingOptions, ModelOptions, TrainOptions, dataset_options, engine_options
from returnn_lite.engine.progress import elapsed, progress
from returnn_lite.engine.run_directory import RunDirectory
from returnn_lite.engine.runnable import Compile, Runnable, Tensors
from returnn_lite.engine.session import session
from returnn_lite.engine.statistics import Totals, as_numbers
from returnn_lite.engine.tensorboard import STEPS_BETWEEN_POINTS, Events, events

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """The records of all epochs, as in the learning-rate file, and the checkpoint of the last one."""

    records: Mapping[int, EpochRecord]
    checkpoint: str


def run_train(config: Mapping[str, Any], compile_mode: Compile) -> TrainingResult:
    """Trains until `num_epochs`, from the last checkpoint if there is one.

    Raises ConfigError for wrong options, EngineError if a score is not finite or files cannot be used.
    """
    model = engine_options(ModelOptions, config)
    options = engine_options(TrainOptions, config)
    _refuse_epoch(model)
    if model.learning_rate_file is not None:
        require_writable(model.learning_rate_file, "learning_rate_file")
    datasets = {
        name: make_dataset(dataset_options(config, data), name) for name, data in options.eval_options().items()
    }
    for name, dataset in datasets.items():
        require_batches(dataset, engine_options(BatchingOptions, config).for_eval(), name)
    train = make_dataset(dataset_options(config, options.train), "train")
    with session(config, model, "train") as directory, events(directory.events) as curves:
        trainer = Trainer(config, compile_mode, directory, curves)
        return trainer.run(train, datasets)


def _refuse_epoch(model: ModelOptions) -> None:
    """Raises ConfigError for keys that say which epoch to use: training would have to ignore them."""
    hint = "Runs resume after their last checkpoint; import_model_train_epoch1 begins anew from any one."
    given = [key for key in ("load_epoch", "epoch") if getattr(model, key) is not None]
    if given:
        raise ConfigError([Diagnostic(None, (key,), f"task train takes no '{key}'", hint) for key in given])


class UpdateStep:
    """One update of the parameters, traced once: losses, gradients, and what the optimizer makes of them."""

    def __init__(self, runnable: Runnable, optimizer: OptimizerOptions, gradient: GradientOptions) -> None:
        names = sorted(runnable.trainable)
        self.optimizers = Optimizers(optimizer, runnable.params, names, runnable.updater_opts)
        self.accumulator = Accumulator(
            gradient.accum_grad_multiple_step, {name: runnable.params[name] for name in names}
        )

        def step(data: Tensors, seq_lens: Tensors, seed: tf.Tensor, number: tf.Tensor) -> dict[str, dict[str, Any]]:
            result = runnable.run_train(data, seq_lens, seed)
            sums = self.accumulator.add({name: result.gradients[name] for name in names}, number)
            ready = transformed(sums, gradient, seed)
            if self.accumulator.every == 1:
                self.optimizers.apply(ready)
            else:
                tf.cond(self.accumulator.is_full(number), lambda: self._apply(ready), lambda: tf.constant(False))
            return as_numbers(result.losses)

        scalars = (tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int64))
        self.run = tf.function(step, input_signature=(*signature(runnable), *scalars), autograph=False)

    def _apply(self, gradients: Tensors) -> tf.Tensor:
        self.optimizers.apply(gradients)
        return tf.constant(True)

    def state(self) -> dict[str, Any]:
        """The variables beside the parameters that a run needs to go on."""
        return {**self.optimizers.state(), **self.accumulator.state()}


class Trainer:
    """A training run: its model, its step counter, and the records of its epochs."""

    def __init__(
        self, config: Mapping[str, Any], compile_mode: Compile, directory: RunDirectory, curves: Events
    ) -> None:
        self._model = engine_options(ModelOptions, config)
        self._options = engine_options(TrainOptions, config)
        self._batching = engine_options(BatchingOptions, config)
        self._control = LearningRateControl(engine_options(LearningRateOptions, config))
        self._cleanup = cleanup_options(self._options.cleanup_old_models)
        self._curves = curves
        self._files = ModelFiles(self._model.model)
        self._rates_file = Path(self._model.learning_rate_file or directory.path / "learning_rates")
        self._records = read_learning_rates(self._rates_file) if self._rates_file.exists() else {}
        self._executable = compile_mode("train")
        check_params(self._executable)
        optimizer, gradient = engine_options(OptimizerOptions, config), engine_options(GradientOptions, config)
        self._step = UpdateStep(self._executable, optimizer, gradient)
        self._evaluator = Evaluator(compile_mode("eval"))
        self._global_step = 0

    def run(self, train: Dataset, datasets: Mapping[str, Dataset]) -> TrainingResult:
        """Trains all epochs that are left."""
        check_dataset(train, self._executable, "train")
        for name, dataset in datasets.items():
            check_dataset(dataset, self._evaluator.runnable, name)
        self._log_parameters()
        last = self._resume()
        if last and last in self._records and not self._is_evaluated(last, datasets):
            self._evaluate(last, datasets)
        if last >= self._options.num_epochs:
            _log.info("nothing is left to train: num_epochs is %d", self._options.num_epochs)
        for epoch in range(last + 1, self._options.num_epochs + 1):
            started = time.monotonic()
            rate = self._control.next(epoch, self._records)
            totals = self._train_epoch(epoch, rate, train)
            # The record is first: a checkpoint without one would lose what the epoch tells the learning rate.
            self._record(epoch, rate, totals.errors("train"))
            if epoch % self._options.save_interval == 0 or epoch == self._options.num_epochs:
                self._files.save(epoch, {**self._variables(), "global_step": np.int64(self._global_step)})
            _log.info("epoch %d %s elapsed: %s learning rate: %.6g", epoch, totals, elapsed(started), rate)
            self._evaluate(epoch, datasets)
            self._remove_old()
        last = self._files.epochs()[-1]
        return TrainingResult(dict(self._records), self._files.prefix(last))

    def _variables(self) -> dict[str, Any]:
        return {**saved_params(self._executable), **self._executable.states, **self._step.state()}

    def _may_lack(self) -> list[str]:
        """What a checkpoint of another network may lack: parameters, and what optimizers know of them."""
        optional = set(self._executable.optional)
        of_optimizers = [name for name in self._step.state() if name.partition("/")[2].rpartition("/")[0] in optional]
        return [*optional, *self._executable.states, *of_optimizers]

    def _log_parameters(self) -> None:
        sizes = [int(np.prod(variable.shape)) for variable in self._executable.params.values()]
        _log.info("the network has %d parameters in %d arrays", sum(sizes), len(sizes))

    def _resume(self) -> int:
        """Brings the last checkpoint back; its epoch, or 0 if there is none."""
        self._files.remove_unfinished()
        there = self._files.epochs()
        if not there:
            if self._records:
                _log.warning("'%s' is there already: the rates in it are used", self._rates_file)
            init_for_train(self._model, self._options.import_model_train_epoch1, self._executable)
            return 0
        last = there[-1]
        checkpoint = Checkpoint(self._files.prefix(last))
        checkpoint.restore(self._variables(), self._may_lack(), self._executable.forget_biases)
        checkpoint.warn_of_unused([*self._variables(), "global_step"])
        self._global_step = int(checkpoint.read("global_step"))
        _log.info("resume after epoch %d, from '%s'", last, checkpoint.prefix)
        if last not in self._records:
            _log.warning("'%s' knows nothing of epoch %d: the learning rate begins anew", self._rates_file, last)
        return last

    def _train_epoch(self, epoch: int, rate: float, train: Dataset) -> Totals:
        self._step.optimizers.set_learning_rate(rate)
        current, pieces = planned(train, epoch, self._batching.for_train(), "train")
        totals = Totals()
        with progress(f"train epoch {epoch}", len(pieces)) as advance:
            for number, (batch, (data, seq_lens)) in enumerate(feeds(self._executable, current, pieces, "train")):
                seed = step_seed(self._model.random_seed, self._global_step)
                with computing(self._executable, batch, "train"):
                    found = self._step.run(
                        data, seq_lens, tf.constant(seed, tf.int32), tf.constant(self._global_step, tf.int64)
                    )
                    totals.add(found)
                self._global_step += 1
                if self._options.stop_on_nonfinite_train_score and not totals.is_finite():
                    raise EngineError(self._not_finite(epoch, number, batch.tags))
                if self._global_step % STEPS_BETWEEN_POINTS == 0:
                    latest = Totals()
                    latest.add(found)
                    self._curves.scalars(latest.errors("step"), self._global_step)
                advance(str(totals))
        if totals.is_empty():
            raise EngineError(f"train: in epoch {epoch} there is no frame to learn from; all sequences are empty")
        return totals

    def _not_finite(self, epoch: int, step: int, tags: tuple[str, ...]) -> str:
        there = self._files.epochs()
        kept = f"The model of epoch {there[-1]} is kept" if there else "There is no model yet"
        return (
            f"the train score is not finite in epoch {epoch}, step {step} (sequences {', '.join(tags[:3])}...). "
            f"{kept}. Try a lower learning_rate, or gradient_clip_global_norm"
        )

    def _is_evaluated(self, epoch: int, datasets: Mapping[str, Dataset]) -> bool:
        known = self._records[epoch].errors
        return all(any(key.startswith((f"{name}_score", f"{name}_error")) for key in known) for name in datasets)

    def _evaluate(self, epoch: int, datasets: Mapping[str, Dataset]) -> None:
        for name, dataset in datasets.items():
            totals = self._evaluator.evaluate(dataset, self._batching.for_eval(), name, epoch)
            _log.info("%s: %s", name, totals)
            if not totals.is_finite() or totals.is_empty():
                _log.warning("the score of '%s' in epoch %d is not a finite number", name, epoch)
            self._record(epoch, self._records[epoch].learning_rate, totals.errors(name))

    def _record(self, epoch: int, rate: float, errors: Mapping[str, float]) -> None:
        """Adds scores to an epoch's record; those of an earlier attempt at the epoch go when it is trained again."""
        before = self._records.get(epoch, EpochRecord(rate)).errors
        kept = {} if any(key.startswith("train_") for key in errors) else before
        self._records[epoch] = EpochRecord(rate, {**kept, **errors})
        write_learning_rates(self._rates_file, self._records)
        self._curves.scalars({"learning_rate": rate, **errors}, epoch)

    def _remove_old(self) -> None:
        if self._cleanup is None:
            return
        scores = {epoch: record.errors for epoch, record in self._records.items()}
        kept = self._cleanup
        for epoch in superfluous(self._files.epochs(), scores, kept.keep_last_n, kept.keep_best_n, kept.keep):
            self._files.remove(epoch)


def step_seed(random_seed: int, global_step: int) -> int:
    """The seed of a step: a function of the run's seed and the step alone, so that a resumed run draws the same."""
    return int(np.random.SeedSequence([random_seed, global_step]).generate_state(1)[0] >> 1)
