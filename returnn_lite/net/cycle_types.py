"""Types in a cycle that says nothing about itself: some are assumed in turn, until one comes out as it was put in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from returnn_lite.dims import DimKind, MarkedType, Unknown
from returnn_lite.net.expectation import Expectation


def expected_in_cycle(
    name: str, before: Mapping[str, Expectation], assuming: Callable[[MarkedType], Mapping[str, Expectation]]
) -> Mapping[str, Expectation]:
    """What the layers of a cycle are expected to make, by the type of one.

    Of the types that come out as they were put in as those of its `prev:`, it is the one under which most layers can be
    built. What was known `before`, if that is features of unknown size, the first one, or if there is none.

    `assuming` tries the layers with a type for `prev:` of the one.
    """
    best, fewest = before, len(before) + 1
    feature = Unknown(f"prev:{name}:feature", DimKind.FEATURE)
    first = MarkedType((feature,), feature=feature)
    for type_ in (first, MarkedType(()), MarkedType((), "int32"), MarkedType((), "bool")):
        found = _with_dims_on_the_way(name, type_, assuming)
        failures = sum(not expected.tried for expected in found.values())
        outputs = found[name].outputs
        agrees = outputs is not None and found[name].tried and _fits(type_, outputs.value.type)
        if agrees and failures < fewest:
            best, fewest = (before if type_ is first else found), failures
        if fewest == 0:
            break
    return best


def _with_dims_on_the_way(
    name: str, type_: MarkedType, assuming: Callable[[MarkedType], Mapping[str, Expectation]]
) -> Mapping[str, Expectation]:
    """What the layers make under a type; dims that it gets on the way are assumed as well."""
    while True:
        found = assuming(type_)
        outputs = found[name].outputs
        made = None if outputs is None else outputs.value.type
        if made is None or not set(made.dims) > set(type_.dims) or not _fits(type_, made):
            return found
        type_ = made


def _fits(assumed: MarkedType, found: MarkedType) -> bool:
    """Whether what `prev:` of a layer was taken to be agrees with what the layer then makes."""
    same_dtype = (assumed.is_float and found.is_float) or assumed.dtype == found.dtype
    return same_dtype and found.sparse is None and (assumed.feature is None) is (found.feature is None)
