"""A language model that was trained elsewhere keeps what it knows: what is put around it changes no plain sentence."""

from __future__ import annotations

import pytest
import torch

from astrea.language.attention import WARMED_UP
from astrea.language.checkpoint import trained_word_match
from astrea.language.defaults import WORD_MATCH
from astrea.language.plain import SENTENCES
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import LanguageModel, Recipe
from astrea.training.assembly import assemble_with_reference, untrained_word_match
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer
from shared_models import SMALL


@pytest.fixture(scope="module")
def around(language_checkpoint):
    """The recipe around a family's language model, and changes of it."""

    def recipe(family: str, *overrides: str) -> Recipe:
        return load_recipe(Recipe, "tiny", [*SMALL, f"llm.checkpoint={language_checkpoint(family)}", *overrides])

    return recipe


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama_tied", ["llm.low_rank.rank=4"]),  # rows of its table that nobody used become tokens
        ("llama", ["llm.attention=sdpa", "model.word_match=16"]),
        ("gemma3", []),  # embeddings that are scaled, windows
        ("gpt2", ["llm.dtype=bfloat16"]),  # positions that are learned, a table that grows
    ],
)
def test_assembling_changes_no_plain_sentence(around, family, overrides):
    made = assemble_with_reference(around(family, *overrides), None)
    retention = made.retention()
    assert retention.equal
    assert retention.sentences == len(SENTENCES)
    assert retention.tokens > 5 * retention.sentences
    assert retention.same == 1.0 or made.model.embedding_table().dtype == torch.bfloat16
    assert retention.surprise_after == pytest.approx(retention.surprise_before, abs=2e-2)
    assert "as it did before" in retention.sentence()


def test_what_has_changed_is_measured(around):
    made = assemble_with_reference(around("llama"), None)
    layer = made.model.language_model.get_submodule("model.layers.0.mlp.down_proj")
    with torch.no_grad():
        layer.weight.mul_(-1)
    retention = made.retention()
    assert not retention.equal
    assert retention.same < 1
    assert retention.moved > 1e-3
    assert retention.surprise_after != pytest.approx(retention.surprise_before, abs=1e-4)
    assert "differently" in retention.sentence()


def test_fresh_weights_have_nothing_to_keep(around):
    assert assemble_with_reference(around("llama", "model.pretrained_llm=false"), None).retention() is None
    assert assemble_with_reference(load_recipe(Recipe, "tiny", SMALL), None).retention() is None


def test_no_word_match_unless_the_language_model_was_warmed_up_with_it(around):
    own = load_recipe(Recipe, "tiny", SMALL)
    assert own.model.word_match == WORD_MATCH
    foreign = around("llama")
    assert foreign.model.word_match == 0
    assert assemble_with_reference(foreign, None).model.fusion.word_match is None
    assert load_recipe(Recipe, "tiny", ["llm.architecture={model_type: llama}"]).model.word_match == 0
    assert all(load_recipe(Recipe, name).model.word_match == 0 for name in ("small", "base", "large"))
    # A run's own copy of its recipe says what it was.
    assert "word_match: 0.0" in dump_recipe(foreign)


def test_whoever_asks_for_it_is_warned(around):
    asked = around("llama", "model.word_match=4")
    model = assemble_with_reference(asked, None).model
    assert model.fusion.word_match is not None
    warning = untrained_word_match(asked, model.config.text_config)
    assert warning is not None
    assert "model.word_match=0" in warning
    assert untrained_word_match(around("llama"), model.config.text_config) is None
    setattr(model.config.text_config, WARMED_UP, 16.0)
    assert untrained_word_match(asked, model.config.text_config) is None


def test_the_language_model_built_here_says_that_it_was(tmp_path):
    model = tiny_language_model(LanguageModel(width=32, layers=1, heads=2, feed_forward=32), tiny_tokenizer())
    model.config.save_pretrained(tmp_path)
    assert trained_word_match(type(model.config).from_pretrained(tmp_path)) == WORD_MATCH
