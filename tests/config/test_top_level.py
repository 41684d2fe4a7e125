"""Keys of a config that nothing reads: which names of a Python config are taken for misspelt keys."""

from __future__ import annotations

import pytest

from returnn_lite.config.top_level import check_top_level

KNOWN = ("batch_size", "num_epochs", "model")


def told(name: str, *, is_code: bool) -> list[str]:
    found = check_top_level({name: 1}, KNOWN, {}, lambda key: True, lambda path: None, is_code=is_code)
    return [str(diagnostic) for diagnostic in found]


@pytest.mark.parametrize(
    "name", ["bath_size", "xbatch_size", "batch_sizee", "batch_sizr", "bacth_size", "num_epohcs", "models"]
)
def test_one_slip_is_told_in_a_python_config(name: str) -> None:
    (message,) = told(name, is_code=True)
    assert f"unknown key '{name}'. Did you mean" in message


@pytest.mark.parametrize("name", ["batches", "my_batch_size", "epochs", "size_batch", "_model", "learning", "mdl"])
def test_other_names_are_variables_of_a_python_config(name: str) -> None:
    assert told(name, is_code=True) == []
    assert told(name, is_code=False) != []
