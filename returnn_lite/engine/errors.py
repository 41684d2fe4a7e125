"""The one error of a run."""

from __future__ import annotations


class EngineError(Exception):
    """A run that cannot go on. The message says why, and what to do."""
