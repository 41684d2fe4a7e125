"""What a user's cell raises, as one sentence."""

from __future__ import annotations

import contextlib
import inspect
import re
import traceback
from collections.abc import Iterator

import keras

from returnn_lite.ir.foreign_cells import CellError

BOLD = re.compile("\x1b\\[1m(.*?)\x1b\\[0m", re.DOTALL)
"""The message that was raised, inside of what Keras makes of it."""
INFERRED = "Error encountered:"


@contextlib.contextmanager
def of_cell(cell: keras.Layer, does: str = "") -> Iterator[None]:
    """Raises CellError for whatever fails inside: what the cell did, its line, and the message without Keras' frame
    around it."""
    try:
        yield
    except CellError:
        raise
    except Exception as error:
        code = getattr(inspect.unwrap(type(cell).call), "__code__", None)
        message = failure(error, "" if code is None else code.co_filename)
        raise CellError(f"{type(cell).__name__}{does} failed{message}") from error


def failure(error: Exception, file: str) -> str:
    """Where in a file, the last time, and what."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    at = f" at {file}:{frames[-1].lineno}" if frames else ""
    text = str(error)
    raised = BOLD.search(text)
    text = (raised.group(1) if raised else text).rpartition(INFERRED)[2].strip()
    return f"{at}: {type(error).__name__}: {' '.join(text.split())}"
