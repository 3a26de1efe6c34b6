"""One process at a time writes into a run's folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from astrea.common.errors import AstreaError
from astrea.common.paths import file_guard
from astrea.common.progress import SILENT, Reporter

LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def folder_lock(folder: Path, *, report: Reporter = SILENT) -> Iterator[None]:
    """Hold the lock of a folder that is there; the system lets go of it when the process dies, however it dies.

    Raises:
        AstreaError: another process, or another call in this one, is at work in the folder; or it cannot be written.
    """
    lock = FileLock(folder / LOCK)
    with file_guard(folder):
        if not acquire(lock, report):
            raise in_use(folder)
    try:
        yield
    finally:
        lock.release()


def acquire(lock: FileLock, report: Reporter) -> bool:
    """Take a lock now; False if it is held elsewhere. Where the file system has no locks, it counts as taken.

    Raises:
        OSError: its file cannot be written.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        report.say(f"{lock.lock_file}: this disk knows no locks; see to it that one run alone writes there")
    return True


def in_use(folder: Path) -> AstreaError:
    """The error of a folder whose lock is held elsewhere."""
    return AstreaError(
        f"{folder}: another run is at work in this folder", "wait until it has ended, or choose another folder"
    )
