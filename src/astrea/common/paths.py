"""Asking about paths, and opening what they name, whatever stands there: each answer is right or an `AstreaError`.

`pathlib` answers some questions about a path by an exception: a folder that may not be entered, a name of more than
255 bytes, a disk that went away. Here a name that no file can have is simply absent, and what cannot be known is an
error that names the path. Only ordinary files are opened: a pipe or a device could keep its reader waiting for ever.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from astrea.common.errors import AstreaError, shortened

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EBADF})
_FULL = ("no space left on the disk", "Free some space, or choose an output folder on another disk.")
_DENIED = ("permission denied", "Change the permissions, or choose an output folder of your own.")
_REASONS = {errno.EROFS: ("the disk is read-only", "Choose an output folder that can be written to.")}
_REASONS |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL)
_REASONS |= dict.fromkeys((errno.EACCES, errno.EPERM), _DENIED)
_REASONS |= {errno.ENAMETOOLONG: ("no file can have a name this long", "Give a shorter name.")}
_ENTER = "give this user permission to read it and to enter the folders that it is in"
_NO_NAME = "it holds a character that no file name can hold"
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_SHORT, _LONGEST = 200, 4096
MOST_JSON = 64 << 20
"""The largest file that `read_json` reads, in bytes."""


def is_file(path: str | Path) -> bool:
    """Whether an ordinary file is there, through links.

    Raises:
        AstreaError: it cannot be known: a folder on the way may not be entered, or the disk fails.
    """
    mode = mode_of(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there, through links. Raises as `is_file`."""
    mode = mode_of(path)
    return mode is not None and stat.S_ISDIR(mode)


def exists(path: str | Path) -> bool:
    """Whether anything is there; a link that leads nowhere is not. Raises as `is_file`."""
    return mode_of(path) is not None


def mode_of(path: str | Path) -> int | None:
    """The mode bits of what is there, through links; None if nothing is. Raises as `is_file`."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise failed(path, error) from error
    except ValueError:  # a null byte, or half of a character
        return None


def size_of(path: str | Path) -> int:
    """The size in bytes of what is there, through links; 0 if nothing is. Raises as `is_file`."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise failed(path, error) from error
    except ValueError:
        return 0


def missing(path: str | Path) -> str:
    """What is wrong with a path that was to be an ordinary file, in words: "does not exist", "is a folder", ..."""
    mode = mode_of(path)
    return "does not exist" if mode is None else "is a folder" if stat.S_ISDIR(mode) else "is not an ordinary file"


def list_folder(folder: str | Path) -> list[Path]:
    """What a folder holds, sorted by name.

    Raises:
        AstreaError: it is no folder, or may not be read.
    """
    try:
        return sorted(Path(folder).iterdir())
    except (OSError, ValueError) as error:
        raise failed(folder, error) from error


def files_below(folder: Path, unreadable: Callable[[Path, AstreaError], None]) -> Iterator[Path]:
    """Every ordinary file below a folder, in no order. Links to folders are not followed.

    Args:
        unreadable: told of every folder and file that may not be looked at.
    """

    def locked(error: OSError) -> None:
        unreadable(Path(error.filename), failed(error.filename, error))

    for parent, folders, names in os.walk(folder, onerror=locked):
        folders.sort()
        for name in names:
            path = Path(parent, name)
            try:
                if is_file(path):
                    yield path
            except AstreaError as error:
                unreadable(path, error)


def matching(pattern: str) -> list[Path]:
    """What a pattern with ``*``, ``?``, ``[...]`` or ``**`` finds, sorted; folders that may not be read are empty."""
    try:
        return sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    except ValueError:  # a null byte
        return []


def open_file(path: str | Path, what: str = "file") -> BinaryIO:
    """An ordinary file, opened for reading bytes; never waits for a pipe's writer.

    Args:
        what: what messages call it, such as "data file".

    Raises:
        AstreaError: it does not exist, is a folder, a pipe or a device, or may not be read.
    """
    if not is_file(path):
        raise AstreaError(f"{what} {shown(path)} {missing(path)}", hint_for(path) or "check the path")
    try:
        # Opened without waiting, since it may have become a pipe meanwhile.
        return open(path, "rb", opener=_open_without_waiting)
    except OSError as error:
        raise failed(path, error) from error


