"""Networks run in NumPy, an eighth of the tests in TensorFlow; and a commit runs one test in six, nightly all."""

from pathlib import Path

import pytest

from tests.reference.executable import numpy_first

__all__ = ["numpy_first"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a cell are many, and few changes are about cells: unless a test says how often it runs."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("one_in") is None:
            item.add_marker(pytest.mark.one_in(1 if item.path.name == "test_units.py" else 6))
