"""What an installation contains: `find_packages` leaves out folders without an `__init__.py`."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "returnn_lite"


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {module.parent for module in PACKAGE.rglob("*.py")}
    assert PACKAGE / "config" in folders
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
