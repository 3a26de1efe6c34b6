"""Writing files so that a crash, a full disk or a power cut never leaves a half-written one behind.

Everything here raises plain ``OSError``: only the caller knows what the file is for, and so what hint to offer.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes as 64 hex digits, read in chunks so that size does not matter.

    Raises:
        OSError: the file cannot be read, or is none: a pipe or a device might never end.
    """
    digest = hashlib.sha256()
    with open(path, "rb", opener=_open_ordinary) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _open_ordinary(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not an ordinary file", path)
    return descriptor


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename is only on disk once its folder is.

    Systems and file systems that cannot sync a folder (Windows, some network mounts) are let through, since there is
    nothing to do about it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, sync the file written there and rename it to ``path``.

    For writers that want a path of their own, such as safetensors. When the block (or the sync, or the rename) fails,
    what was written is removed and ``path`` is as it was. The temporary path lies in a folder of its own beside
    ``path``, whose name starts with ``.`` and ends with ``.tmp``: a writer that makes temporary files itself (as
    safetensors does) leaves them there too when it is killed, so one name pattern finds all leftovers.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent))
    temporary = folder / path.name
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        # safetensors leaves its files readable by their owner alone; give back what an ordinary open() would give.
        temporary.chmod(mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    fsync_folder(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``: afterwards it holds either all of ``data`` or what it held before.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json_atomic(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as indented JSON with a final newline, atomically; NaN and infinity become null, and
    text that UTF-8 cannot hold is escaped.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
        TypeError: ``value`` is not JSON-able.
    """
    write_atomic(path, json.dumps(finite_or_null(value), indent=1, allow_nan=False).encode() + b"\n")


def finite_or_null(value: Any) -> Any:
    """The value with every NaN and infinity in it replaced by None, which JSON can say; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
