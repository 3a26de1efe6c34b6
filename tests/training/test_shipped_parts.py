"""The parts that ship with the package: whole, small, what their card says, and fit for the tiny recipe."""

from astrea.common.files import sha256_file
from astrea.model.components import BUNDLED, read_card
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.world.dataset import scenes_of
from astrea.world.evaluation.experts import expert_scores


def test_the_card_names_every_file_and_all_are_small():
    card = read_card(BUNDLED)
    files = {path.stem: path for path in BUNDLED.glob("*.safetensors")}
    assert set(files) == set(card["sha256"])
    assert {name: sha256_file(path) for name, path in files.items()} == card["sha256"]
    assert sum(path.stat().st_size for path in files.values()) <= 8 * 2**20
    assert card["ground_truth_accuracy"]["mean"] >= card["pretraining"]["gate"]


def test_the_shipped_experts_know_their_trade():
    recipe = load_recipe(Recipe, "tiny")
    model, _ = assemble(recipe, BUNDLED)
    scores, by_condition = expert_scores(model.experts, list(scenes_of("validation", 60, recipe.world)))
    assert scores["detection"]["AP50"] > 85
    assert scores["segmentation"]["mIoU"] > 75
    assert scores["classification"]["mAP"] > 90
    assert scores["captioning"]["word_accuracy"] > 85
    assert set(by_condition) == set(scores)
