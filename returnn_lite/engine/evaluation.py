"""Losses and errors of a model on datasets (task eval, and after each epoch of training)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.data import BatchOptions, Dataset, make_dataset
from returnn_lite.engine.feeding import check_dataset, computing, feeds, planned, signature
from returnn_lite.engine.files import require_writable, write_text
from returnn_lite.engine.models import load_for_inference
from returnn_lite.engine.options import BatchingOptions, EvalOptions, ModelOptions, dataset_options, engine_options
from returnn_lite.engine.progress import progress
from returnn_lite.engine.runnable import Compile, Runnable, Tensors
from returnn_lite.engine.session import session
from returnn_lite.engine.statistics import Totals, as_numbers

_log = logging.getLogger(__name__)


class Evaluator:
    """Computes losses and errors. One trace, whatever the lengths."""

    def __init__(self, runnable: Runnable) -> None:
        self.runnable = runnable

        def step(data: Tensors, seq_lens: Tensors) -> dict[str, dict[str, tf.Tensor]]:
            return as_numbers(runnable.run_eval(data, seq_lens))

        self._step = tf.function(step, input_signature=signature(runnable), autograph=False)

    def trace_count(self) -> int:
        """How often TensorFlow traced the computation."""
        return int(self._step.experimental_get_tracing_count())

    def evaluate(self, dataset: Dataset, options: BatchOptions, name: str, epoch: int = 1) -> Totals:
        """The sums over all sequences of a dataset that `options` do not leave out."""
        check_dataset(dataset, self.runnable, name)
        current, pieces = planned(dataset, epoch, options, name)
        totals = Totals()
        with progress(f"{name} epoch {epoch}", len(pieces)) as advance:
            for batch, (data, seq_lens) in feeds(self.runnable, current, pieces, name):
                with computing(self.runnable, batch, name):
                    totals.add(self._step(data, seq_lens))
                advance(str(totals))
        return totals


def run_eval(config: Mapping[str, Any], compile_mode: Compile) -> dict[str, Totals]:
    """Task eval: the totals of each dataset that the config names (`dev`, `eval`, `eval_datasets`).

    Logs a line a dataset; `eval_output_file` gets a Python dict from dataset to its scores and errors.
    """
    options = engine_options(EvalOptions, config)
    batching = engine_options(BatchingOptions, config).for_eval()
    model = engine_options(ModelOptions, config)
    described = {"dev": options.dev, "eval": options.eval, **options.eval_datasets}
    datasets = {
        name: make_dataset(dataset_options(config, data), name) for name, data in described.items() if data is not None
    }
    if not datasets:
        raise ConfigError([Diagnostic(None, (), "there is nothing to evaluate", "Set dev, eval or eval_datasets.")])
    if options.eval_output_file is not None:
        require_writable(options.eval_output_file, "eval_output_file")
    with session(config, model, "eval"):
        runnable = compile_mode("eval")
        epoch = load_for_inference(model, runnable)
        evaluator = Evaluator(runnable)
        found = {}
        for name, dataset in datasets.items():
            found[name] = evaluator.evaluate(dataset, batching, name, max(epoch, 1))
            _log.info("%s: %s", name, found[name])
        if options.eval_output_file is not None:
            write_text(options.eval_output_file, f"{ {name: totals.errors(name) for name, totals in found.items()} }\n")
    return found
