"""Functions of a Python config, which may do anything, also fail."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from returnn_lite.ir.values import Origin


class FunctionError(ValueError):
    """A function of the config failed, or gave what it may not. The message names the layer."""


def called(function: Callable[..., object], name: str, origin: Origin, *args: object, **kwargs: object) -> object:
    """What the function returns. Raises FunctionError if it fails, with the line at which it does."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{frame.filename}:{frame.lineno}"
        raise FunctionError(f"{origin}: {name} failed at {at}: {type(error).__name__}: {error}") from error
