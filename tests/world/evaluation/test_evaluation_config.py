from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.based import shipped_recipes
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Data, Recipe, World
from astrea.world.evaluation import config
from astrea.world.evaluation.config import learned_from_others

TINY = load_recipe(Recipe, "tiny")
OWN = ["world.canvas=96", "world.difficulty=0.1", "world.seed=3", "data.test_questions=7", "data.train_scenes=12"]


def measured_on(*given: Any, **more: Any) -> tuple[World, Data]:
    """What counts of the recipe: its world, and how much of it."""
    recipe = config.measured_on(*given, **more)
    return recipe.world, recipe.data


def trained(folder: Path, recipe: Any) -> Path:
    (folder / "recipe.json").write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return trained(tmp_path, load_recipe(Recipe, "tiny", OWN).model_dump())


def test_a_models_own_recipe_decides(model: Path):
    world, data = measured_on(model, 96)
    assert world == World(canvas=96, difficulty=0.1, seed=3)
    assert data == TINY.data.model_copy(update={"test_questions": 7, "train_scenes": 12})


def test_overrides_change_it(model: Path):
    world, data = measured_on(model, 96, overrides=["world.difficulty=0.9", "data.test_captions=2"])
    assert world == World(canvas=96, difficulty=0.9, seed=3)
    assert (data.test_questions, data.test_captions) == (7, 2)


def test_another_recipe_may_be_named(model: Path):
    assert measured_on(model, 64, recipe="tiny") == (TINY.world, TINY.data)
    assert measured_on(model, 96, recipe="tiny", overrides=["world.canvas=96"])[0] == World(canvas=96)


def test_without_a_recipe_it_is_the_shipped_one_in_the_models_pictures(tmp_path: Path):
    assert measured_on(tmp_path, 96) == (World(canvas=96), TINY.data)
    assert measured_on(Path("shipped"), 64) == (TINY.world, TINY.data)


def test_what_else_the_recipe_says_need_not_be_understood_here(tmp_path: Path):
    world = {"canvas": 96}
    data = {"train": "my 😀 data.jsonl", "images": "/nowhere", "test_questions": 3}
    told = {"world": world, "data": data, "experts": {"eye": {"kind": "nobody:Knows"}}, "invented": [1] * 20_000}
    assert measured_on(trained(tmp_path, told), 96) == (World(canvas=96), Data(test_questions=3))
    assert measured_on(trained(tmp_path, {}), 64) == (World(), Data())


@pytest.mark.parametrize("validation", [0.1, "held-out.jsonl"])
def test_a_model_of_other_data_is_known_and_still_measured_where_it_is_asked_for(tmp_path: Path, validation: Any):
    told = {"data": {"train": "mine.jsonl", "validation": validation, "keep_best": True, "patience": 3}}
    folder = trained(tmp_path, told)
    assert learned_from_others(folder)
    assert measured_on(folder, 64) == (World(), Data())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_model_of_any_shipped_recipe_is_measured_in_its_world(tmp_path: Path, name: str):
    recipe = load_recipe(Recipe, name)
    world, data = measured_on(trained(tmp_path, recipe.model_dump(mode="json")), recipe.world.canvas)
    assert world == recipe.world
    assert (data.test_questions, data.train_scenes) == (recipe.data.test_questions, recipe.data.train_scenes)


def test_a_model_of_the_world_is_known(model: Path, tmp_path: Path):
    assert not learned_from_others(model)
    assert not learned_from_others(tmp_path / "none")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"world": {"canvas": 5000}}, "'world.canvas'"),
        ({"world": {"canvass": 64}}, "'world.canvass'"),
        ({"world": [1]}, "'world'"),
        ({"data": None}, "'data'"),
        ({"data": {"test_questions": "many"}}, "'data.test_questions'"),
        ("[1]", "instead of an object"),
        ("{", "not valid JSON"),
    ],
)
def test_a_bad_recipe_is_named_with_its_key(tmp_path: Path, recipe: Any, said: str):
    with pytest.raises(AstreaError) as caught:
        measured_on(trained(tmp_path, recipe), 64)
    assert str(tmp_path / "recipe.json") in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint


def test_an_endless_recipe_is_not_read(tmp_path: Path):
    with (tmp_path / "recipe.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(AstreaError, match=r"recipe\.json has 1,073,741,824 bytes"):
        measured_on(tmp_path, 64)


def test_pictures_of_another_size_than_the_models_are_refused(model: Path):
    for size, more in ((64, {}), (96, {"recipe": "tiny"}), (96, {"overrides": ["world.canvas=64"]})):
        with pytest.raises(AstreaError, match="the model looks at") as caught:
            measured_on(model, size, **more)
        assert caught.value.hint == f"set world.canvas={size}"


def test_overrides_are_checked(model: Path):
    with pytest.raises(AstreaError, match=r"data\.test_question"):
        measured_on(model, 96, overrides=["data.test_question=3"])
