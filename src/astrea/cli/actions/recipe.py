"""What recipe show and recipe new do. Both import no torch: see `recipe_check` for what has to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic
from astrea.common.installation import PHOTO_MODEL, SHIPPED_PHOTO_NAME
from astrea.common.output import out, print_path
from astrea.common.paths import exists, file_guard, is_file, is_folder
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.new import new_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import RECIPE


def show(recipe: str, overrides: Sequence[str]) -> None:
    """Print a whole recipe."""
    if recipe == SHIPPED_PHOTO_NAME and is_folder(PHOTO_MODEL):
        recipe = str(PHOTO_MODEL)
    sys.stdout.write(dump_recipe(load_recipe(Recipe, file_of(recipe), overrides, saved=is_folder(recipe))))


def new(path: Path, base: str, *, data: str, images: str | None, validation: str | None) -> None:
    """Write a small recipe with comments."""
    if exists(path):
        raise AstreaError(f"{path} is there already", "choose another name, or remove it yourself")
    recipe = load_recipe(Recipe, base)
    text = new_recipe(
        str(path), base, path.stem or "mine", train=data, images=images, validation=validation, recipe=recipe
    )
    with file_guard(path):
        write_atomic(path, text.encode())
    print_path("recipe", path)
    out.print(f"train it with: astrea train {path}", highlight=False, soft_wrap=True)


def file_of(recipe: str) -> str:
    """The recipe in a run's or a model's folder; anything else as it is."""
    if not is_folder(recipe):
        return recipe
    for name in (RECIPE, "recipe.json"):
        if is_file(Path(recipe, name)):
            return str(Path(recipe, name))
    raise AstreaError(f"{recipe} is a folder without a recipe", "give a recipe's name or file, or a run's folder")
