"""The files that the rows of `record_rows` and `faulty_rows` need: pictures, and a file of faulty rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faulty_rows import ROWS
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


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A file with one of each issue, and the pictures it names."""
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.png").write_bytes(picture(0))
    (root / "cut.png").write_bytes(picture(0)[:200])
    (root / "text.png").write_text("no picture")
    (tmp_path / "secret.png").write_bytes(picture(1))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    lines = [row if isinstance(row, bytes) else json.dumps({"id": id, **row}).encode() for id, row, _ in ROWS]
    path = tmp_path / "faulty.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path
