"""From a recipe back to the words of the command line that make it."""

from __future__ import annotations

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.changes import changes_from
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=3", "tune.steps=9000", "tune.lr=0.0003"],
        ["name=mine", 'pretrain="a folder"', "pretraining.min_accuracy=0.5"],
        ["experts.captioning=null"],
        ["experts.segmentation.options.threshold=0.05"],
        ['experts.more={"kind": "detection", "options": {}}'],
        ["model.strategy=average"],
        ["model.strategy=mova", 'model.options={"top": 2}', "tune.lr=0.0003"],
        ['tune.train=["adapters", "fusion"]'],
    ],
)
def test_the_changes_are_the_words_that_were_said(words):
    recipe = load_recipe(Recipe, "tiny", words)
    said = changes_from("tiny", recipe)
    assert sorted(said) == sorted(words)
    assert load_recipe(Recipe, "tiny", said) == recipe


def test_a_new_mapping_where_there_was_none():
    taught = 'distill={"student": "student", "teachers": {"detection": {"kind": "detection"}}}'
    recipe = load_recipe(Recipe, "tiny", [taught, "experts.student.kind=student"])
    assert load_recipe(Recipe, "tiny", changes_from("tiny", recipe)) == recipe


def test_an_order_that_no_words_can_say():
    recipe = load_recipe(Recipe, "tiny")
    turned = recipe.model_copy(update={"experts": dict(reversed(recipe.experts.items()))})
    with pytest.raises(AstreaError, match="no KEY=VALUE words"):
        changes_from("tiny", turned)
