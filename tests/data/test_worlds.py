"""Worlds by name: the drawn one, and one from another package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT
from astrea.data.worlds import World, open_world
from astrea.recipes import recipe as recipes
from astrea.world.drawn import DrawnWorld
from small_runs import small_run


class Album(World):
    """A world of another package."""

    def training_data(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def learn_confidence(self, *args: Any) -> None:
        return None

    def evaluate(self, *args: Any, **options: Any) -> dict[str, Any]:
        return {}


def test_a_recipe_names_its_world() -> None:
    assert type(open_world(small_run())) is DrawnWorld
    options = {"folder": "pictures"}
    world = open_world(small_run(world={"kind": f"{__name__}:Album", "options": options}))
    assert type(world) is Album
    assert world.recipe.world.options == options


def test_what_a_world_cannot_do_is_an_error(tmp_path: Path) -> None:
    world = open_world(small_run(world={"kind": f"{__name__}:Album"}))
    with pytest.raises(AstreaError, match="nothing can be pretrained"):
        world.pretrain(tmp_path, report=SILENT)
    with pytest.raises(AstreaError, match="unknown world 'moon'"):
        open_world(small_run(world={"kind": "moon"}))
    with pytest.raises(AstreaError, match="no subclass"):
        open_world(small_run(world={"kind": "pathlib:Path"}))


def test_settings_belong_to_their_world() -> None:
    """A key without effect is an error; the drawn world's recipes are written as before there were others."""
    with pytest.raises(ValidationError, match="difficulty is of the drawn world"):
        recipes.World(kind="moon", difficulty=0.1)
    with pytest.raises(ValidationError, match="'folder' is no setting"):
        recipes.World(options={"folder": "x"})
    assert recipes.World().model_dump() == {"canvas": 64, "difficulty": 0.5, "max_objects": 6, "seed": 0}
    assert recipes.World(kind="moon").model_dump() == {"kind": "moon", "canvas": 64, "seed": 0, "options": {}}
