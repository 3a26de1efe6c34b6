"""Folders that are costly to make and are kept in a cache: each appears whole, and is checked at every use.

An entry is ``<fingerprint>.folder``; the JSON file in it says what it was made from, and names every file with its size
and sha256. It is written last, so an entry without it is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.files import fsync_folder, sha256_file, write_json_atomic
from astrea.common.paths import exists, file_guard, is_file, list_folder, read_json, size_of

RECORD = "entry.json"
SUFFIX = ".folder"
_FORMAT = "astrea-folder-1"


def kept_folder(
    cache: Path, key: Mapping[str, Any], make: Callable[[Path], object], *, on_event: Callable[[str], None]
) -> Path:
    """The folder that is kept for a key; made first where there is none that can be used.

    Args:
        cache: where it is kept; made where it is missing.
        key: all that the folder's content depends on, JSON-able; ``what`` says in words what it is.
        make: writes the content, files without folders, into a new folder.
        on_event: called with one sentence when an entry is damaged and made again.

    Raises:
        AstreaError: the cache cannot be written.
        Exception: whatever ``make`` raises; then nothing is left behind.
    """
    entry = entry_of(cache, key)
    if exists(entry):
        wrong = wrong_with(entry, key)
        if wrong is None:
            with contextlib.suppress(OSError):  # the time of last use; a read-only cache has none
                os.utime(entry / RECORD)
            return entry
        on_event(f"{entry} cannot be used ({wrong}); making it again")
    with file_guard(cache):
        cache.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{entry.stem}.", suffix=".tmp", dir=cache))
    try:
        made = beside / entry.name
        make(made)
        with file_guard(cache):
            write_record(made, key)
            _replace(made, entry, beside / "old")
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return entry


def entry_of(cache: Path, key: Mapping[str, Any]) -> Path:
    """Where the folder of a key is kept, whether it is there or not."""
    return cache / f"{hashlib.sha256(_canonical(key)).hexdigest()}{SUFFIX}"


def described(entry: Path) -> str:
    """What an entry is, in the words of its key."""
    try:
        key = read_json(entry / RECORD)["key"]
        return str(key["what"])[:80]
    except (AstreaError, KeyError, TypeError):
        return "unknown"


def wrong_with(entry: Path, key: Mapping[str, Any]) -> str | None:
    """Why an entry must not be used; None if it is whole and as it was made."""
    try:
        record = read_json(entry / RECORD)
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            return f"{RECORD} is not of the format {_FORMAT}"
        if _canonical(record.get("key")) != _canonical(key):
            return "it belongs to another key"
        files = record.get("files")
        there = {path.name for path in list_folder(entry)} - {RECORD}
        if not isinstance(files, dict) or set(files) != there:
            return f"it does not hold the files that {RECORD} names"
        for name, about in files.items():
            if [size_of(entry / name), sha256_file(entry / name)] != about:
                return f"{name} has changed"
    except AstreaError as error:
        return error.message
    except OSError as error:
        return error.strerror or str(error)
    return None


def write_record(folder: Path, key: Mapping[str, Any]) -> None:
    """Make the files of a new folder durable, then write down what they are."""
    files = {}
    for path in list_folder(folder):
        with file_guard(path), open(path, "rb+") as file:
            os.fsync(file.fileno())
        files[path.name] = [size_of(path), sha256_file(path)]
    write_json_atomic(folder / RECORD, {"format": _FORMAT, "key": dict(key), "files": files})


def _replace(made: Path, entry: Path, old: Path) -> None:
    """Put a folder in its place; what stands there, damaged or made by another process meanwhile, goes."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(entry, old)
    try:
        os.replace(made, entry)
    except OSError:
        # Another process put its own there in this very moment: the same content.
        if not is_file(entry / RECORD):
            raise
    fsync_folder(entry.parent)


def _canonical(key: Any) -> bytes:
    return json.dumps(key, sort_keys=True, separators=(",", ":")).encode("ascii")
