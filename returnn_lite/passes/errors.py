"""What passes raise for a network that has no meaning."""

from __future__ import annotations

from collections.abc import Iterable


class PassError(Exception):
    """A network that has no meaning in a loop: `layers` are the paths of those that form the cycle, first the one that
    can't be in it. Or one that can't be computed, for the layer given."""

    def __init__(self, message: str, layers: Iterable[str]) -> None:
        super().__init__(message)
        self.layers = tuple(layers)
