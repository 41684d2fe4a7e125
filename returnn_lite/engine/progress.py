"""How far an epoch is: a bar on a terminal, a line now and then everywhere else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0
Advance = Callable[[str], None]
"""Called after each batch with what to show beside the bar."""


@contextmanager
def progress(title: str, total: int, console: Console | None = None) -> Iterator[Advance]:
    """Shows the progress of `total` batches; gives the function to call after each.

    The bar disappears at the end. Without a terminal, lines go to the log, at most one each half minute.
    """
    console = console or Console()
    if not console.is_terminal:
        yield _lines(title, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, text="")

        def advance(text: str) -> None:
            bar.update(task, advance=1, text=text)

        yield advance


def _lines(title: str, total: int) -> Advance:
    started = last = time.monotonic()
    done = 0

    def advance(text: str) -> None:
        nonlocal last, done
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            _log.info("%s, step %d of %d, %s, elapsed %s", title, done, total, text, elapsed(started))

    return advance


def elapsed(started: float) -> str:
    """The time since `started` (of `time.monotonic`) as h:mm:ss."""
    return str(timedelta(seconds=round(time.monotonic() - started)))
