"""What a dim stands for."""

from __future__ import annotations

import enum
from collections.abc import Iterable


class DimKind(enum.Enum):
    """What a dim stands for. `BEAM` is the dim of the hypotheses in search."""

    BATCH = "batch"
    BEAM = "beam"
    SPATIAL = "spatial"
    FEATURE = "feature"


def joint_kind(kinds: Iterable[DimKind], is_static: bool) -> DimKind:
    """What dims put together are: a batch if one is, features if all sizes are static and one is a feature."""
    found = set(kinds)
    if DimKind.BATCH in found:
        return DimKind.BATCH
    if len(found) == 1:
        return found.pop()
    return DimKind.FEATURE if is_static and DimKind.FEATURE in found else DimKind.SPATIAL
