"""Task forward: a layer's output for every sequence, into an HDF5 file in RETURNN's format."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from returnn_lite.data import Batch, BatchOptions, HdfKey, HdfWriter, make_dataset
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.feeding import Feed, check_dataset, computing, feeds, planned, signature
from returnn_lite.engine.files import require_writable
from returnn_lite.engine.models import load_for_inference
from returnn_lite.engine.options import BatchingOptions, ForwardOptions, ModelOptions, dataset_options, engine_options
from returnn_lite.engine.progress import progress
from returnn_lite.engine.runnable import Classes, Compile, Runnable, Tensors
from returnn_lite.engine.search import chosen_data
from returnn_lite.engine.session import session

_log = logging.getLogger(__name__)


def run_forward(config: Mapping[str, Any], compile_mode: Compile) -> str:
    """Writes the outputs of `forward_output_layer` for `forward_data` (default `eval`, then `dev`); the file's path.

    Raises EngineError if the file exists, unless `forward_override_hdf_output`.
    """
    options = engine_options(ForwardOptions, config)
    model = engine_options(ModelOptions, config)
    batching = engine_options(BatchingOptions, config).for_all()
    if options.forward_batch_size is not None:
        batching = BatchOptions(options.forward_batch_size, batching.max_seqs)
    name, described = chosen_data(config, options.forward_data, ("eval", "dev"), "forward_data")
    dataset = make_dataset(dataset_options(config, described), name)
    layer = options.forward_output_layer
    with session(config, model, "forward"):
        runnable = compile_mode("forward", [layer])
        check_dataset(dataset, runnable, name)
        epoch = load_for_inference(model, runnable)
        path = options.output_file or f"{model.model}.{epoch:03d}.{layer.replace('/', '_')}.hdf"
        if Path(path).exists() and not options.forward_override_hdf_output:
            raise EngineError(f"output_file '{path}' exists already; set forward_override_hdf_output to replace it")
        require_writable(path, "output_file")
        current, pieces = planned(dataset, 1, batching, name)
        step = _step(runnable, layer)

        def computed(batch: Batch, feed: Feed) -> Iterator[tuple[str, NDArray[Any]]]:
            with computing(runnable, batch, name):
                yield from zip(batch.tags, unpadded(*step(*feed)), strict=True)

        outputs = itertools.chain.from_iterable(
            computed(batch, feed) for batch, feed in feeds(runnable, current, pieces, name)
        )
        first = next(outputs)
        key = hdf_key(first[1], runnable.classes(layer))
        with HdfWriter(path, key, override=True) as writer, progress("forward", current.num_seqs) as advance:
            for tag, frames in itertools.chain([first], outputs):
                writer.insert(tag, frames)
                advance(tag)
        _log.info("wrote the outputs of '%s' for %d sequences to '%s'", layer, current.num_seqs, path)
    return path


def _step(runnable: Runnable, layer: str) -> Any:
    def step(data: Tensors, seq_lens: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        found = runnable.run_forward(data, seq_lens)[layer]
        return found.array, tf.constant([], tf.int32) if found.lengths is None else found.lengths

    return tf.function(step, input_signature=signature(runnable), autograph=False)


def unpadded(array: tf.Tensor, lengths: tf.Tensor) -> list[NDArray[Any]]:
    """The output of each sequence with time first; one frame for a layer without time."""
    rows = np.asarray(array)
    if np.size(lengths) == 0:
        return [row[np.newaxis] for row in rows]
    return [row[:length] for row, length in zip(rows, np.asarray(lengths), strict=True)]


def hdf_key(frames: NDArray[Any], classes: Classes | None) -> HdfKey:
    """What the file is told, from the frames of the first sequence and what its labels mean."""
    if classes is not None and frames.ndim == 1:
        return HdfKey(classes.number, 1, "int32", tuple(classes.names))
    return HdfKey(frames.shape[-1] if frames.ndim > 1 else 1, frames.ndim, str(frames.dtype))
