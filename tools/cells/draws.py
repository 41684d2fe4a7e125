"""Recorded dropout masks in place of the random numbers of our networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import tensorflow as tf

from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.dims import DimKind
from returnn_lite.ir.ops.sources import RandomDraw
from returnn_lite.tf import lowering
from returnn_lite.tf.context import Context
from returnn_lite.tf.layout import Tensor, working_order
from tools.cells.case import Array


@contextmanager
def given_masks(masks: Mapping[str, Array]) -> Iterator[None]:
    """Graphs that are lowered meanwhile keep what the masks keep, by the name of the draw after the layer's.

    A mask has the axes [B, T, ...] for one at each step, [B, ...] for one for all steps of a sequence, or [1, ...] for
    one for all sequences, too; it is 0 where something is dropped. Raises ConfigError for a draw without a mask, and
    for a mask that drops something and that nothing asked for.
    """
    asked: set[str] = set()

    def given(c: Context, op: RandomDraw) -> Tensor:
        name = op.seed.partition(":")[2]
        if name not in masks:
            raise _error(f"no mask is given for the draw '{name}'; there are {', '.join(masks) or 'none'}")
        asked.add(name)
        return _drawn(c, op, masks[name])

    with patch.object(lowering, "LOWERINGS", {**lowering.LOWERINGS, RandomDraw: given}):
        yield
    unused = [name for name, mask in masks.items() if name not in asked and not mask.all()]
    if unused:
        raise _error(f"nothing is drawn for the masks {', '.join(unused)}")


def _drawn(c: Context, op: RandomDraw, mask: Array) -> Tensor:
    """Uniform numbers that are as large as can be where the mask keeps something, and 0 elsewhere."""
    batch = tuple(dim for dim in op.dims if dim.kind is DimKind.BATCH)
    steps = op.steps or tuple(dim for dim in op.dims if dim.is_dynamic and dim not in batch)
    own = tuple(dim for dim in op.dims if dim not in (*batch, *steps))
    raw = tf.constant(np.where(mask != 0, 1.0, 0.0), c.dtype(op.dtype))
    if mask.ndim == len(own) + 1:
        dims = (*batch, *own)
    elif steps:
        dims = (*batch, *steps, *own)
    elif op.fresh and c.step is not None:
        raw, dims = tf.gather(raw, c.step, axis=1), (*batch, *own)
    else:
        raise _error(f"the draw '{op.seed}' is the same at all steps, but its mask is not")
    if mask.shape[0] != 1 and not batch:
        raise _error(f"the draw '{op.seed}' is the same for all sequences, but its mask is not")
    if mask.shape[0] == 1:
        raw, dims = raw[0], dims[len(batch) :]
    raw = raw[tuple(slice(0, c.size(dim)) for dim in dims)]
    return Tensor(raw, dims).laid_out(working_order(dims))


def _error(message: str) -> ConfigError:
    return ConfigError([Diagnostic(None, (), message, "Mend the layout.")])
