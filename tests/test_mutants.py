"""The list of mistakes that `tools/mutants.py` makes follows the code."""

from __future__ import annotations

from tools.mutants import mutants


def test_each_text_is_in_its_file_once() -> None:
    assert len(mutants()) > 100
