"""The order in which an epoch visits the sequences of a corpus (RETURNN's ``seq_ordering`` and its companions).

Orders are functions of the epoch: the same epoch has the same order whenever it is asked for. The random ones draw
from NumPy's ``RandomState`` seeded with the number of the full epoch, so they are the orders that RETURNN uses.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Lengths = Callable[[], NDArray[np.int64]]
    Indices = NDArray[np.int64]


_ARGUMENT_OPTIONAL = {"random", "laplace", "sort_bin_shuffle", "sort_bin_shuffle_x2", "random_sample"}
_NO_ARGUMENT = {"default", "reverse", "sorted", "sorted_reverse"}
_ARGUMENT_NEEDED = {"default_every_n"}
ORDERS = tuple(sorted(_ARGUMENT_OPTIONAL | _NO_ARGUMENT | _ARGUMENT_NEEDED))


class OrderingError(ValueError):
    """A sequence order, or a combination of order options, that does not exist."""


@dataclass(frozen=True)
class SeqOrdering:
    """The options of a dataset that decide which sequences an epoch visits, and in which order.

    `seq_ordering` is the name of an order with its argument (see the module's functions), or a function
    ``(epoch, num_seqs, get_seq_len) -> indices``, which only a Python config can give. `partition_epoch` n makes an
    epoch the n-th part of the full one, `repeat_epoch` n visits all n times. Only sequences whose tags stand in
    `seq_list_filter_file` (text, a tag a line) are visited. Raises OrderingError if the options do not fit.
    """

    seq_ordering: str | Callable[..., Iterable[int]] = "default"
    partition_epoch: int = 1
    repeat_epoch: int = 1
    fixed_random_seed: int | None = None
    random_seed_offset: int = 0
    seq_list_filter_file: str | None = None
    _tags: frozenset[str] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.seq_ordering, str):
            _parse(self.seq_ordering)
        if self.partition_epoch < 1 or self.repeat_epoch < 1:
            raise OrderingError("partition_epoch and repeat_epoch count from 1")
        if self.partition_epoch > 1 and self.repeat_epoch > 1:
            raise OrderingError("partition_epoch and repeat_epoch contradict each other; give one of them")
        if self.seq_list_filter_file is not None:
            try:
                text = Path(self.seq_list_filter_file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise OrderingError(
                    f"seq_list_filter_file '{self.seq_list_filter_file}' cannot be read: {error}"
                ) from error
            object.__setattr__(self, "_tags", frozenset(map(str.strip, text.splitlines())))

    def seed(self, epoch: int) -> int:
        """The seed of an epoch (1-based): the number of the full epoch, unless a fixed seed is given."""
        if self.fixed_random_seed is not None:
            return self.fixed_random_seed
        return (epoch - 1) // self.partition_epoch + 1 + self.random_seed_offset

    def order(self, epoch: int, num_seqs: int, lengths: Lengths, tag: Callable[[int], str]) -> Indices:
        """The indices to visit in an epoch (1-based). `lengths` and `tag` are called only if needed."""
        if callable(self.seq_ordering):
            indices = self._custom(epoch, num_seqs, lengths)
        else:
            name, argument = _parse(self.seq_ordering)
            fixed_for = argument if name in {"random", "random_sample"} and argument else 1
            seed = self.seed(epoch)
            if fixed_for > 1 and self.fixed_random_seed is None:
                full = (epoch - 1) // self.partition_epoch
                seed = full // fixed_for + 1 + self.random_seed_offset
            indices = _order(name, self.seq_ordering.partition(":")[2], num_seqs, lengths, np.random.RandomState(seed))
        if self.partition_epoch > 1:
            indices = np.array_split(indices, self.partition_epoch)[(epoch - 1) % self.partition_epoch]
        if self._tags is not None:
            indices = np.array([i for i in indices if tag(int(i)) in self._tags], np.int64)
        return np.tile(indices, self.repeat_epoch)

    def _custom(self, epoch: int, num_seqs: int, lengths: Lengths) -> Indices:
        assert callable(self.seq_ordering)
        found = functools.cache(lengths)  # of all sequences, only if it asks for one
        chosen = self.seq_ordering(epoch=epoch, num_seqs=num_seqs, get_seq_len=lambda i: int(found()[i]))
        indices = np.array(list(chosen), np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < num_seqs):
            raise OrderingError(f"the config's seq_ordering gave an index outside 0..{num_seqs - 1}")
        return indices


def _parse(text: str) -> tuple[str, int | None]:
    """Splits "name:argument". A bin size is written ".n", so the dot is no decimal point."""
    name, colon, argument = text.partition(":")
    if name not in ORDERS:
        raise OrderingError(f"there is no sequence order '{text}'; there are {', '.join(ORDERS)}")
    if name in _NO_ARGUMENT and colon:
        raise OrderingError(f"the order '{name}' takes no argument, got '{text}'")
    if not argument and (colon or name in _ARGUMENT_NEEDED):
        raise OrderingError(f"the order '{name}' needs a number: '{name}:n'")
    digits = argument.removeprefix(".") if "bin" in name or name == "laplace" else argument
    if argument and not (digits.isdecimal() and int(digits) > 0):
        raise OrderingError(f"'{argument}' in the order '{text}' is not a positive number")
    return name, int(digits) if argument else None


def _order(name: str, argument: str, num_seqs: int, lengths: Lengths, random: Any) -> Indices:
    corpus = np.arange(num_seqs, dtype=np.int64)
    if name == "default":
        return corpus
    if name == "reverse":
        return corpus[::-1]
    if name == "sorted":
        return np.argsort(lengths(), kind="stable")
    if name == "sorted_reverse":
        return np.argsort(-lengths(), kind="stable")
    if name == "default_every_n":
        return _every_n(corpus, int(argument))
    if name == "random_sample":
        return np.asarray(random.randint(0, num_seqs, size=num_seqs), np.int64)
    random.shuffle(corpus)
    if name == "random":
        return corpus
    if name == "laplace":
        return _laplace(corpus, argument, lengths())
    return _sort_bin_shuffle(corpus, argument, lengths(), random, within=name.endswith("_x2"))


def _every_n(corpus: Indices, n: int) -> Indices:
    """Takes every (num_seqs // n)-th sequence n times over; what does not fill a round is left out."""
    rounds = len(corpus) // n
    return corpus[: rounds * n].reshape(n, rounds).T.ravel()


def _bins(order: Indices, argument: str) -> list[Indices]:
    """Cuts into bins: "n" says how many, ".n" how many sequences each shall hold; by default two."""
    if argument.startswith("."):
        count = max(2, len(order) // int(argument[1:]))
    else:
        count = int(argument or 2)
    cuts = [k * len(order) // count for k in range(count + 1)]
    return [order[start:end] for start, end in itertools.pairwise(cuts)]


def _laplace(shuffled: Indices, argument: str, lengths: Indices) -> Indices:
    """Bins of a random order, each sorted by length: the even ones ascending, the odd ones descending."""
    parts = []
    for number, part in enumerate(_bins(shuffled, argument)):
        size = lengths[part] if number % 2 == 0 else -lengths[part]
        parts.append(part[np.argsort(size, kind="stable")])
    return np.concatenate(parts)


def _sort_bin_shuffle(shuffled: Indices, argument: str, lengths: Indices, random: Any, *, within: bool) -> Indices:
    """Sorts by length, cuts into bins and shuffles the bins; with `within`, the sequences of each bin too."""
    parts = _bins(shuffled[np.argsort(lengths[shuffled], kind="stable")], argument)
    order = np.arange(len(parts))
    random.shuffle(order)
    shuffled_parts = [parts[i] for i in order]
    if within:
        for part in shuffled_parts:
            random.shuffle(part)
    return np.concatenate(shuffled_parts)


DEFAULT_ORDERING = SeqOrdering()
"""Corpus order, all sequences in every epoch."""
