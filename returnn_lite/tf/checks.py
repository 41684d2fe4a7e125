"""Checks of data while a graph runs: what they say reaches the user, with the sequences that it is about.

TensorFlow passes on the text of an error alone. So an assertion prints the number of its check and the values; from
these `Checks.told` makes the message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from returnn_lite.dims import Dim, DimKind
from returnn_lite.ir import Origin
from returnn_lite.ir.batches import BatchError

_MARK = "check of returnn_lite"
_FAILED = re.compile(rf"\[{_MARK} (\d+)\]((?: \[[-\d\[\] ]*\])*)")
_STOPPED = re.compile(r"^(.*)\n\t \[\[\{\{node ([^}]*)\}\}", re.MULTILINE)


@dataclass(frozen=True)
class Check:
    """Something that must hold. `fact` is a format of one entry's values, which are over `dims`."""

    origin: Origin
    what: str
    fact: str
    advice: str
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Checks:
    """The checks of all graphs of an executable, and the layers that TensorFlow's operations were made for."""

    made: list[Check] = field(default_factory=list)
    scopes: dict[str, Origin] = field(default_factory=dict)

    def require(self, check: Check, holds: tf.Tensor, values: Sequence[tf.Tensor] = ()) -> tf.Operation:
        """An operation that fails unless all of `holds` is true. `holds` and the integer `values` have the axes of the
        check's dims, or can be repeated along them."""
        if not values:
            holds, check = _by_sequence(holds, check)
        self.made.append(check)
        mark = f"{_MARK} {len(self.made) - 1}"
        shown = [mark, tf.cast(holds, tf.int32), *(tf.broadcast_to(value, tf.shape(holds)) for value in values)]
        return tf.raw_ops.Assert(condition=tf.reduce_all(holds), data=shown, summarize=-1)

    def told(self, error: tf.errors.OpError) -> BatchError:
        """What an error of TensorFlow says of a batch."""
        failed = _FAILED.search(error.message)
        if failed is None:
            return self._of_an_operation(error)
        check = self.made[int(failed[1])]
        holds, *values = map(_array, re.split(r"(?<=\]) (?=\[)", failed[2].strip()))
        return _told(check, holds == 1, values)

    def _of_an_operation(self, error: tf.errors.OpError) -> BatchError:
        """Of what an operation of TensorFlow itself refuses."""
        if isinstance(error, tf.errors.ResourceExhaustedError):
            return BatchError("the batch does not fit into memory", advice="Take a smaller batch_size or max_seqs.")
        stopped = _STOPPED.search(error.message)
        if stopped is None:
            return BatchError(f"this batch can't be computed: {error.message}")
        path = _numberless(stopped[2])
        scopes = [scope for scope in self.scopes if f"/{_numberless(scope)}/" in f"/{path}/"]
        where = str(self.scopes[max(scopes, key=len)]) if scopes else ""
        return BatchError(f"this can't be computed for the batch: {stopped[1].strip()}", where=where)


def _by_sequence(holds: tf.Tensor, check: Check) -> tuple[tf.Tensor, Check]:
    """Whether all of each sequence holds: a message needs no more, and may be long if it has more."""
    others = [axis for axis, dim in enumerate(check.dims) if dim.kind is not DimKind.BATCH]
    batch = tuple(dim for dim in check.dims if dim.kind is DimKind.BATCH)
    return tf.reduce_all(holds, others), replace(check, dims=batch)


def _numberless(name: str) -> str:
    """The name of an operation without the numbers that TensorFlow adds to make it unique."""
    return "/".join(re.sub(r"_\d+$", "", part) for part in name.split("/"))


def _array(text: str) -> NDArray[np.int64]:
    """An array as TensorFlow writes it: `[1 2]`, or `[[1 2][3 4]]`; `[1]` is a number, too."""
    return np.array(json.loads(text.replace("][", "],[").replace(" ", ",")))


def _told(check: Check, holds: NDArray[np.bool_], values: Sequence[NDArray[np.int64]]) -> BatchError:
    """What is to be said of each sequence, or of the batch if the check is about all sequences at once."""
    where = str(check.origin)
    batch = next((axis for axis, dim in enumerate(check.dims) if dim.kind is DimKind.BATCH), None)
    facts: dict[int, str] = {}
    for place in map(tuple, np.argwhere(~holds)):
        fact = check.fact.format(*(value[place] for value in values))
        if batch is None:
            return BatchError(f"{check.what}: it {fact}", None, where, check.advice)
        facts.setdefault(int(place[batch]), fact)
    return BatchError(check.what, dict(sorted(facts.items())), where, check.advice)
