"""Asking about paths: names that no file can have, folders that may not be entered, pipes, hints for what is gone."""

from __future__ import annotations

import ast
import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from astrea.common import paths
from astrea.common.errors import AstreaError
from astrea.data.image_sources import read_image
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.sources import configured_sources, open_sources
from astrea.language.checkpoint import find_checkpoint
from astrea.model.loading import load_model
from astrea.recipes.recipe import Data

SOURCE = Path(paths.__file__).parents[1]
IMPOSSIBLE = ["n" * 300, "a/" * 3000 + "b", "null\0byte", "half\ud800", "file/below", "loop/x"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("name", IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
def test_what_no_file_can_be_called_is_absent(place: Path, name: str):
    path = place / name
    assert not paths.is_file(path)
    assert not paths.is_folder(path)
    assert not paths.exists(path)
    assert paths.missing(path) == "does not exist"
    assert paths.size_of(path) == 0
    for refuse in (paths.list_folder, paths.open_file, lambda one: paths.read_bytes(one, 9)):
        with pytest.raises(AstreaError) as refused:
            refuse(path)
        assert len(str(refused.value)) < 600


def test_what_is_there(place: Path):
    assert paths.is_file(place / "file")
    assert not paths.is_folder(place / "file")
    assert paths.size_of(place / "file") == 5
    assert paths.is_folder(place / "folder")
    assert not paths.is_file(place / "folder")
    assert paths.exists(place / "pipe")
    assert paths.missing(place / "pipe") == "is not an ordinary file"
    assert [path.name for path in paths.list_folder(place)] == ["file", "folder", "loop", "pipe"]


def test_only_ordinary_files_are_opened_and_only_up_to_a_size(place: Path):
    with paths.open_file(place / "file") as file:
        assert file.read() == b"12345"
    assert paths.read_bytes(place / "file", 5) == b"12345"
    with pytest.raises(AstreaError, match="more than 4 bytes"):
        paths.read_bytes(place / "file", 4)
    for name, said in (("pipe", "is not an ordinary file"), ("folder", "is a folder"), ("nothing", "does not exist")):
        with pytest.raises(AstreaError, match=f"recipe .*{name} {said}"):
            paths.open_file(place / name, "recipe")


def test_a_pipe_that_takes_a_files_place_meanwhile_is_not_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "is_file", lambda path: True)
    with paths.open_file(place / "pipe") as pipe:
        assert pipe.read() == b""  # no writer: at its end at once


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_cannot_be_known_is_an_error_that_names_the_path(place: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(paths.os, "stat", refuse)
    for ask in (paths.is_file, paths.is_folder, paths.exists, paths.size_of, paths.open_file):
        with pytest.raises(AstreaError, match="folder/locked"):
            ask(place / "folder" / "locked")


def test_files_below_tells_of_the_folders_it_may_not_read(place: Path, monkeypatch: pytest.MonkeyPatch):
    (place / "folder" / "inner").mkdir()
    (place / "folder" / "inner" / "deep").touch()
    scan = os.scandir

    def locked(path: str | Path) -> object:
        if str(path).endswith("inner"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(paths.os, "scandir", locked)
    told: list[AstreaError] = []
    found = paths.files_below(place, lambda path, error: told.append(error))
    assert [path.name for path in found] == ["file"]
    assert len(told) == 1
    assert "inner may not be read: permission denied" in str(told[0])


def test_hints_for_windows_paths_unicode_forms_and_capitals(tmp_path: Path):
    composed = unicodedata.normalize("NFC", "é.png")
    (tmp_path / composed).touch()
    assert "NFC" in paths.hint_for(tmp_path / unicodedata.normalize("NFD", composed))
    (tmp_path / "Photo.JPG").touch()
    assert "there is Photo.JPG" in paths.hint_for(tmp_path / "photo.jpg")
    assert "photos/1.png" in paths.hint_for("photos\\1.png")
    assert paths.hint_for("~/x.png").startswith("write ~ out")
    assert paths.hint_for(tmp_path / "other.png") == ""


def test_the_guard_names_the_path_and_leaves_other_errors_alone():
    with pytest.raises(KeyError), paths.file_guard("x"):
        raise KeyError("k")
    with pytest.raises(AstreaError, match=r"^x: no such file"), paths.file_guard("x"):
        open("/nonexistent/file")  # noqa: SIM115
    for name in ("a\0b", "half\ud800"):
        with pytest.raises(AstreaError, match="no file name can hold"), paths.file_guard(name):
            pass


PROBES = {
    "is_file",
    "is_dir",
    "exists",
    "iterdir",
    "glob",
    "rglob",
    "stat",
    "lstat",
    "is_symlink",
    "read_text",
    "read_bytes",
}
OF_THE_PACKAGE = {"SHIPPED", "BUNDLED", "inspect.getfile", "INSTALLER", "direct_url.json"}
"""What comes with the package is there."""


def _bare(node: ast.AST, guarded: bool) -> Iterator[ast.Call]:
    """Calls that ask the disk about a path, outside of whatever turns a refusal into words."""
    if isinstance(node, ast.With):
        guarded = guarded or any(_turns_errors(ast.unparse(item.context_expr)) for item in node.items)
    if isinstance(node, ast.Try):
        caught = [ast.unparse(handler.type) for handler in node.handlers if handler.type]
        guarded = guarded or any("OSError" in name or name == "Exception" for name in caught)
    if isinstance(node, ast.Call) and not guarded:
        called = node.func
        plain = isinstance(called, ast.Name) and called.id == "open"
        method = isinstance(called, ast.Attribute) and called.attr in PROBES
        opened = (
            isinstance(called, ast.Attribute) and called.attr == "open" and ast.unparse(called.value).endswith("path")
        )
        if (plain or method or opened) and not any(own in ast.unparse(node) for own in OF_THE_PACKAGE):
            yield node
    for child in ast.iter_child_nodes(node):
        yield from _bare(child, guarded)


def _turns_errors(context: str) -> bool:
    return "guard" in context or context.startswith("_reading(") or ("suppress" in context and "OSError" in context)


def test_no_module_asks_the_disk_about_a_path_without_a_guard():
    found = [
        f"{path.relative_to(SOURCE)}:{call.lineno} {ast.unparse(call)}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name not in ("paths.py", "files.py")  # `files` raises OSError, as it says
        for call in _bare(ast.parse(path.read_text("utf-8")), False)
    ]
    assert not found, "ask `astrea.common.paths` instead"


URL = "https://example.org/data//a.jsonl"


@pytest.mark.parametrize(
    "use",
    [
        paths.refuse_url,
        load_model,
        open_sources,
        ImageRoot,
        read_image,
        lambda url: find_checkpoint(url, None),
        lambda url: configured_sources(Data(train=url)),
    ],
)
def test_a_url_where_a_path_belongs_is_told_as_it_was_typed(use: Callable[[str], object]):
    with pytest.raises(AstreaError) as refused:
        use(URL)
    assert refused.value.message.endswith(f"{URL} is a URL, and URLs are not fetched")
    paths.refuse_url("C:/photos")  # a disk, and folders with a colon, are paths
    paths.refuse_url("a:b/c")


def test_a_folder_to_be_written_is_new_or_empty(tmp_path: Path):
    paths.check_empty(tmp_path / "new")
    paths.check_empty(tmp_path)
    (tmp_path / "lock").touch()
    paths.check_empty(tmp_path, apart="lock")
    for filled in (tmp_path, tmp_path / "lock"):
        with pytest.raises(AstreaError, match="is not an empty folder"):
            paths.check_empty(filled)
