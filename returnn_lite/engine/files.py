"""Files that are either there as a whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

from returnn_lite.engine.errors import EngineError


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` unless the block raises; then it is removed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: str | os.PathLike[str], key: str) -> None:
    """Makes the folder of a file that a config key names, before the work whose result goes there.

    Raises EngineError if nothing can be written in it.
    """
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"{key}: the folder '{folder}' cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise EngineError(f"{key}: nothing can be written in the folder '{folder}'")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file in UTF-8, compressed if its name ends in ``.gz``."""
    with replaced(path) as temporary:
        content = text.encode()
        temporary.write_bytes(gzip.compress(content) if str(path).endswith(".gz") else content)
