"""Why a layer is not built, where that is no mistake of its own."""

from __future__ import annotations


class NotChecked(Exception):
    """A layer that can't be built because one that it needs failed: one mistake is one message."""


class Unavailable(Exception):
    """A layer that needs data which this mode does not have: targets, in search and forward."""
