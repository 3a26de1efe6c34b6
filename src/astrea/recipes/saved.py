"""The recipe that lies in a run's folder."""

from __future__ import annotations

from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.paths import is_file
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe

RECIPE = "recipe.yaml"


def read_recipe(folder: Path) -> Recipe:
    """The recipe that a run folder was started with.

    Raises:
        AstreaError: no recipe there.
    """
    path = folder / RECIPE
    if not is_file(path):
        raise AstreaError(f"{path}: missing, so this is no run folder", "give the folder that `astrea train` wrote")
    return load_recipe(Recipe, str(path), saved=True)
