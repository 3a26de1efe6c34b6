"""Which pictures the runs of an arena are measured on: the open test set, validation, or a sealed test set.

Settings are chosen on validation. A sealed test set is drawn by a seed that nobody has measured on, and its figures are
reported once: the result file names the seed, and a seed that a result file names is refused from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.paths import MOST_JSON, is_file, is_folder, list_folder, read_json, size_of
from astrea.recipes.recipe import World

TEST, VALIDATION = "test", "validation"


@dataclass(frozen=True)
class TestSet:
    """split: of the world. sealed: the seed that draws it; None = the world's own seed."""

    __test__ = False  # no test case, whatever pytest makes of the name

    split: str = TEST
    sealed: int | None = None

    @property
    def name(self) -> str:
        """Of its result file (before the ending); "arena" for the open test set."""
        if self.sealed is not None:
            return f"sealed-{self.sealed}"
        return "arena" if self.split == TEST else self.split

    @property
    def cells(self) -> str:
        """The folder of its runs."""
        return "cells" if self.name == "arena" else self.name

    @property
    def keeps_models(self) -> bool:
        """Whether trained models are kept: what validation has chosen is measured again on a sealed test set."""
        return self.name != "arena"

    def world(self, world: World) -> World:
        """The world whose split it is."""
        return world if self.sealed is None else world.model_copy(update={"seed": self.sealed})


OPEN = TestSet()


def refuse_used(test: TestSet, folder: Path, world: World) -> None:
    """Refuse a sealed seed that has been measured on.

    Args:
        folder: of the arena; result files are looked for in it and in the folders beside it. world: of the base recipe.

    Raises:
        AstreaError: the seed is that of the open test set, a result file names it, or a file that may be a result file
            cannot be read, so that nobody knows which seed it names.
    """
    if test.sealed is None:
        return
    hint = "draw another: a sealed test set is measured on once"
    if test.sealed == world.seed:
        raise AstreaError(f"--sealed {test.sealed}: the open test set is drawn by this seed", hint)
    parent = folder.absolute().parent
    beside = [each for each in list_folder(parent) if is_folder(each)] if is_folder(parent) else []
    for place in dict.fromkeys([folder.absolute(), *beside]):
        for path in (one for one in (list_folder(place) if is_folder(place) else []) if one.suffix == ".json"):
            if _sealed_by(path, test.sealed) == test.sealed:
                raise AstreaError(f"--sealed {test.sealed}: {path} was measured on the test set of this seed", hint)


def _sealed_by(path: Path, asked: int) -> object:
    """The sealed seed that a result file names; None for other files.

    Raises:
        AstreaError: it cannot be read.
    """
    if not is_file(path) or size_of(path) > MOST_JSON:  # no result file is this large, but annotations of pictures are
        return None
    try:
        found = read_json(path)
    except AstreaError as error:
        raise AstreaError(
            f"--sealed {asked}: {error.message}; it may be the result of a measurement on the test set of this seed",
            "restore the file, or move it out of the arena's folder and of the folders beside it if it is no result",
        ) from error
    return found.get("sealed") if isinstance(found, dict) else None
