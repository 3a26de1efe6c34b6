"""Pictures and folders that cannot be read: told once, kept where they were known, and no change for ever after."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from albums import COUNT, NAMES, TEXT, draw
from astrea.common.errors import AstreaError
from astrea.retrieval.folder import rank_folder
from astrea.retrieval.pictures import find_pictures
from astrea.retrieval.search import PictureIndex, changed_since
from astrea.retrieval.store import FOLDER, read_segment
from command_line import Astrea, refused
from listening import Said

INSIDE = [name for name in NAMES if name.startswith("below/")]


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch):
    """Lets nobody look into folders called ``below``, as nobody but root may."""
    scan = os.scandir

    def lock() -> None:
        def refuse(path: str | Path):
            if str(path).endswith("below"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)

    return lock


def test_a_locked_folder_is_not_gone(index, album, locked):
    index(album)
    locked()
    said = Said()
    done = index(album, report=said)
    assert (done.total, done.known, done.removed) == (COUNT, COUNT, 0)
    assert len(done.skipped) == len(said.lines) == 1
    assert "below may not be read: permission denied" in said.lines[0]
    assert {entry.path for entry in read_segment(album / FOLDER).manifest.entries} == set(NAMES)
    assert changed_since(PictureIndex(album / FOLDER)) == 0


def test_a_folder_that_was_always_locked_is_told_and_no_change(index, album, locked, monkeypatch):
    locked()
    assert index(album).total == COUNT - len(INSIDE)
    assert changed_since(PictureIndex(album / FOLDER)) == 0
    monkeypatch.undo()
    assert changed_since(PictureIndex(album / FOLDER)) == len(INSIDE)  # there to be seen now
    assert index(album).embedded == len(INSIDE)


def test_unreadable_pictures_are_no_change_until_they_change(index, album):
    for number, name in enumerate(("x.jpg", "y.png", "z.webp")):
        (album / name).write_bytes(b"no picture")
        os.utime(album / name, ns=(10**18, 10**18 + number))
    assert len(index(album).skipped) == 3
    found = PictureIndex(album / FOLDER)
    assert changed_since(found) == 0
    draw(album / "y.png", 9)
    (album / "x.jpg").unlink()
    assert changed_since(found) == 2
    done = index(album)
    assert (done.embedded, len(done.skipped), done.removed) == (1, 1, 0)
    assert changed_since(PictureIndex(album / FOLDER)) == 0


def test_names_that_are_no_text_are_told_alike_with_and_without_an_index(index, album, tiny_model, tiny_processor):
    strange = Path(os.fsdecode(os.fsencode(album) + b"/\xff\xfe.png"))
    draw(strange, 7)
    said = Said()
    assert index(album, report=said).total == COUNT
    assert [line for line in said.lines if "its name is no text" in line] == said.lines
    assert changed_since(PictureIndex(album / FOLDER)) == 0
    said = Said()
    hits = rank_folder(tiny_model, tiny_processor, album, TEXT, top=COUNT + 1, report=said)
    assert len(hits) == COUNT
    assert "its name is no text" in said.lines[0]


def test_every_ending_that_is_read_is_found_and_others_are_told(album):
    for name in ("1.jfif", "2.JPE", "3.tiff", "4.heic", "5.AVIF", "._6.png", "__MACOSX/7.png", "8.txt"):
        (album / name).parent.mkdir(exist_ok=True)
        (album / name).touch()
    told: list[AstreaError] = []
    found = [path.name for path in find_pictures(album, lambda path, error: told.append(error))]
    assert {"1.jfif", "2.JPE", "3.tiff"} <= set(found)
    assert len(found) == COUNT + 3
    assert sorted(str(error).split(" is of the format ")[1][:5] for error in told) == [".avif", ".heic"]


def test_an_empty_index_says_so(index, album, astrea: Astrea):
    for name in NAMES:
        (album / name).unlink()
    index(album)
    refused(astrea("retrieve", album, TEXT), f"the index {album / FOLDER} holds no picture", "astrea index again")
