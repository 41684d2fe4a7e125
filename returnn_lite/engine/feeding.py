"""Batches as the tensors that a network takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import tensorflow as tf

from returnn_lite.data import Batch, BatchOptions, DataError, DataKeySpec, Dataset
from returnn_lite.data.batching import load, plan
from returnn_lite.data.chunking import Piece
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.runnable import Runnable
from returnn_lite.ir.batches import BatchError, checked_batch

Feed = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]


def check_dataset(dataset: Dataset, runnable: Runnable, name: str) -> None:
    """Raises EngineError if the dataset lacks a data key that the network reads, or has it with another dim."""
    sparse = {value.name: value.type.sparse for value in runnable.inputs}
    for key, spec in runnable.data_signature.items():
        if key not in dataset.keys:
            raise EngineError(f"{name}: the network reads the data key '{key}', the dataset has {sorted(dataset.keys)}")
        _check_key(dataset.keys[key], spec, f"{name}: data key '{key}'")
        classes, found = sparse[key], dataset.keys[key]
        if classes is not None and classes.size is not None and (not found.sparse or found.dim > classes.size):
            kind = f"{found.dim} classes" if found.sparse else "no classes (it is dense)"
            wanted = f"the network takes {classes.size} classes"
            raise EngineError(f"{name}: data key '{key}': {wanted}, the dataset has {kind}")


def _check_key(found: DataKeySpec, wanted: tf.TensorSpec, where: str) -> None:
    axes = [None, *found.axes]
    fits = len(axes) == len(wanted.shape) and all(
        size is None or axis is None or axis == size for axis, size in zip(axes, wanted.shape, strict=True)
    )
    if not fits:
        raise EngineError(
            f"{where}: the dataset has arrays of shape {axes} (batch first), the network takes {list(wanted.shape)}"
        )
    if found.sparse != wanted.dtype.is_integer and not found.sparse:
        raise EngineError(
            f"{where}: the dataset has {found.dtype}, the network takes {wanted.dtype.name} (class labels)"
        )


@contextmanager
def about(name: str) -> Iterator[None]:
    """Puts the config's name of a dataset before what is said of its data."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def planned(dataset: Dataset, epoch: int, options: BatchOptions, name: str) -> tuple[Dataset, list[tuple[Piece, ...]]]:
    """The dataset in an epoch and all its batches, not loaded yet. Raises DataError about `name`."""
    current = dataset.at_epoch(epoch)
    with about(name):
        return current, list(plan(current, current.epoch_order(epoch), options))


def require_batches(dataset: Dataset, options: BatchOptions, name: str) -> None:
    """Raises DataError about `name` if the options leave no sequence of the dataset: a run shall not find that late."""
    current = dataset.at_epoch(1)
    with about(name):
        next(plan(current, current.epoch_order(1), options))


def feeds(
    runnable: Runnable, dataset: Dataset, pieces: list[tuple[Piece, ...]], name: str
) -> Iterator[tuple[Batch, Feed]]:
    """Each batch, and what of it the network reads. Raises DataError about `name`."""
    runnable.begin_epoch()
    batches = load(dataset, pieces)
    while True:
        with about(name):
            batch = next(batches, None)
            found = None if batch is None else (batch, feed(runnable, batch))
        if found is None:
            return
        yield found


@contextmanager
def computing(runnable: Runnable, batch: Batch, name: str) -> Iterator[None]:
    """Inside, the network computes a batch of the dataset `name`. Raises DataError for what TensorFlow stops at."""
    try:
        yield
    except tf.errors.OpError as error:
        raise DataError(f"{name}: {runnable.told(error).told(batch.tags)}") from error


def feed(runnable: Runnable, batch: Batch) -> Feed:
    """The arrays and lengths that a network reads, in its types. Raises DataError for what it cannot take."""
    try:
        lengths = checked_batch(runnable.inputs, batch.data, batch.seq_lens).lengths
    except BatchError as error:
        raise DataError(error.told(batch.tags)) from error
    data = {key: tf.constant(batch.data[key], spec.dtype) for key, spec in runnable.data_signature.items()}
    return data, {name: tf.constant(lengths[dim], tf.int32) for name, dim in runnable.length_dims.items()}


def signature(runnable: Runnable) -> tuple[Mapping[str, tf.TensorSpec], Mapping[str, tf.TensorSpec]]:
    """The `input_signature` of a feed."""
    return dict(runnable.data_signature), dict(runnable.lengths_signature)
