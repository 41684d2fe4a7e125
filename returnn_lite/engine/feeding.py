"""Batches as the tensors that an executable wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import tensorflow as tf

from returnn_lite.data import Batch, BatchOptions, DataError, DataKeySpec, Dataset
from returnn_lite.data.batching import load, plan
from returnn_lite.data.chunking import Piece
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.executable import Executable

Feed = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]


def check_dataset(dataset: Dataset, executable: Executable, name: str) -> None:
    """Raises EngineError if the dataset lacks a data key that the network reads, or has it with another dim."""
    for key, spec in executable.data_signature.items():
        if key not in dataset.keys:
            raise EngineError(f"{name}: the network reads the data key '{key}', the dataset has {sorted(dataset.keys)}")
        _check_key(dataset.keys[key], spec, f"{name}: data key '{key}'")
        classes = executable.num_classes.get(key)
        found = dataset.keys[key]
        if classes is not None and (not found.sparse or found.dim > classes):
            kind = f"{found.dim} classes" if found.sparse else "no classes (it is dense)"
            raise EngineError(f"{name}: data key '{key}': the network takes {classes} classes, the dataset has {kind}")


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
    executable: Executable, dataset: Dataset, pieces: list[tuple[Piece, ...]], name: str
) -> Iterator[tuple[Batch, Feed]]:
    """Each batch, and what of it the executable reads. Raises DataError about `name`."""
    executable.begin_epoch()
    batches = load(dataset, pieces)
    while True:
        with about(name):
            batch = next(batches, None)
            found = None if batch is None else (batch, feed(executable, batch))
        if found is None:
            return
        yield found


def feed(executable: Executable, batch: Batch) -> Feed:
    """The arrays and lengths that an executable reads, in its types.

    Raises DataError if lengths differ that must be equal.
    """
    _check_lengths(executable, batch)
    data = {key: tf.constant(batch.data[key], spec.dtype) for key, spec in executable.data_signature.items()}
    lengths = {key: tf.constant(batch.seq_lens[key], spec.dtype) for key, spec in executable.lengths_signature.items()}
    return data, lengths


def _check_lengths(executable: Executable, batch: Batch) -> None:
    for first, *others in executable.equal_lengths:
        for other in others:
            for tag, one, another in zip(batch.tags, batch.seq_lens[first], batch.seq_lens[other], strict=True):
                if one != another:
                    raise DataError(
                        f"sequence '{tag}' has {one} frames of '{first}' and {another} of '{other}', but the network "
                        "takes both over the same dim"
                    )


def signature(executable: Executable) -> tuple[Mapping[str, tf.TensorSpec], Mapping[str, tf.TensorSpec]]:
    """The `input_signature` of a feed."""
    return dict(executable.data_signature), dict(executable.lengths_signature)
