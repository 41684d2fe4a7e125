"""The cases, one module a family. A module's CASES are collected here and nowhere else."""

from ..case import Case
from . import (
    affine,
    attention,
    axes,
    beams,
    convolutions,
    distances,
    golden,
    indexing,
    losses,
    masked,
    planes,
    pointwise,
    published,
    recurrent,
    reductions,
    references,
    search,
    sequences,
    states,
)

FAMILIES = (
    affine,
    pointwise,
    reductions,
    axes,
    convolutions,
    sequences,
    distances,
    indexing,
    recurrent,
    states,
    planes,
    attention,
    masked,
    losses,
    search,
    beams,
    references,
    golden,
    published,
)


def all_cases() -> list[Case]:
    """Every case; names are unique."""
    cases = [case for family in FAMILIES for case in family.CASES]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return cases
