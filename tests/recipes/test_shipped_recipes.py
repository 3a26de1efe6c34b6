"""The recipes around public checkpoints: complete, pinned, and true to what the checkpoints are known to hold."""

from __future__ import annotations

import re

import pytest
import torch

from astrea.common.config_only import read_architecture
from astrea.common.errors import AstreaError
from astrea.estimate.build import fake_model
from astrea.language.low_rank import is_adapter
from astrea.recipes.check import amiss
from astrea.recipes.loader import load_recipe, load_with_origins, shipped_recipes
from astrea.recipes.recipe import Recipe

LARGER = ("small", "base", "large")
KNOWN = {
    # The file holds the decoder's table of words twice.
    "captioning": (1_879_014_680, 30_524 * 768),
    "segmentation": (15_036_944, 0),
    # The file holds the heads of its three layers once; here they are kept apart.
    "detection": (80_904_640, -3 * (2 * (256 * 256 + 256) + 256 * 4 + 4 + 256 * 80 + 80)),
}
"""Of `small`: bytes of the published model.safetensors, and float32 values that it holds and the expert does not."""
LANGUAGE = {"small": 0.60e9, "base": 1.72e9, "large": 8.19e9}
"""Parameters as the models' cards state them, tied tables counted once."""


def test_they_are_listed_and_offered():
    assert {"tiny", *LARGER} <= set(shipped_recipes())
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, "smal")
    assert "'small'" in caught.value.hint
    assert "large" in caught.value.hint


def test_neutral_is_tiny_from_other_parts_and_without_the_word_match_that_they_never_met():
    tiny, neutral = load_recipe(Recipe, "tiny"), load_recipe(Recipe, "neutral")
    assert tiny.pretrain == "shipped"
    model = tiny.model.model_copy(update={"word_match": 0.0})
    assert neutral == tiny.model_copy(update={"name": "neutral", "pretrain": "shipped-neutral", "model": model})
    assert amiss(neutral, load_with_origins(Recipe, "neutral")[1]) == []
    # What turns word match off itself is no contradiction of the base.
    for word in ("model.findings=phrases", "model.strategy=sequence_concat"):
        assert load_recipe(Recipe, "neutral", [word, "align.steps=0"]).pretrain == "shipped-neutral"


@pytest.mark.parametrize("name", LARGER)
def test_every_checkpoint_is_pinned_and_described(name):
    recipe = load_recipe(Recipe, name)
    assert recipe.name == name
    assert {entry.kind for entry in recipe.experts.values()} == {
        "captioning", "classification", "segmentation", "detection",
    }  # fmt: skip
    for part in (*recipe.experts.values(), recipe.llm):
        assert re.fullmatch(r"[\w-]+/[\w.-]+", part.checkpoint)
        assert re.fullmatch(r"[0-9a-f]{40}", part.revision)
        assert part.architecture["model_type"]
        read_architecture(part.architecture, "it")


@pytest.mark.parametrize("name", LARGER)
def test_they_keep_what_their_language_model_knows(name):
    """What was trained with words as tokens and a word match is for the model built here."""
    recipe = load_recipe(Recipe, name)
    assert recipe.model.word_match == 0
    assert recipe.model.findings == "phrases"
    assert recipe.data.text_share == 0.05
    assert (recipe.llm.low_rank is not None) == (name == "small")
    # No loss of align reads what the language model says of captions.
    assert {loss for loss, weight in recipe.align.losses.weights.items() if weight} == {"caption_words", "agree"}
    assert load_recipe(Recipe, "tiny").data.text_share == 0


@pytest.mark.parametrize("name", LARGER)
def test_they_are_built_without_memory_at_their_published_size(name):
    recipe = load_recipe(Recipe, name)
    model, _ = fake_model(recipe)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    count = sum(value.numel() for name, value in model.language_model.named_parameters() if not is_adapter(name))
    assert count == pytest.approx(LANGUAGE[name], rel=0.01)
    assert {parameter.dtype for parameter in model.language_model.parameters()} == {torch.float32}
    for expert, entry in recipe.experts.items():
        assert model.experts[expert].num_tokens == entry.options["tokens"]


def test_the_experts_of_small_are_as_large_as_their_files():
    model, _ = fake_model(load_recipe(Recipe, "small"))
    for name, (size, more) in KNOWN.items():
        network = model.experts[name].model
        held = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))
        assert held == pytest.approx(size / 4 - more, rel=2e-3), name  # but for the file's own header
    assert model.experts["scene"].preprocess.side == (224, 224)
    assert model.experts["captioning"].preprocess.side == (384, 384)
    assert len(model.experts["segmentation"].class_names) == 150
    assert len(model.experts["detection"].class_names) == 80


def test_without_a_network_training_says_what_is_missing(monkeypatch):
    import huggingface_hub

    from astrea.training.assembly import assemble

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(AstreaError, match="expert 'captioning': the checkpoint Salesforce/") as caught:
        assemble(load_recipe(Recipe, "small"), None)
    assert "download it and give the folder" in caught.value.hint
