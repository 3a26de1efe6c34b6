"""Keys of the drawn world for crowded pictures: what is refused, and that a world without them is known as before."""

from __future__ import annotations

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, World

CROWDED = ("world.canvas=256", "world.object_canvas=64", "world.min_objects=20", "world.max_objects=40")


def test_a_crowded_world_is_read_and_written():
    recipe = load_recipe(Recipe, "tiny", CROWDED)
    assert recipe.world.model_dump() == {
        "canvas": 256, "difficulty": 0.5, "max_objects": 40, "seed": 0, "min_objects": 20, "object_canvas": 64,
    }  # fmt: skip
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_a_world_that_says_nothing_of_it_is_written_as_before():
    assert World().model_dump() == {"canvas": 64, "difficulty": 0.5, "max_objects": 6, "seed": 0}
    assert "min_objects" not in World(kind="other").model_dump()


@pytest.mark.parametrize(
    ("wrong", "key", "says"),
    [
        (("world.max_objects=9",), "max_objects", "room for 8 pictograms"),
        (("world.canvas=128", "world.object_canvas=64", "world.max_objects=33"), "max_objects", "room for 32"),
        ((*CROWDED, "world.max_objects=41"), "max_objects", "40"),
        (("world.min_objects=7",), "min_objects", "more than max_objects, which is 6"),
        (("world.object_canvas=128",), "object_canvas", "128 pixels on one of 64"),
        (("world.object_canvas=40",), "object_canvas", "48"),
        (("world.kind=photographs", "world.min_objects=2"), "world", "min_objects is of the drawn world"),
    ],
)
def test_what_there_is_no_room_for_is_refused(wrong, key, says):
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, "tiny", wrong)
    assert key in caught.value.message
    assert says in caught.value.message + caught.value.hint
