"""The primitives that the package declares, a family in each module of `ir/ops`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import returnn_lite.ir.ops
from returnn_lite.ir import Op

PACKAGE = returnn_lite.ir.ops.__name__
FAMILY_NAMES = tuple(module.name for module in pkgutil.iter_modules(returnn_lite.ir.ops.__path__))


def declared_primitives() -> set[type[Op]]:
    """All of them, but for `Loop`, which is in no family, and classes that are only the base of some."""
    modules = {importlib.import_module(f"{PACKAGE}.{name}").__name__ for name in FAMILY_NAMES}
    return {
        primitive for primitive in _below(Op) if primitive.__module__ in modules and primitive.type_of is not Op.type_of
    }


def _below(base: type[Op]) -> Iterator[type[Op]]:
    for primitive in base.__subclasses__():
        yield primitive
        yield from _below(primitive)
