"""Which world a model is measured in: its own, unless somebody names another recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import MAX_JSON_BYTES, read_json
from astrea.common.paths import is_file
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Data, Recipe, World

RECIPE = "recipe.json"
"""File in a model folder that says how the model was trained."""

BASE = "tiny"
ELSEWHERE = "name a recipe with --recipe"
TRAINING_ONLY = {"train", "images", "validation", "keep_best", "patience", "text_share"}
"""Keys of `Data` that say what a model was trained on and for how long: nothing that the world is tested by, and some
need other parts of its recipe."""


def measured_on(folder: Path, image_size: int, *, recipe: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe whose ``world`` and ``data`` a model is tested on; its other parts say nothing about the model.

    Args:
        folder: the model's. Its recipe decides; where it has none, the shipped one does, in pictures of the model's
            size.
        image_size: side of the model's pictures in pixels.
        recipe: name or file of a recipe that is used instead.
        overrides: changes to whichever it is, as on the command line.

    Raises:
        AstreaError: the model's recipe or the other one cannot be read, an override is none, or pictures of the world
            would be of another size than the model's.
    """
    given = own_settings(folder, image_size) if recipe is None else []
    loaded = load_recipe(Recipe, BASE if recipe is None else recipe, [*given, *overrides])
    if loaded.world.canvas != image_size:
        raise AstreaError(
            f"the world would be drawn in pictures of {loaded.world.canvas} pixels, the model looks at {image_size}",
            f"set world.canvas={image_size}",
        )
    return loaded


def own_settings(folder: Path, image_size: int) -> list[str]:
    """What a model folder says of its world, as changes to a recipe. Of all that stands in its recipe only this is
    read: the rest may be long, of another version, or not to be had here."""
    path = folder / RECIPE
    if not is_file(path):
        return [f"world.canvas={image_size}"]
    saved = read_json(path, MAX_JSON_BYTES)
    return [
        f"world={_part(World, saved.get('world', {}), path, 'world')}",
        f"data={_part(Data, saved.get('data', {}), path, 'data')}",
    ]


def learned_from_others(folder: Path) -> bool:
    """Whether a model folder says that the model was trained on data of somebody's own, and not on the world."""
    data = read_json(folder / RECIPE, MAX_JSON_BYTES).get("data") if is_file(folder / RECIPE) else None
    return isinstance(data, dict) and data.get("train") is not None


def _part(kind: type[BaseModel], value: object, path: Path, name: str) -> str:
    try:
        part = kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise AstreaError(f"{path}: {where!r}: {first['msg']}", ELSEWHERE) from error
    return json.dumps(part.model_dump(mode="json", exclude=TRAINING_ONLY, round_trip=True), ensure_ascii=False)
