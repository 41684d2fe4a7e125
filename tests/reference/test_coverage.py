"""The reference knows every primitive, and every kind of the primitives that have kinds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import returnn_lite.ir.ops
from returnn_lite.ir import Loop, Op
from returnn_lite.ir.ops.elementwise import KINDS
from tests.reference.elementwise import FUNCTIONS
from tests.reference.interpreter import FAMILIES, OF_THE_INTERPRETER, RULES

PACKAGE = returnn_lite.ir.ops


def primitives(base: type[Op]) -> Iterator[type[Op]]:
    for primitive in base.__subclasses__():
        yield primitive
        yield from primitives(primitive)


def test_every_primitive_has_one_meaning() -> None:
    modules = {f"{PACKAGE.__name__}.{module.name}" for module in pkgutil.iter_modules(PACKAGE.__path__)}
    for module in modules:
        importlib.import_module(module)
    declared = {primitive for primitive in primitives(Op) if primitive.__module__ in modules} | {Loop}
    assert set(RULES) | OF_THE_INTERPRETER == declared
    assert not set(RULES) & OF_THE_INTERPRETER
    assert len(RULES) == sum(len(family.RULES) for family in FAMILIES)


def test_families_are_those_of_the_primitives() -> None:
    for family in FAMILIES:
        name = family.__name__.rpartition(".")[2]
        assert {primitive.__module__ for primitive in family.RULES} == {f"{PACKAGE.__name__}.{name}"}


def test_every_elementwise_function_is_known() -> None:
    assert set(FUNCTIONS) == KINDS
