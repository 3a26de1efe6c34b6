"""A vocabulary that grows: old words keep their ids and rows, new ones start as what they were."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from astrea.language.new_words import grow_words, grown_tokenizer, in_known_words
from astrea.recipes.recipe import LanguageModel
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer
from astrea.world.scenes.questions import text_vocabulary
from astrea.world.scenes.vocabulary import KINDS

LABELS = ("tabby", "Egyptian cat", "catamaran", None, "space shuttle", "potter's wheel", "umbrellas", "red", "Tabby")
NEW = ["tabby", "egyptian", "catamaran", "space", "shuttle", "potter", "wheel"]


@pytest.fixture(scope="module")
def old() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def grown(old) -> PreTrainedTokenizerFast:
    return grown_tokenizer(old, LABELS)[0]


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def test_new_words_come_last_and_in_order(old, grown):
    known = [word for word in NEW if word in old.get_vocab()]
    assert known == []
    assert [ids(grown, word) for word in NEW] == [[len(old) + number] for number in range(len(NEW))]
    assert len(grown) == len(old) + len(NEW)


def test_whatever_the_world_says_keeps_its_ids(old, grown):
    texts = [*text_vocabulary(), *(f"two {kind.plural} and the {kind.name}, it {kind.fact}." for kind in KINDS)]
    assert [ids(grown, text) for text in texts] == [ids(old, text) for text in texts]
    for word, number in old.get_vocab().items():
        assert grown.get_vocab()[word] == number


def test_special_tokens_and_chat_stay(old, grown):
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    asked = [t.apply_chat_template(chat, add_generation_prompt=True, tokenize=True) for t in (old, grown)]
    assert asked[0]["input_ids"] == asked[1]["input_ids"]
    assert (grown.pad_token_id, grown.eos_token_id) == (old.pad_token_id, old.eos_token_id)
    assert grown.padding_side == old.padding_side


def test_it_can_be_saved_and_grows_again(grown, tmp_path):
    grown.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.get_vocab() == grown.get_vocab()
    again, pieces = grown_tokenizer(loaded, ["tabby", "lynx"])
    assert list(pieces) == ["lynx"]
    assert ids(again, "tabby") == ids(grown, "tabby")
    assert ids(again, "<image>") == ids(grown, "<image>")


def test_nothing_new_is_nothing_done(old):
    same, pieces = grown_tokenizer(old, ["red", "umbrellas", None])
    assert same is old
    assert pieces == {}


def test_a_tokenizer_of_another_make_stays_as_it_is():
    letters = {letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(letters, [])))
    same, pieces = grown_tokenizer(other, ["tabby"])
    assert same is other
    assert pieces == {}


def test_rows_start_as_the_mean_of_their_pieces(old):
    torch.manual_seed(0)
    model = tiny_language_model(LanguageModel(width=32, layers=1, heads=2, feed_forward=32), old)
    before = model.get_input_embeddings().weight.detach().clone()
    _, pieces = grown_tokenizer(old, LABELS)
    grow_words(model, len(old), pieces)
    after = model.get_input_embeddings().weight
    assert torch.equal(after[: len(old)], before)
    assert len(after) == len(old) + len(NEW) == model.config.vocab_size
    torch.testing.assert_close(after[len(old)], before[ids(old, "tabby")].mean(0))
    assert model.get_output_embeddings().weight is after  # tied, as they were


def test_an_output_layer_of_its_own_grows_too(old):
    torch.manual_seed(0)
    model = tiny_language_model(LanguageModel(width=32, layers=1, heads=2, feed_forward=32), old)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    before = model.lm_head.weight.detach().clone()
    _, pieces = grown_tokenizer(old, LABELS)
    grow_words(model, len(old), pieces)
    assert torch.equal(model.lm_head.weight[: len(old)], before)
    torch.testing.assert_close(model.lm_head.weight[len(old)], before[ids(old, "tabby")].mean(0))


@pytest.mark.parametrize(
    ("label", "read"),
    [
        ("Egyptian cat", "cat"),
        ("red cup", "red cup"),
        ("great white shark", "great white shark"),  # "white" alone would be another thing
        ("tabby", "tabby"),
        ("potter's wheel", "potter's wheel"),
        ("Model T", "Model T"),
        (None, None),
    ],
)
def test_a_name_whose_noun_is_known_is_read_by_its_known_words(old, label, read):
    grown, pieces = grown_tokenizer(old, [label, "Egyptian", "shark", "great"])
    assert in_known_words(label, grown, pieces) == read
