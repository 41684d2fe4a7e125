"""Artificial tasks: drawn from a seed or given as arrays, so that they need no files.

The tasks and their rules are RETURNN's. `DummyDataset`'s numbers are the same, and so are lengths and symbols'
distributions of the random tasks, but not their draws: the same seed gives other sequences than in RETURNN.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from returnn_lite.data.dataset import DataError, DataKeySpec, Dataset, Sequence
from returnn_lite.data.ordering import DEFAULT_ORDERING, SeqOrdering
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SYMBOLS_12AX = "123ABCXYZ"


class _DrawnDataset(Dataset):
    """Sequences drawn anew for each epoch, unless the ordering has a `fixed_random_seed`.

    A sequence depends on its index and the seed of the epoch alone; its first draw is its length.
    """

    def __init__(self, num_seqs: int, ordering: SeqOrdering) -> None:
        if num_seqs < 1:
            raise DataError(f"num_seqs must be positive, got {num_seqs}")
        self.ordering = ordering
        self._num_seqs = num_seqs
        self._epoch = 1

    @property
    def num_seqs(self) -> int:
        return self._num_seqs

    def at_epoch(self, epoch: int) -> Dataset:
        other = copy.copy(self)
        other._epoch = epoch
        return other

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.ordering.seed(self._epoch), index])

    @abstractmethod
    def _length(self, random: np.random.Generator) -> int: ...

    def lengths(self, key: str) -> NDArray[np.int64]:
        return np.array([self._length(self._random(index)) for index in range(self.num_seqs)], np.int64)


class Task12AXDataset(_DrawnDataset):
    """The 12AX task of working memory (O'Reilly & Frank, Making Working Memory Work, 2006).

    "data": a stream of the symbols 123ABCXYZ, one-hot, 10 to 99 of them. "classes": R (1) at an X if the last digit of
    1 and 2 was a 1 and the last letter of A and B since the last X or Y was an A; at a Y likewise with 2 and B; else
    L (0).
    """

    def __init__(self, num_seqs: int, ordering: SeqOrdering = DEFAULT_ORDERING) -> None:
        super().__init__(num_seqs, ordering)

    @property
    def keys(self) -> Mapping[str, DataKeySpec]:
        return {
            "data": DataKeySpec(len(SYMBOLS_12AX), labels=tuple(SYMBOLS_12AX)),
            "classes": DataKeySpec(2, sparse=True, labels=("L", "R")),
        }

    def _length(self, random: np.random.Generator) -> int:
        return int(random.integers(10, 100))

    def sequence(self, index: int) -> Sequence:
        random = self._random(index)
        symbols = draw_12ax(random, self._length(random))
        one_hot = np.eye(len(SYMBOLS_12AX), dtype=np.float32)[[SYMBOLS_12AX.index(symbol) for symbol in symbols]]
        return Sequence(self.tag(index), index, {"data": one_hot, "classes": answers_12ax(symbols)})


def draw_12ax(random: np.random.Generator, length: int) -> str:
    """A stream of symbols: single random ones, digits (mostly with a pair after them), and the pairs AX and BY.

    The shares were fitted to what RETURNN's generator gives, so that about 13.5 % of the answers are R.
    """
    stream = random.choice(["1", "2"]) if random.random() < 0.84 else ""
    while len(stream) < length:
        single, digit = (0.04, 0.04) if stream in ("1", "2") else (0.5, 0.26)
        kind = random.random()
        if kind < single:
            stream += SYMBOLS_12AX[random.integers(len(SYMBOLS_12AX))]
        elif kind < single + digit:
            stream += random.choice(["1", "2"])
            if random.random() < 0.92:
                stream += random.choice(["AX", "BY"])
        else:
            stream += random.choice(["AX", "BY"])
    return stream[:length]


def answers_12ax(symbols: str) -> NDArray[np.int32]:
    """The right answer after each symbol: 1 for R, 0 for L."""
    digit = letter = ""
    answers = np.zeros(len(symbols), np.int32)
    for position, symbol in enumerate(symbols):
        if symbol in "12":
            digit = symbol
        elif symbol in "AB":
            letter = symbol
        elif symbol in "XY":
            answers[position] = digit + letter + symbol in ("1AX", "2BY")
            letter = ""
    return answers


class CopyTaskDataset(_DrawnDataset):
    """Random symbols that are to be copied: "data" and "classes" are the same.

    Lengths are uniform in minlen..maxlen (inclusive); each bound grows by its factor times the epoch.
    """

    def __init__(
        self,
        num_seqs: int,
        nsymbols: int,
        minlen: int = 0,
        maxlen: int = 0,
        minlen_epoch_factor: float = 0,
        maxlen_epoch_factor: float = 0,
        ordering: SeqOrdering = DEFAULT_ORDERING,
    ) -> None:
        super().__init__(num_seqs, ordering)
        self._num_symbols = nsymbols
        self._first, self._growth = (minlen, maxlen), (minlen_epoch_factor, maxlen_epoch_factor)
        shortest, longest = self._bounds
        if nsymbols < 1 or shortest < 0 or longest < max(shortest, 1):
            raise DataError(
                "CopyTaskDataset needs nsymbols >= 1 and 0 <= minlen <= maxlen with maxlen >= 1; in epoch 1 they are "
                f"{nsymbols}, {shortest} and {longest}"
            )

    @property
    def _bounds(self) -> tuple[int, int]:
        shortest, longest = (
            first + int(growth * self._epoch) for first, growth in zip(self._first, self._growth, strict=True)
        )
        return shortest, longest

    @property
    def keys(self) -> Mapping[str, DataKeySpec]:
        return {key: DataKeySpec(self._num_symbols, sparse=True) for key in ("data", "classes")}

    def _length(self, random: np.random.Generator) -> int:
        shortest, longest = self._bounds
        return int(random.integers(shortest, longest + 1))

    def sequence(self, index: int) -> Sequence:
        random = self._random(index)
        symbols = random.integers(0, self._num_symbols, size=self._length(random), dtype=np.int32)
        return Sequence(self.tag(index), index, {"data": symbols, "classes": symbols})


class DummyDataset(Dataset):
    """Ramps without any randomness, with RETURNN's numbers.

    Value k of sequence i ("data", [seq_len, input_dim] in row order) is ((i + k) mod input_max_value + input_shift) *
    input_scale, by default within -0.5..0.5; label t ("classes", [seq_len]) is (i + seq_len * input_dim + t) mod
    output_dim.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_seqs: int,
        seq_len: int = 2,
        input_max_value: float = 10.0,
        input_shift: float | None = None,
        input_scale: float | None = None,
        ordering: SeqOrdering = DEFAULT_ORDERING,
    ) -> None:
        if min(input_dim, output_dim, num_seqs, seq_len) < 1 or input_max_value <= 0:
            raise DataError("DummyDataset: all dims, num_seqs, seq_len and input_max_value must be positive")
        self.ordering = ordering
        self._input_dim, self._output_dim, self._num_seqs, self._seq_len = input_dim, output_dim, num_seqs, seq_len
        self._max = input_max_value
        self._shift = -input_max_value / 2 if input_shift is None else input_shift
        self._scale = 1 / input_max_value if input_scale is None else input_scale

    @property
    def num_seqs(self) -> int:
        return self._num_seqs

    @property
    def keys(self) -> Mapping[str, DataKeySpec]:
        return {"data": DataKeySpec(self._input_dim), "classes": DataKeySpec(self._output_dim, sparse=True)}

    def lengths(self, key: str) -> NDArray[np.int64]:
        return np.full(self.num_seqs, self._seq_len, np.int64)

    def sequence(self, index: int) -> Sequence:
        end = index + self._seq_len * self._input_dim
        ramp = (np.arange(index, end) % self._max + self._shift) * self._scale
        labels = np.arange(end, end + self._seq_len) % self._output_dim
        data = ramp.reshape(self._seq_len, self._input_dim).astype(np.float32)
        return Sequence(self.tag(index), index, {"data": data, "classes": labels.astype(np.int32)})


