"""The one error that layers raise."""

from __future__ import annotations


class LayerError(Exception):
    """A mistake in one layer. `option` names the option that is wrong, if one is; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "", option: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.option = option
