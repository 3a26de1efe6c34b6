"""Every command in front of paths that no file can have, that lead through a file, or that may not be entered: one
error that says so, never a traceback."""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from astrea import __version__
from command_line import Astrea, refused

BAD = {
    "long": "n" * 300,
    "bytes": "b\udcff",
    "half": "h\ud800",
    "through": "file/x",
    "deep": "a/" * 3000,
    "locked": "locked/x",
}
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
    ["train", "tiny", "llm.checkpoint=BAD", "--out", "run"],
    ["estimate", "BAD"],
    ["merge", "BAD", "--out", "merged"],
    ["add-expert", "BAD", "--expert", "photo=photo:Photo", "--out", "joined"],
    ["add-expert", "shipped", "--expert", "photo=photo:Photo", "--data", "BAD", "--out", "joined"],
    ["evaluate", "BAD"],
    ["benchmark", "shipped", "--data", "BAD", "--tasks", "pope"],
    ["benchmark", "shipped", "--tasks", "pope", "--data", "pictures", "--predictions", "BAD"],
    ["report", "BAD"],
    ["pack", "BAD", "--out", "packed"],
    ["scenes", "--count", "1", "--show", "BAD.png"],
]
EVERYWHERE = ("long", "locked")
"""What every command is asked; the others, what stands for one way of reading each."""

WRITES = {"--out", "--fixed", "--show"}
CASES = [
    (command, kind)
    for kind in BAD
    for command in (COMMANDS if kind in EVERYWHERE else COMMANDS[::4])
    # Bytes that are no UTF-8 are a name that a file can have: writing there is no error.
    if not (kind == "bytes" and command[-2] in WRITES)
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
    for module, names in (
        (os, ("stat", "lstat", "open", "scandir", "listdir", "mkdir")),
        (io, ("open",)),
        (builtins, ("open",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, _locking(getattr(module, name)))
    return place


@pytest.mark.parametrize(
    ("command", "kind"), CASES, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_no_path_makes_a_traceback(inside: Path, astrea: Astrea, command: list[str], kind: str):
    result = astrea(*(word.replace("BAD", BAD[kind]) for word in command))
    if result.code == 2:  # halves of characters are refused where the command line is read
        assert "Usage: " in result.err
        assert kind == "half"
        return
    assert result.code == 1
    assert result.err.count("error: ") == 1
    assert result.err.count("  -> ") == 1
    assert len(result.err) < 20_000


@pytest.mark.parametrize("url", ["https://example.org/a", "s3://bucket/a"])
@pytest.mark.parametrize("command", [*COMMANDS, ["train", "tiny", "--out=BAD"]], ids=" ".join)
def test_a_url_is_refused_as_it_was_typed_and_nothing_made(inside: Path, astrea: Astrea, command: list[str], url: str):
    before = sorted(inside.rglob("*"))
    result = astrea(*(word.replace("BAD", url) for word in command))
    refused(result, f"{url}", "is a URL, and URLs are not fetched")
    assert sorted(inside.rglob("*")) == before


def test_a_question_may_hold_a_url_and_a_picture_be_one_of_this_machine(
    inside: Path, astrea: Astrea, tiny_folder: Path
):
    picture = (inside / PICTURE).as_uri()
    assert astrea("ask", tiny_folder, picture, "is https://example.org on the sign?").code == 0


@pytest.mark.parametrize("command", [["ask", PICTURE], ["retrieve", "pictures"]], ids=" ".join)
def test_a_question_of_bytes_that_are_no_text_is_refused(inside: Path, astrea: Astrea, command: list[str]):
    refused(astrea(*command, "is there a \udcff sun?"), "the text holds half of a character")


def test_a_current_folder_that_is_gone_and_a_full_device_are_told(
    tmp_path: Path, astrea: Astrea, monkeypatch: pytest.MonkeyPatch
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    refused(astrea("validate", "rows.jsonl"), "the current folder is no longer there")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "caption": "a"}\n')
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert astrea("validate", "rows.jsonl").err.count("error: writing failed: no space left on device") == 1
    assert astrea("--version").out == f"astrea {__version__}\n"  # and nothing of what could not be written