def _open_without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def read_json(path: str | Path, what: str = "file") -> Any:
    """What a JSON file of the program's own says, of at most `MOST_JSON` bytes.

    Raises:
        AstreaError: as `open_file`; or it is larger, or no JSON.
    """
    try:
        return json.loads(read_bytes(path, MOST_JSON, what))
    except ValueError as error:
        raise AstreaError(f"{what} {shown(path)} is damaged: {error}", "remove it, or copy it again") from error


def read_bytes(path: str | Path, most: int, what: str = "file") -> bytes:
    """All bytes of an ordinary file.

    Args:
        most: the largest size that is read, in bytes.

    Raises:
        AstreaError: as `open_file`; or the file is larger.
    """
    with open_file(path, what) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise failed(path, error) from error
    if len(data) > most:
        raise AstreaError(f"{what} {shown(path)} has more than {most:,} bytes", "give a smaller one")
    return data


@contextmanager
def file_guard(path: Path | str) -> Iterator[None]:
    """Turns any OSError inside the block, also one from within safetensors, into an AstreaError that names ``path`` and
    the hint; a name that no file can have is one before the block begins."""
    try:
        unnameable = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        unnameable = True
    if unnameable:
        raise AstreaError(f"{shown(path)}: {_NO_NAME}", "give another name")
    try:
        yield
    except SafetensorError as error:
        if not (code := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        raise _failure(path, int(code[1]), os.strerror(int(code[1]))) from error
    except OSError as error:
        raise _failure(path, error.errno or 0, error.strerror or str(error)) from error


def check_empty(folder: Path, apart: str | None = None) -> None:
    """Makes sure that a folder to be written holds nothing yet; it need not exist.

    Args:
        apart: the name of a file that may be there all the same.

    Raises:
        AstreaError: something is in it, or stands in its place; or it cannot be looked at.
    """
    with file_guard(folder):
        if folder.exists() and (not folder.is_dir() or any(path.name != apart for path in folder.iterdir())):
            raise AstreaError(
                f"{folder} is not an empty folder", "choose another one, or remove what is there yourself"
            )


def failed(path: str | Path, error: OSError | ValueError) -> AstreaError:
    """The error of a path that cannot be looked at or read."""
    if isinstance(error, ValueError):
        return AstreaError(f"{shown(path)}: {_NO_NAME}", "give another name")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AstreaError(f"{shown(path)} may not be read: permission denied", _ENTER)
    return _failure(path, error.errno or 0, error.strerror or str(error))


def _failure(path: Path | str, code: int, said: str) -> AstreaError:
    why, hint = _REASONS.get(code, ("", "Check that the path is right and its disk is healthy."))
    return AstreaError(f"{shown(path)}: {why or said.lower()}", hint)


def refuse_url(text: str | Path, what: str = "") -> None:
    """Nothing but models on the hub is fetched, and a path object eats one of a URL's slashes: so what is typed where a
    path belongs is looked at before it becomes one.

    Args:
        what: stands before it in the message.

    Raises:
        AstreaError: it is a URL; quotes it as it was typed.
    """
    if isinstance(text, str) and _URL.match(text):
        message = f"{what}{shortened(text)} is a URL, and URLs are not fetched"
        raise AstreaError(message, "download it, and give the path where it lies on this machine")


def shown(path: Path | str) -> str:
    """A path as messages show it; of one that is longer than any that can exist, the beginning."""
    text = str(path)
    fits = len(text) <= _LONGEST and max(map(len, Path(text).parts), default=0) <= 255
    return text if fits else f"{text[:_SHORT]}... ({len(text):,} characters)"


def is_text(path: str | Path) -> bool:
    """Whether a name (or any string) is text that can be written down, without bytes that are no UTF-8 and halves of
    characters."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def hint_for(path: str | Path) -> str:
    """Why a path that is not there may be not there: written as on Windows, or in another spelling of its letters or
    their case; "" where nothing is known."""
    text = str(path)
    if os.sep == "/" and "\\" in text:
        return f"write the path with / between folders: {shown(text.replace(chr(92), '/'))}"
    if re.match(r"~[^/]*(/|$)", text):
        return f"write ~ out: {shown(os.path.expanduser(text))}"
    try:
        beside = [one.name for one in list_folder(Path(text).parent)]
    except AstreaError:
        return ""
    name = Path(text).name
    for alike, why in (
        (_composed, "its letters are composed in another way there (Unicode NFC and NFD)"),
        (lambda one: _composed(one).casefold(), "capitals count"),
    ):
        for other in beside:
            if other != name and alike(other) == alike(name):
                return f"there is {other} ({other!a}): {why}" if why[0] == "i" else f"there is {other}: {why}"
    return ""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
