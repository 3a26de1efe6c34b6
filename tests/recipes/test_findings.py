"""What a recipe says of findings: what is off where nothing is said, and what cannot be together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from astrea.common.errors import AstreaError
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Model, Recipe
from astrea.training.identity import config_hash


def tiny(*words: str) -> Recipe:
    return load_recipe(Recipe, "tiny", list(words))


@pytest.mark.parametrize("findings", ["phrases", "written"])
def test_words_are_left_as_they_are_where_nothing_is_said(findings):
    found = tiny(f"model.findings={findings}", "align.steps=0").model
    assert (found.word_match, found.mixer, found.reliability, found.gate) == (0, False, False, True)
    options = found.fusion()
    assert (options["word_match"], options["mixer"], options["trust"]) == (0, False, False)
    own = tiny(f"model.findings={findings}", "align.steps=0", "model.mixer=true", "model.reliability=true").model
    assert (own.mixer, own.reliability) == (True, True)


@pytest.mark.parametrize("findings", ["phrases", "written"])
def test_a_word_match_of_phrases_is_refused(findings):
    with pytest.raises(AstreaError, match=rf"'model.word_match' has no effect where 'model.findings' is {findings}"):
        tiny(f"model.findings={findings}", "model.word_match=4")
    assert tiny(f"model.findings={findings}", "model.word_match=0").model.word_match == 0
    with pytest.raises(ValidationError, match="there is none where findings enter as"):
        Model(findings=findings, word_match=4)


@pytest.mark.parametrize("words", [(), ("model.findings=written",), ("model.strategy=routed",)])
def test_only_phrases_are_dropped(words):
    with pytest.raises(AstreaError, match=r"'regularisation.phrase_dropout' has no effect where 'model.findings' is"):
        tiny(*words, "regularisation.phrase_dropout=0.5")
    found = tiny(*words, "model.findings=phrases", "regularisation.phrase_dropout=0.2")
    assert found.regularisation.phrase_dropout == 0.2


def test_what_a_base_says_for_its_findings_is_left_behind(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("base: tiny\nmodel: {findings: phrases}\nregularisation: {phrase_dropout: 0.2}\n")
    assert load_recipe(Recipe, str(base)).fuse.losses.reliability == 0
    plain = load_recipe(Recipe, str(base), ["model.findings=tokens"])
    assert plain.regularisation.phrase_dropout == 0.5
    assert plain.model == tiny().model


def test_a_concat_of_phrases_has_no_slots_of_its_own():
    concat = ("model.strategy=sequence_concat",)
    assert tiny(*concat).model.fusion() == {}
    assert tiny(*concat, "model.findings=phrases").model.fusion() == {"slot_embedding": False}
    own = tiny(*concat, "model.findings=phrases", "model.options={slot_embedding: true}")
    assert own.model.fusion() == {"slot_embedding": True}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("model.findings=phrases", "align.losses={caption_words: 1.0}"),
        ("model.findings=written", "model.mixer=true"),
        ("model.findings=phrases", "regularisation.phrase_dropout=0.1", "model.strategy=sequence_concat"),
    ],
)
def test_a_recipe_reads_back_as_it_was(words, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(dump_recipe(tiny(*words)))
    for saved in (True, False):
        again = load_recipe(Recipe, str(path), saved=saved)
        assert again.model == tiny(*words).model
        assert config_hash(again) == config_hash(tiny(*words))


def test_recipes_without_phrases_are_written_as_they_were_before_there_were_any():
    """Runs of earlier versions go on: what identifies a recipe has no key that they did not know."""
    written = tiny().model_dump()
    assert "findings" not in written["model"]
    assert "phrase_dropout" not in written["regularisation"]
    assert "caption_words" not in written["align"]["losses"]
    assert config_hash(tiny("model.findings=phrases")) != config_hash(tiny())
