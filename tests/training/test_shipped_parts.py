"""The parts that ship with the package: whole, small, what their cards say, and fit for the recipes that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from astrea.common.files import sha256_file
from astrea.model.components import BUNDLED, LANGUAGE, NEUTRAL, components_folder, read_card
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.world.dataset import scenes_of
from astrea.world.evaluation.experts import expert_scores
from astrea.world.pretrain import neutral_perplexity


def files(folder: Path) -> dict[str, str]:
    """The sha256 of every part in a folder."""
    return {path.stem: sha256_file(path) for path in folder.glob("*.safetensors")}


def test_the_card_names_every_file_and_all_are_small():
    card = read_card(BUNDLED)
    assert files(BUNDLED) == card["sha256"]
    assert sum(path.stat().st_size for path in BUNDLED.glob("*.safetensors")) <= 8 * 2**20
    assert card["ground_truth_accuracy"]["mean"] >= card["pretraining"]["gate"]


def test_the_neutral_language_model_has_no_experts_of_its_own():
    card = read_card(NEUTRAL)
    assert {path.name for path in NEUTRAL.iterdir()} == {f"{LANGUAGE}.safetensors", "card.json"}
    assert files(BUNDLED) | files(NEUTRAL) == card["sha256"]
    assert files(NEUTRAL)[LANGUAGE] != files(BUNDLED)[LANGUAGE]
    assert sum(path.stat().st_size for path in NEUTRAL.iterdir()) <= 4 * 2**20
    assert (card["pretraining"]["llm"]["text"], card["ground_truth_accuracy"]) == ("sentences", None)


def test_a_recipe_names_either_and_gets_the_same_experts():
    tiny, neutral = load_recipe(Recipe, "tiny"), load_recipe(Recipe, "neutral")
    folders = [components_folder(recipe.pretrain) for recipe in (tiny, neutral)]
    assert folders == [BUNDLED, NEUTRAL]
    one, two = (
        assemble(recipe, folder)[0].state_dict() for recipe, folder in zip((tiny, neutral), folders, strict=True)
    )
    experts = [name for name in one if name.startswith("model.experts.")]
    assert experts
    assert all(one[name].equal(two[name]) for name in experts)
    table = "model.language_model.embed_tokens.weight"
    assert not one[table].equal(two[table])


@pytest.mark.slow
def test_the_neutral_language_model_reads_sentences_as_well_as_its_card_says():
    assert neutral_perplexity(
        load_recipe(Recipe, "tiny", ["pretraining.llm.text=sentences"]), NEUTRAL
    ) == pytest.approx(read_card(NEUTRAL)["sentence_perplexity"], rel=0.01)


def test_the_shipped_experts_know_their_trade():
    recipe = load_recipe(Recipe, "tiny")
    model, _ = assemble(recipe, BUNDLED)
    scores, by_condition = expert_scores(model.experts, list(scenes_of("validation", 60, recipe.world)))
    assert scores["detection"]["AP50"] > 85
    assert scores["segmentation"]["mIoU"] > 75
    assert scores["classification"]["mAP"] > 90
    assert scores["captioning"]["word_accuracy"] > 85
    assert set(by_condition) == set(scores)
