"""A run's folder: one process at a time writes into it, and a run that fails at its start leaves it as it was."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic
from astrea.common.paths import file_guard, is_file, is_folder, list_folder
from astrea.common.progress import Reporter
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.distributed import SINGLE, Distributed
from astrea.training.resume import MARK

LOCK = "lock"
RECIPE = "recipe.yaml"
STARTED = {LOCK, RECIPE, MARK, "language.json", "train.jsonl"}
"""Files that a run has made before it has learned anything."""

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def locked_folder(
    folder: Path, *, ranks: Distributed = SINGLE, report: Reporter, leaves_lock: bool = True
) -> Iterator[None]:
    """Make the folder, and hold its lock; the system lets go of it when the process dies, however it dies.

    Args:
        ranks: processes that share a run. The one that leads holds the lock for all of them.
        leaves_lock: its file stays, for the next one; False where a folder is made that others will be given.

    Raises:
        AstreaError: another process, or another call in this one, is at work in the folder; or it cannot be written.
            What the body raises: then the folder is as it was, if nothing but the files of a start has been made.
    """
    with file_guard(folder):
        known = {path.name for path in list_folder(folder)} if is_folder(folder) else None
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        alone = _locks(lock, report) if ranks.is_main else True
    if not ranks.from_leader(int(alone)):
        raise AstreaError(
            f"{folder}: another run is at work in this folder", "wait until it has ended, or choose another folder"
        )
    try:
        yield
    except AstreaError:
        if ranks.is_main:
            _tidy(folder, known)
        raise
    finally:
        if not leaves_lock:
            with suppress(OSError):
                (folder / LOCK).unlink()
        lock.release()


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Keep the recipe with the run, where `astrea train --resume` finds it."""
    with file_guard(folder):
        write_atomic(folder / RECIPE, dump_recipe(recipe).encode())


def read_recipe(folder: Path) -> Recipe:
    """The recipe that a run folder was started with.

    Raises:
        AstreaError: no recipe there.
    """
    path = folder / RECIPE
    if not is_file(path):
        raise AstreaError(f"{path}: missing, so this is no run folder", "give the folder that `astrea train` wrote")
    return load_recipe(Recipe, str(path), saved=True)


def is_begun(folder: Path) -> bool:
    """Whether a run was started in the folder, so that it can be gone on with."""
    return is_file(folder / RECIPE)


def _locks(lock: FileLock, report: Reporter) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        report.say(f"{lock.lock_file}: this disk knows no locks; see to it that one run alone writes there")
    return True


def _tidy(folder: Path, known: set[str] | None) -> None:
    """Remove what a start has made, if nothing else is new; ``known``: what was there, None where no folder was."""
    with suppress(OSError):  # what cannot be removed does no harm
        new = {path.name for path in folder.iterdir()} - (known or set())
        log = folder / "train.jsonl"
        if new - STARTED or (log.exists() and log.stat().st_size):
            return
        for name in new:
            (folder / name).unlink()
        if known is None:
            folder.rmdir()
