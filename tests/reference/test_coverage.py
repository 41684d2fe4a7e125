"""The reference knows every primitive, and every kind of the primitives that have kinds."""

from __future__ import annotations

from returnn_lite.ir import Loop
from returnn_lite.ir.ops.elementwise import KINDS
from tests.ir.primitives import PACKAGE, declared_primitives
from tests.reference.elementwise import FUNCTIONS
from tests.reference.interpreter import FAMILIES, OF_THE_INTERPRETER, RULES


def test_every_primitive_has_one_meaning() -> None:
    assert set(RULES) | OF_THE_INTERPRETER == declared_primitives() | {Loop}
    assert not set(RULES) & OF_THE_INTERPRETER
    assert len(RULES) == sum(len(family.RULES) for family in FAMILIES)


def test_families_are_those_of_the_primitives() -> None:
    for family in FAMILIES:
        name = family.__name__.rpartition(".")[2]
        assert {primitive.__module__ for primitive in family.RULES} == {f"{PACKAGE}.{name}"}


def test_every_elementwise_function_is_known() -> None:
    assert set(FUNCTIONS) == KINDS
