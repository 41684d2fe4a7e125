"""RETURNN's HDF5 files of sequences, read and written.

A file holds the frames of all sequences one after the other: ``inputs`` for the key "data", if it has that, and
``targets/data/<key>`` for every other key; ``seqLengths`` [sequences, keys], "data" first, the others in alphabetic
order, or [sequences] where all keys are equally long; and ``seqTags``. One-dimensional integer frames are class labels
if there are several classes. The number of classes or features is the attribute ``inputPattSize``, or the first number
of the attribute ``<key>`` of ``targets/size``; where it is not said, features are counted, and the names of classes.
These stand in ``labels`` and ``targets/labels/<key>``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from returnn_lite.data.dataset import DataError, DataKeySpec, Dataset, Sequence
from returnn_lite.data.ordering import DEFAULT_ORDERING, SeqOrdering
from returnn_lite.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT_KEY = "data"
_SIZES = "sizes"  # the key of the axis sizes of arrays with more than two axes, which are stored flattened


def _h5py() -> Any:
    """The package, imported when a file is opened: checking a config opens none, and it is slow to import."""
    return importlib.import_module("h5py")


class _HdfFile:
    """One open file: its keys, and where in its arrays each sequence begins. Raises DataError if it is not complete."""

    def __init__(self, path: str) -> None:
        self.path = path
        if not Path(path).is_file():
            raise DataError(f"HDF file '{path}' does not exist")
        try:
            self._file = _h5py().File(path, "r")
        except OSError as error:
            raise DataError(f"'{path}' is not a complete HDF5 file ({error})") from error
        lengths = self._lengths()
        self.tags = tuple(_text(tag) for tag in self._array("seqTags"))
        targets = self._targets()
        self._paths = {INPUT_KEY: "inputs"} if "inputs" in self._file or not targets else {}
        self._paths |= {key: f"targets/data/{key}" for key in targets}
        frames = {key: self._array(name).shape[0] for key, name in self._paths.items()}
        self.lengths = self._lengths_of_keys(lengths, frames)
        self._starts = {key: np.cumsum(found) - found for key, found in self.lengths.items()}
        for key, found in self.lengths.items():
            if frames[key] != found.sum():
                raise DataError(
                    f"HDF file '{path}': '{key}' has {frames[key]} frames, its seqLengths sum to {found.sum()}"
                )
        self.keys = {key: self._spec(key) for key in self._paths}

    def _array(self, name: str) -> Any:
        found = self._file.get(name)
        if not isinstance(found, _h5py().Dataset):
            raise DataError(
                f"HDF file '{self.path}' has no array '{name}'; it is not a sequence file in RETURNN's format"
            )
        return found

    def _lengths(self) -> NDArray[np.int64]:
        lengths = self._array("seqLengths")[...]
        if not np.issubdtype(lengths.dtype, np.integer) or lengths.min(initial=0) < 0:
            raise DataError(f"HDF file '{self.path}': seqLengths must be integers of at least 0")
        return np.asarray(lengths, np.int64)

    def _lengths_of_keys(self, lengths: NDArray[np.int64], frames: Mapping[str, int]) -> dict[str, NDArray[np.int64]]:
        """The lengths by key. A file without inputs may have a column for them all the same."""
        if lengths.ndim == 1:
            lengths = np.repeat(lengths[:, np.newaxis], len(frames), axis=1)
        if lengths.ndim != 2 or lengths.shape[0] != len(self.tags) or lengths.shape[1] < len(frames):
            raise DataError(
                f"HDF file '{self.path}': seqLengths has shape {list(lengths.shape)}, expected [{len(self.tags)} tags, "
                f"{len(frames)} keys]"
            )
        by_key = {key: lengths[:, column] for column, key in enumerate(frames)}
        if INPUT_KEY not in frames and lengths.shape[1] > len(frames):
            others = {key: lengths[:, column] for column, key in enumerate(frames, 1)}
            if all(found.sum() == frames[key] for key, found in others.items()):
                return others
        return by_key

    def _targets(self) -> list[str]:
        found = self._file.get("targets/data", {})
        if isinstance(found, _h5py().Dataset):
            raise DataError(f"HDF file '{self.path}': 'targets/data' is an array, expected a group of arrays")
        return sorted(found)

    def _spec(self, key: str) -> DataKeySpec:
        frames = self._array(self._paths[key])
        if key == INPUT_KEY:
            dim, names = self._file.attrs.get("inputPattSize"), "labels"
        else:
            sizes = self._file["targets/size"].attrs if "targets/size" in self._file else {}
            dim, names = (sizes[key][0] if key in sizes else None), f"targets/labels/{key}"
        labels = tuple(_text(label) for label in self._file[names]) if names in self._file else ()
        if dim is None:
            dim = frames.shape[-1] if frames.ndim > 1 else len(labels) or None
        if not isinstance(dim, int | np.integer):
            raise DataError(f"HDF file '{self.path}' does not say the dim of '{key}' as an integer, it says {dim!r}")
        sparse = frames.ndim == 1 and int(dim) > 1 and np.issubdtype(frames.dtype, np.integer)
        return DataKeySpec(
            int(dim),
            sparse=sparse,
            dtype="int32" if sparse else str(frames.dtype),
            shape=(None, *frames.shape[1:]),
            labels=labels if sparse and len(labels) == int(dim) else (),
        )

    def sequence(self, index: int) -> dict[str, NDArray[Any]]:
        data = {}
        for key, path in self._paths.items():
            start, length = self._starts[key][index], self.lengths[key][index]
            try:
                data[key] = self._array(path)[start : start + length]
            except OSError as error:
                raise DataError(f"HDF file '{self.path}' is damaged at sequence '{self.tags[index]}'") from error
        return data


class HDFDataset(Dataset):
    """The sequences of one or several HDF5 files, one file after the other, in the order of the files.

    All files must have the same keys. Raises DataError, naming the file, for one that is missing, not complete or not
    in RETURNN's format.
    """

    def __init__(self, files: str | list[str], ordering: SeqOrdering = DEFAULT_ORDERING) -> None:
        paths = [files] if isinstance(files, str) else files
        if not paths:
            raise DataError("HDFDataset: 'files' is empty")
        self.ordering = ordering
        self._files = [_HdfFile(path) for path in paths]
        for other in self._files[1:]:
            if other.keys != self._files[0].keys:
                raise DataError(
                    f"HDF files '{paths[0]}' and '{other.path}' have different keys: {self._files[0].keys} "
                    f"and {other.keys}"
                )
        self._ends = np.cumsum([len(file.tags) for file in self._files])

    @property
    def keys(self) -> Mapping[str, DataKeySpec]:
        return self._files[0].keys

    @property
    def num_seqs(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[_HdfFile, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._files[number], index - (int(self._ends[number - 1]) if number else 0)

    def tag(self, index: int) -> str:
        file, inside = self._locate(index)
        return file.tags[inside]

    def lengths(self, key: str) -> NDArray[np.int64]:
        return np.concatenate([file.lengths[key] for file in self._files])

    def sequence(self, index: int) -> Sequence:
        file, inside = self._locate(index)
        return Sequence(file.tags[inside], index, file.sequence(inside))


@dataclass(frozen=True)
class HdfKey:
    """What is written for one key: `dim` classes or features, `ndim` axes with time (1 for labels), and `labels`."""

    dim: int
    ndim: int
    dtype: str = "float32"
    labels: tuple[str, ...] = ()


class HdfWriter:
    """Writes sequences to an HDF5 file in RETURNN's format; a context manager.

    Everything goes to a temporary file beside `path`, which gets the name `path` when the `with` block ends without an
    exception: there is never an incomplete file of that name. `extra` says which other keys each sequence has. Arrays
    with more than two axes are stored with all axes but the last flattened, and their sizes as a further key "sizes",
    as RETURNN does. Raises DataError if `path` exists, unless `override`.
    """

    def __init__(
        self, path: str, key: HdfKey, extra: Mapping[str, HdfKey] | None = None, *, override: bool = False
    ) -> None:
        if not override and Path(path).exists():
            raise DataError(f"HDF file '{path}' exists already; remove it or give another name")
        if key.ndim > 2:
            extra = {**(extra or {}), _SIZES: HdfKey(1, 1, "int32")}
        self._path, self._temporary = path, f"{path}.tmp-{os.getpid()}"
        self._keys = {INPUT_KEY: key, **{name: (extra or {})[name] for name in sorted(extra or {})}}
        self._lengths: list[list[int]] = []
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._file = _h5py().File(self._temporary, "w")
        self._arrays = {name: self._create(name, spec) for name, spec in self._keys.items()}
        self._tags = self._file.create_dataset("seqTags", (0,), maxshape=(None,), dtype=_h5py().string_dtype())

    def _create(self, name: str, key: HdfKey) -> Any:
        shape = (key.dim,) if key.ndim > 1 else ()
        path = "inputs" if name == INPUT_KEY else f"targets/data/{name}"
        if name != INPUT_KEY:
            sizes = self._file.require_group("targets/size")
            sizes.attrs[name] = (key.dim, key.ndim)
        labels = [label.encode() for label in key.labels]
        label_path = "labels" if name == INPUT_KEY else f"targets/labels/{name}"
        self._file.create_dataset(label_path, data=np.array(labels, f"S{max([5, *map(len, labels)])}"))
        return self._file.create_dataset(path, (0, *shape), maxshape=(None, *shape), dtype=key.dtype)

    def insert(self, tag: str, data: NDArray[Any], extra: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Appends one sequence: arrays with time first. Raises DataError if an array does not fit its key."""
        arrays = {INPUT_KEY: np.asarray(data), **{name: np.asarray(array) for name, array in (extra or {}).items()}}
        if self._keys[INPUT_KEY].ndim > 2:
            arrays[_SIZES] = np.array(arrays[INPUT_KEY].shape[:-1], np.int32)
        if set(arrays) != set(self._keys):
            raise DataError(f"sequence '{tag}' has the keys {sorted(arrays)}, the file has {sorted(self._keys)}")
        for name, array in arrays.items():
            key = self._keys[name]
            if array.ndim != key.ndim or (key.ndim > 1 and array.shape[-1] != key.dim):
                raise DataError(
                    f"sequence '{tag}', key '{name}': shape {list(array.shape)} for {key.ndim} axes of which the last "
                    f"has size {key.dim}"
                )
        self._lengths.append([_append(self._arrays[name], _flat(arrays[name])) for name in self._keys])
        _append(self._tags, np.array([tag], object))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._file.close()
            Path(self._temporary).unlink()
            return
        lengths = np.array(self._lengths, np.int32).reshape(len(self._lengths), len(self._keys))
        if lengths.shape[1] == 1:  # RETURNN's files have a column for targets even if there are none
            lengths = np.pad(lengths, ((0, 0), (0, 1)))
        self._file.create_dataset("seqLengths", data=lengths)
        key = self._keys[INPUT_KEY]
        self._file.attrs.update(
            numTimesteps=int(lengths[:, 0].sum()),
            inputPattSize=key.dim,
            numDims=1,
            numLabels=key.dim,
            numSeqs=len(self._lengths),
        )
        self._file.close()
        os.replace(self._temporary, self._path)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array


def _append(stored: Any, new: NDArray[Any]) -> int:
    """Appends rows to an HDF5 array; returns their number."""
    count = stored.shape[0]
    stored.resize(count + len(new), axis=0)
    stored[count:] = new
    return len(new)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def write_hdf(path: str, dataset: Dataset, indices: Iterable[int] | None = None) -> None:
    """Writes the sequences of a dataset (all of them, or those of `indices`) to an HDF5 file."""

    def described(spec: DataKeySpec) -> HdfKey:
        return HdfKey(spec.dim, len(spec.axes), spec.dtype, spec.labels)

    keys = dict(dataset.keys)
    if INPUT_KEY not in keys:
        raise DataError(f"an HDF file needs a data key '{INPUT_KEY}'; the dataset has {sorted(keys)}")
    main = described(keys.pop(INPUT_KEY))
    with HdfWriter(path, main, {key: described(spec) for key, spec in keys.items()}) as writer:
        for index in range(dataset.num_seqs) if indices is None else indices:
            sequence = dataset.sequence(int(index))
            others = {key: sequence.data[key] for key in keys}
            writer.insert(sequence.tag, sequence.data[INPUT_KEY], others)
