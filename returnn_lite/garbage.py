"""When Python looks for garbage: cycles of objects that nobody reads.

A collection looks at what was made since the one before, and now and then at all there is. Where nearly all that is
made is kept, as in a compilation, that is time for nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100_000
"""So many new objects take longer to look through than to ask whether a process has frozen any."""


@contextmanager
def garbage_stays() -> Iterator[None]:
    """Python does not look for garbage meanwhile, and after it not at once through all that was made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_count()[0] > MANY:
                all_is_old()
            gc.enable()


def all_is_old() -> None:
    """What there is counts as old from now on, without a look at it: only the rare collections of all look there.

    Nothing is done in a process that has frozen objects of its own, as there is no way to tell them from ours.
    """
    if not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
