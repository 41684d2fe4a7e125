"""Arrays by name in NumPy's ``.npz`` files. What is read is numbers, never code."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.files import replaced

NUMBERS = "biufc"
"""The kinds of dtypes that are numbers or flags."""
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    OSError,
    KeyError,
    MemoryError,
    NotImplementedError,  # zipfile, of a compression that it lacks
)
_WRITTEN = (1980, 1, 1, 0, 0, 0)
"""The time of every member, so that the same arrays are the same bytes."""


def read_archive(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name. Raises EngineError if it is not there, not whole, or has what is no number."""
    try:
        with open(path, "rb") as file:  # NumPy does not close what is no archive
            opened = np.load(file, allow_pickle=False)
            if not isinstance(opened, np.lib.npyio.NpzFile):
                raise EngineError(f"'{path}' has one array without a name; an .npz file is needed (numpy.savez)")
            arrays = {name: opened[name] for name in opened.files}
    except _READ_ERRORS as error:
        raise EngineError(f"'{path}' is damaged, or no .npz file of arrays of numbers: {_first_line(error)}") from error
    for name, array in arrays.items():
        _require_numbers(path, name, array)
    return arrays


def write_archive(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays under their names: the whole file or none. Raises EngineError."""
    for name, array in arrays.items():
        _require_numbers(path, name, array)
    try:
        with replaced(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy", _WRITTEN), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    except OSError as error:
        raise EngineError(f"'{path}' can't be written: {error.strerror}") from error


def _require_numbers(path: str | os.PathLike[str], name: str, array: Any) -> None:
    """An archive may have any file beside its arrays, whose bytes NumPy gives."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMBERS:
        what = f"is of {array.dtype}" if isinstance(array, np.ndarray) else "is no array"
        raise EngineError(f"'{path}': '{name}' {what}, which .npz files of parameters do not have")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
