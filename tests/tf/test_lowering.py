"""Every primitive has a lowering."""

from __future__ import annotations

import pytest

from returnn_lite.dims import TensorType
from returnn_lite.ir import Loop, Node, Value
from returnn_lite.ir.ops.among import Among
from returnn_lite.ir.ops.masks import When
from returnn_lite.tf.context import Context
from returnn_lite.tf.lowering import FAMILIES, LOWERINGS, REWRITTEN, lower_node, scope_name
from tests.ir.primitives import PACKAGE, declared_primitives
from tests.tf.network import B, T


def test_lowerings_are_the_primitives() -> None:
    assert set(LOWERINGS) | REWRITTEN | {Among} == declared_primitives()
    assert not set(LOWERINGS) & (REWRITTEN | {Loop, Among})


def test_families_are_those_of_the_primitives() -> None:
    for family in FAMILIES:
        name = family.__name__.rpartition(".")[2]
        for primitive in family.lowers.table:
            assert primitive.__module__ == f"{PACKAGE}.{name}"


def test_what_a_pass_must_rewrite_is_refused() -> None:
    x, mask = Value("x", TensorType((B,))), Value("mask", TensorType((B,), "bool"))
    node = Node(When(T, T), (x, mask), (Value("y", x.type),))
    context = Context(None, "float32", {}, None, node)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be rewritten by a pass"):
        lower_node(node, [], {}, context)


@pytest.mark.parametrize(
    ("layer", "name"), [("enc/lstm0_fw", "enc/lstm0_fw"), ("größe", "gr__e"), ("-x", "layer_-x"), ("", "layer_")]
)
def test_scope_names(layer: str, name: str) -> None:
    assert scope_name(layer) == name