class StaticDataset(Dataset):
    """Arrays given in the config: `data` is a list of dicts from data key to array (time first), one per sequence.

    `output_dim` gives a dim per data key, as a number or RETURNN's (dim, 1 for sparse | 2 for dense); what it leaves
    out is read off the arrays: integers without a second axis are sparse, and an axis between the first and the last
    along which sequences differ is of varying length. `input_dim` is the dim of "data".
    """

    def __init__(
        self,
        data: list[Mapping[str, Any]],
        target_list: list[str] | None = None,
        input_dim: int | None = None,
        output_dim: Mapping[str, Any] | None = None,
        ordering: SeqOrdering = DEFAULT_ORDERING,
    ) -> None:
        if not data:
            raise DataError("StaticDataset: 'data' has no sequences")
        self.ordering = ordering
        self._data = [
            {key: _as_array(array, index, key) for key, array in sequence.items()}
            for index, sequence in enumerate(data)
        ]
        wanted = list(self._data[0]) if target_list is None else ["data", *target_list]
        for index, sequence in enumerate(self._data):
            if missing := set(wanted) - set(sequence):
                raise DataError(f"StaticDataset: sequence {index} has no {sorted(missing)}; it has {sorted(sequence)}")
        declared: dict[str, Any] = {**({"data": input_dim} if input_dim else {}), **(output_dim or {})}
        self._keys = {key: self._spec(key, declared.get(key)) for key in dict.fromkeys(wanted)}

    def _spec(self, key: str, declared: Any) -> DataKeySpec:
        arrays = [sequence[key] for sequence in self._data]
        first = arrays[0]
        dim, kind = declared if isinstance(declared, list | tuple) and len(declared) == 2 else (declared, None)
        if (dim is not None and not isinstance(dim, int)) or kind not in (None, 1, 2):
            raise DataError(
                f"StaticDataset: output_dim of '{key}' is a number, or a number with 1 (sparse) or 2 (dense); "
                f"got {declared!r}"
            )
        integers = np.issubdtype(first.dtype, np.integer)
        if integers and (kind == 1 or (kind is None and first.ndim <= 1)):
            classes = max((int(array.max(initial=-1)) for array in arrays), default=-1) + 1
            return DataKeySpec(dim or classes, sparse=True, shape=(None,) * min(first.ndim, 1))
        shape = _shape_of_all(arrays)
        dtype = "float32" if np.issubdtype(first.dtype, np.floating) else str(first.dtype)
        return DataKeySpec(dim or (first.shape[-1] if first.ndim > 1 else 1), dtype=dtype, shape=shape)

    @property
    def keys(self) -> Mapping[str, DataKeySpec]:
        return self._keys

    @property
    def num_seqs(self) -> int:
        return len(self._data)

    def lengths(self, key: str) -> NDArray[np.int64]:
        has_time = self._keys[key].has_time
        return np.array([len(sequence[key]) if has_time else 1 for sequence in self._data], np.int64)

    def sequence(self, index: int) -> Sequence:
        return Sequence(self.tag(index), index, {key: self._data[index][key] for key in self._keys})


def _as_array(value: Any, index: int, key: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"StaticDataset: sequence {index}, data key '{key}': rows of different lengths") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"StaticDataset: sequence {index}, data key '{key}': expected numbers, got {value!r}")
    return array


def _shape_of_all(arrays: list[NDArray[Any]]) -> tuple[int | None, ...]:
    """The axes of arrays: None for the first, and for those before the last whose sizes differ."""
    if arrays[0].ndim < 2:
        return (None,) * arrays[0].ndim
    between = [set(sizes) for sizes in zip(*(array.shape[1:-1] for array in arrays), strict=False)]
    return (None, *(sizes.pop() if len(sizes) == 1 else None for sizes in between), arrays[0].shape[-1])
