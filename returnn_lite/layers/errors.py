"""The one error that layers raise."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN_SIZE = ("the size of the output is not known", "Give n_out, or a target that says it.")
"""What is wrong, and what to do, where nothing says the features of a layer."""


class LayerError(Exception):
    """A mistake in one layer. `option` names the option that is wrong, if one is, and `item` the place in its list,
    or the path inside of it; `hint` says what to do. `others` are mistakes that were found with it."""

    others: tuple[LayerError, ...] = ()

    def __init__(
        self, message: str, hint: str = "", option: str = "", item: int | tuple[str | int, ...] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.option = option
        self.item = item

    @property
    def all(self) -> tuple[LayerError, ...]:
        """This mistake, and the others."""
        return (self, *self.others)

    def at(self, option: str, item: int | tuple[str | int, ...] | None = None) -> LayerError:
        """The same mistake, in this option if it does not know one yet."""
        return self if self.option or not option else LayerError(self.message, self.hint, option, item)

    @property
    def path(self) -> tuple[str | int, ...]:
        """Where in the options of the layer it is."""
        inside = () if self.item is None else (self.item,) if isinstance(self.item, int) else tuple(self.item)
        return (self.option, *inside) if self.option else ()


def raise_all(errors: Sequence[LayerError]) -> None:
    """Raises the first of some mistakes, with the others; nothing if there are none."""
    found = [one for error in errors for one in error.all]
    if found:
        first, *others = found
        first.others = tuple(others)
        raise first
