"""Scalars for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

STEPS_BETWEEN_POINTS = 20


class Events:
    """A file of events: `scalars` adds one point to each curve."""

    def __init__(self, writer: tf.summary.SummaryWriter) -> None:
        self._writer = writer

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point for each name; numbers that are not finite are left out, for curves cannot show them."""
        with self._writer.as_default():
            for name, value in values.items():
                if math.isfinite(value):
                    tf.summary.scalar(name, value, step=step)


@contextmanager
def events(folder: Path) -> Iterator[Events]:
    """Opens a new file of events in a folder; it is complete when the block ends."""
    writer = tf.summary.create_file_writer(str(folder))
    try:
        yield Events(writer)
    finally:
        writer.close()
