"""Every command in front of paths that no file can have, that lead through a file, or that may not be entered: one
error that says so, never a traceback."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Astrea
from PIL import Image

BAD = {"long": "n" * 300, "bytes": "b\udcff", "half": "h\ud800", "through": "file/x", "deep": "a/" * 3000, "locked": "locked/x"}
PICTURE = "pictures/a.png"
COMMANDS = [
    ["ask", "BAD", "is there a sun?"],
    ["ask", "BAD", PICTURE, "is there a sun?"],
    ["index", "BAD"],
    ["index", "BAD", "pictures"],
    ["retrieve", "BAD", "a sun"],
    ["retrieve", "pictures", "--image", "BAD"],
    ["validate", "BAD"],
    ["validate", "BAD.jsonl"],
    ["validate", "BAD.json"],
    ["validate", "BAD.parquet"],
    ["validate", "BAD.tar"],
    ["validate", "rows.jsonl", "--images", "BAD"],
    ["validate", "rows.jsonl", "--fixed", "BAD.jsonl"],
    ["validate", "rows.jsonl", "--model", "BAD"],
    ["train", "BAD"],
    ["train", "BAD.yaml"],
    ["train", "tiny", "--out", "BAD"],
    ["train", "--resume", "BAD"],
    ["train", "tiny", "language.checkpoint=BAD", "--out", "run"],
    ["estimate", "BAD"],
    ["merge", "BAD", "--out", "merged"],
    ["join", "BAD", "--expert", "photo=photo:Photo", "--out", "joined"],
    ["join", "shipped", "--expert", "photo=photo:Photo", "--data", "BAD", "--out", "joined"],
    ["evaluate", "BAD"],
    ["evaluate", "--suite", "public", "--data", "BAD", "--tasks", "pope"],
    ["evaluate", "--suite", "public", "--tasks", "pope", "--data", "pictures", "--predictions", "BAD"],
    ["report", "BAD"],
    ["pack", "BAD", "--out", "packed"],
    ["scenes", "--count", "1", "--show", "BAD.png"],
]
WRITES = {"--out", "--fixed", "--show"}
CASES = [
    (command, kind)
    for command in COMMANDS
    for kind in BAD
    # Bytes that are no UTF-8 are a name that a file can have: writing there is no error.
    if not (kind == "bytes" and command[-2] in WRITES and command[-1].startswith("BAD"))
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "pictures").mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / PICTURE)
    (folder / "rows.jsonl").write_text('{"image": "pictures/a.png", "caption": "a red thing"}\n')
    (folder / "file").touch()
    (folder / "locked").mkdir()
    return folder


def _locking(real: Callable[..., Any]) -> Callable[..., Any]:
    """As ``real``, but nothing inside of a folder called ``locked`` may be reached, as nobody but root may."""

    def refuse(path: Any, *rest: Any, **named: Any) -> Any:
        if not isinstance(path, int) and os.fsdecode(path).startswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
        return real(path, *rest, **named)

    return refuse


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    for module, names in ((os, ("stat", "lstat", "open", "scandir", "listdir", "mkdir")), (io, ("open",)), (builtins, ("open",))):
        for name in names:
            monkeypatch.setattr(module, name, _locking(getattr(module, name)))
    return place


@pytest.mark.parametrize(("command", "kind"), CASES, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_no_path_makes_a_traceback(inside: Path, astrea: Astrea, command: list[str], kind: str):
    result = astrea(*(word.replace("BAD", BAD[kind]) for word in command))
    assert result.code == 1
    assert result.err.count("error: ") == 1 and result.err.count("  -> ") == 1
    assert len(result.err) < 20_000
