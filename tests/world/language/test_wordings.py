"""New words for paraphrases: what was known keeps its ids and logits, other spellings read as the world's."""

from __future__ import annotations

import copy

import pytest
import torch

from astrea.world.language.tiny import tiny_tokenizer
from astrea.world.language.wordings import SPELLINGS, learn_wordings, respelled
from astrea.world.scenes.paraphrases import PARAPHRASES, paraphrase_texts
from astrea.world.scenes.templates import WORDINGS


@pytest.fixture(scope="module")
def learned(tiny_model):
    model = copy.deepcopy(tiny_model)
    return model, learn_wordings(model, tiny_tokenizer())


def test_every_learned_wording_is_whole_words(learned):
    _, tokenizer = learned
    for text in [*paraphrase_texts(), "none", "cannot tell"]:
        assert not [piece for piece in tokenizer.tokenize(text) if piece.startswith("##") and piece != "##s"], text


def test_what_was_known_keeps_its_ids(learned):
    _, tokenizer = learned
    before = tiny_tokenizer()
    for texts in WORDINGS.values():
        for text in texts:
            assert tokenizer(text).input_ids == before(text).input_ids
    assert {word: tokenizer.get_vocab()[word] for word in before.get_vocab()} == before.get_vocab()


def test_the_model_has_a_row_for_each_and_says_the_same_as_before(learned, tiny_model):
    model, tokenizer = learned
    known = len(tiny_tokenizer())
    words = model.get_input_embeddings().weight
    assert len(words) == len(tokenizer) == model.config.text_config.vocab_size > known
    assert torch.equal(words[:known], tiny_model.get_input_embeddings().weight)
    ids = tokenizer("is there a cat?", return_tensors="pt").input_ids
    with torch.no_grad():
        one, two = tiny_model(input_ids=ids).logits, model(input_ids=ids).logits
    torch.testing.assert_close(two[..., :known], one)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("What color is the plane?", "what colour is the airplane?"),
        ("what's the gray phone", "what is the grey telephone"),
        ("COLORS of yin-yang symbols", "colours of yinyang symbols"),
        ("planet colorful grayish", "planet colorful grayish"),
    ],
)
def test_other_spellings(written, meant):
    tokenizer = respelled(tiny_tokenizer())
    assert tokenizer.tokenize(written) == tiny_tokenizer().tokenize(meant)


def test_other_spellings_survive_saving(tmp_path):
    from transformers import AutoTokenizer

    respelled(tiny_tokenizer()).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.tokenize("color") == ["colour"]
    assert loaded.chat_template == tiny_tokenizer().chat_template


def test_what_spellings_mean_is_known_or_a_word_of_paraphrases(learned):
    _, tokenizer = learned
    said = {word for meant in SPELLINGS.values() for word in meant.split()} - {"grey"}
    assert all(len([p for p in tokenizer.tokenize(word) if p != "##s"]) == 1 for word in said)
    assert PARAPHRASES.keys() == WORDINGS.keys()
