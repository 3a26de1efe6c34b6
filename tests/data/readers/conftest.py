"""A folder with the pictures that the rows of `record_rows` name."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_rows import picture


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Path -> file, of the pictures that `conversations` names."""
    return {f"p/{number:03}.png": picture(number) for number in range(50)}


@pytest.fixture
def root(tmp_path: Path, pictures: dict[str, bytes]) -> Path:
    """A folder with these pictures in it."""
    (tmp_path / "p").mkdir()
    for path, data in pictures.items():
        (tmp_path / path).write_bytes(data)
    return tmp_path
