"""docs/recurrent_loop.rst has a row for each layer that a loop changes, and its tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from returnn_lite.layers.registry import LAYERS
from tests.ir.primitives import declared_primitives

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "recurrent_loop.rst").read_text()
LAYER_TABLE, _, _ = TEXT.partition("Lengths, ends and beams")
ROWS = re.findall(r"^   \* - (.*)\n     - ", LAYER_TABLE, re.MULTILINE)[1:]
NAMED = {name for row in ROWS for name in re.findall("``(.+?)``", row)}
PRIMITIVES = [r"StepIndex", r"RandomDraw", r"CumConcat\w*", r"Cumsum\w*", r"Choose\w*", r"Moments", r"\w+Step"]
MAKES = re.compile(
    rf"\bInLoop\.(?!PER_STEP)|\b({'|'.join(PRIMITIVES)})\("
    r"|b\.delay\(|seen_so_far\(|run_unit\(|on_sources\(|\.masked\("
)
"""In the source of a layer: what it has of state, or of a contract other than PER_STEP."""


def sources() -> dict[str, str]:
    """The source of each class of layers by the name in configs."""
    found = {}
    for path in (ROOT / "returnn_lite" / "layers").glob("*.py"):
        text = path.read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                found[(f"returnn_lite.layers.{path.stem}", node.name)] = ast.get_source_segment(text, node) or ""
    return {name: found[(cls.__module__, cls.__name__)] for name, cls in LAYERS.items()}


@pytest.mark.parametrize("pattern", PRIMITIVES)
def test_what_is_looked_for_exists(pattern: str) -> None:
    assert any(re.fullmatch(pattern, primitive.__name__) for primitive in declared_primitives())


def test_special_layers_have_a_row() -> None:
    special = {name for name, text in sources().items() if MAKES.search(text)}
    assert {"cumsum", "rnn_cell", "window", "self_attention"} <= special
    assert special - NAMED == set()


def test_rows_are_layers() -> None:
    assert NAMED - set(LAYERS) == set()


@pytest.mark.parametrize("test", sorted(set(re.findall(r"``(tests/\S+?::\w+)``", TEXT))))
def test_named_tests_exist(test: str) -> None:
    file, name = test.split("::")
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
