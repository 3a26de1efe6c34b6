"""A run's folder: one process at a time writes into it, and a run that fails at its start leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic
from astrea.common.folder_lock import LOCK, acquire, in_use
from astrea.common.paths import file_guard, is_file, is_folder, list_folder
from astrea.common.progress import SILENT, Reporter
from astrea.recipes.loader import dump_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import RECIPE
from astrea.training.distributed import SINGLE, Distributed
from astrea.training.resume import MARK

STARTED = {LOCK, RECIPE, MARK, "language.json", "chat.json", "chat.partial.json", "train.jsonl"}
"""Files that a run has made before it has learned anything."""


@contextmanager
def locked_folder(
    folder: Path, *, ranks: Distributed = SINGLE, report: Reporter = SILENT, leaves_lock: bool = True
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
        alone = acquire(lock, report) if ranks.is_main else True
    if not ranks.from_leader(int(alone)):
        raise in_use(folder)
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


def is_begun(folder: Path) -> bool:
    """Whether a run was started in the folder, so that it can be gone on with."""
    return is_file(folder / RECIPE)


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
