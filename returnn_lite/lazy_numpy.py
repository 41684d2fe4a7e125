"""NumPy, imported when something of it is first used: `rnn.py check` reads the options of datasets and makes no array.

from returnn_lite.lazy_numpy import np
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    class _NumPy:
        """Has the attributes of the package."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module("numpy"), name)
            setattr(self, name, found)
            return found

    np = _NumPy()

__all__ = ["np"]
