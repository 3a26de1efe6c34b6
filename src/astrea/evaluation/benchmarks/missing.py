"""Files that a task needs and does not find, with hints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.paths import is_file, is_folder
from astrea.evaluation.benchmarks.suite import PublicTask, Wanted


@dataclass(frozen=True, slots=True)
class Found:
    """Where a task's files lie: ``files`` in the task's order, ``pictures`` the folder."""

    files: tuple[Path, ...]
    pictures: Path


def locate(task: PublicTask, data: Path) -> tuple[Found | None, tuple[Wanted, ...]]:
    """Where the task's files are, or None and which are not there."""
    places = [_place(wanted, data, folder=False) for wanted in task.files]
    pictures = _place(task.pictures, data, folder=True)
    missing = [wanted for wanted, place in zip(task.files, places, strict=True) if place is None]
    if pictures is None:
        missing.append(task.pictures)
    if missing or pictures is None:
        return None, tuple(missing)
    return Found(tuple(place for place in places if place is not None), pictures), ()


def describe(missing: Mapping[str, Sequence[Wanted]], data: Path) -> str:
    """One line for each missing file: the tasks that want it, where it belongs, what it is called officially."""
    wanted_by: dict[Wanted, list[str]] = {}
    for name, wanted in missing.items():
        for one in wanted:
            wanted_by.setdefault(one, []).append(name)
    return "\n".join(
        f"{' or '.join(str(data / path) for path in wanted.paths)}  [{wanted.official}]  for {', '.join(names)}"
        for wanted, names in wanted_by.items()
    )


def check_pictures(pictures: Iterable[Path]) -> None:
    """Whether all pictures are there, before hours are spent on the first of them.

    Raises:
        AstreaError: some are not; names the first, and how many of how many.
    """
    asked = dict.fromkeys(pictures)
    absent = [path for path in asked if not is_file(path)]
    if absent:
        raise AstreaError(
            f"{absent[0]} is missing ({len(absent):,} of {len(asked):,} pictures are)",
            "put all pictures of the split there, or evaluate the first ones with --limit",
        )


def _place(wanted: Wanted, data: Path, *, folder: bool) -> Path | None:
    for path in wanted.paths:
        if is_folder(data / path) if folder else is_file(data / path):
            return data / path
    return None
