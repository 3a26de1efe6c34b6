"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest

import astrea.common.files as files
from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path, write_atomic, write_json_atomic
from astrea.common.paths import file_guard


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_bytes(b"new" * (1 // 0))
    with pytest.raises(FileNotFoundError), atomic_path(path) as temporary:
        temporary.unlink()
    with pytest.raises(TypeError):
        write_json_atomic(path, {"a": object()})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_standard_json_whatever_the_value_holds(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json_atomic(path, {"a": [1, math.nan, (math.inf,)], "é": "\ud800"})  # half of a character too
    assert json.loads(path.read_bytes()) == {"a": [1, None, [None]], "é": "\ud800"}


def test_json_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_json_atomic(path, {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(AstreaError, match=r"report\.json: no space left"), file_guard(path):
        write_json_atomic(path, {"a": 2})
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
    assert json.loads(path.read_bytes()) == {"a": 1}
