"""Files of model folders and checkpoints from elsewhere: names, size limits, and errors of third-party parsers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.paths import is_file, is_folder, list_folder

MAX_JSON_BYTES = 4 << 20
MAX_TOKENIZER_BYTES = 128 << 20
MAX_TEMPLATE_BYTES = 1 << 18
WEIGHTS = "model.safetensors"
TEMPLATE = "chat_template.jinja"
READ = (".json", ".jinja", ".model", ".safetensors", ".txt")
AGAIN = "copy or download the model folder again"


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Turns every error of a third-party parser into an `AstreaError`. Code in Rust raises a type of its own, which is
    not even an ``Exception``.

    Args:
        what: what failed, naming the file.

    Raises:
        AstreaError: the code raised something.
    """
    try:
        yield
    except AstreaError:
        raise
    except Exception as error:
        raise AstreaError(f"{what}: {first_line(error)}", AGAIN) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise AstreaError(f"{what}: {first_line(error)}", AGAIN) from error


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Adds the file's name to an error that lacks it."""
    try:
        yield
    except AstreaError as error:
        if str(path) in error.message:
            raise
        raise AstreaError(f"{path}: {error.message}", error.hint) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def check_inside(path: Path) -> None:
    """Refuses a link that leads out of a model folder. Links of the hub's cache lead to the ``blobs`` beside its
    snapshots and are allowed.

    Raises:
        AstreaError: the file is such a link.
    """
    real, folder = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    if real.parent not in (folder, folder.parent.parent / "blobs"):
        raise AstreaError(f"{path} is a link that leads out of the folder", "put the file itself in its place")


def check_folder(folder: Path) -> None:
    """Checks that a model folder holds ordinary files only: transformers reads some of them by itself.

    Raises:
        AstreaError: one is a pipe, a device, or a link that leads out of the folder; names it.
    """
    for path in list_folder(folder):
        if path.suffix in READ:
            if not (is_file(path) or is_folder(path)):
                raise AstreaError(f"{path} is not an ordinary file", AGAIN)
            check_inside(path)


def read_bytes(path: Path, most: int) -> bytes:
    """An ordinary file of at most ``most`` bytes.

    Raises:
        AstreaError: it is missing, unreadable, too large, or something else stands there. Names it.
    """
    try:
        size = path.stat().st_size
        # Opening a pipe or a device could wait for ever.
        if not path.is_file():
            raise AstreaError(f"{path} is not an ordinary file", AGAIN)
        check_inside(path)
        if size > most:
            raise AstreaError(f"{path} has {size:,} bytes; at most {most:,} are read", AGAIN)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise AstreaError(f"{path} is missing", AGAIN) from None
    except OSError as error:
        raise AstreaError(f"{path} cannot be read: {error}", "check the file and its permissions") from error


def read_json(path: Path, most: int) -> dict[str, Any]:
    """A JSON object of at most ``most`` bytes.

    Raises:
        AstreaError: the file is missing, unreadable, too large, or holds anything else. Names it.
    """
    return parsed(path, read_bytes(path, most))


def parsed(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON object that a file holds. Raises as `read_json`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AstreaError(f"{path} is not valid JSON: {first_line(error)}", AGAIN) from error
    if not isinstance(value, dict):
        raise AstreaError(f"{path} holds a JSON {type(value).__name__} instead of an object", AGAIN)
    return value


def read_text(path: Path, most: int) -> str:
    """A text in UTF-8 of at most ``most`` bytes. Raises as `read_json`."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise AstreaError(f"{path} is no text in UTF-8: {error}", AGAIN) from error
