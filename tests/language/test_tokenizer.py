"""The word-level tokenizer: every word of the world is one token, nothing in ASCII is lost."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.data.packing import CAPTION_PROMPT
from astrea.language.tokenizer import ASSISTANT, BOS, EOS, IMAGE, PAD, UNK, USER, build_tokenizer
from astrea.world.experts.compact import COMPACT
from astrea.world.language.tiny import tiny_tokenizer
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import candidates, text_vocabulary, tokens

TOKENIZER = tiny_tokenizer()
WORDS = text_vocabulary()


def pieces(text: str) -> list[str]:
    return TOKENIZER.convert_ids_to_tokens(TOKENIZER(text, add_special_tokens=False).input_ids)


def spoken(text: str) -> str:
    return TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False).input_ids)


def whole(word: str) -> list[str]:
    """One token; a plural of a known word is that word and its ending."""
    stem = word.removesuffix("s")
    return [stem, "##s"] if stem != word and len(stem) > 1 and stem in WORDS else [word]


def test_every_word_of_the_world_is_one_token():
    assert len(WORDS) > 150
    for word in WORDS:
        assert pieces(word) == whole(word)
    for expert in COMPACT.values():
        for label in filter(None, expert.labels):
            assert pieces(label) == [label]


def test_questions_answers_and_captions_are_whole_words():
    for index in range(40):
        scene = split_scene("test", index, 5)
        asked = candidates(scene, random.Random(index))
        texts = [q.text for q in asked] + [q.answer for q in asked] + captions(scene, 3) + [CAPTION_PROMPT]
        for text in texts:
            assert pieces(text) == [piece for token in tokens(text) for piece in whole(token)]
            assert tokens(spoken(text)) == tokens(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([w for w in WORDS if w.isalnum()]), min_size=1, max_size=8))
def test_words_come_back(words):
    text = " ".join(words)
    assert spoken(text) == text


def test_captions_come_back_letter_by_letter():
    for index in range(20):
        for text in captions(split_scene("test", index, 0), 3):
            assert spoken(text) == text


@settings(max_examples=100, deadline=None)
@given(st.text(string.ascii_letters + string.digits, min_size=1, max_size=60))
def test_any_ascii_word_falls_to_letters_and_is_not_lost(word):
    ids = pieces(word)
    assert UNK not in ids
    assert "".join(piece.removeprefix("##") for piece in ids) == word.lower()
    assert spoken(word) == word.lower()


@settings(max_examples=100, deadline=None)
@given(st.text(string.printable, max_size=30))
def test_no_ascii_text_has_an_unknown_piece(text):
    if "<" not in text:
        ids = pieces(text)
        assert UNK not in ids
        assert "".join(p.removeprefix("##") for p in ids) == "".join(text.lower().split())


def test_an_unknown_word_is_spelled():
    assert pieces("zebra") == ["z", "##e", "##b", "##r", "##a"]
    assert spoken("a zebra") == "a zebra"


@pytest.mark.parametrize("word", ["日本", "☃", "привет", "ø"])
def test_what_is_not_ascii_is_unknown(word):
    assert pieces(word) == [UNK]
    assert pieces(f"red {word} cat") == ["red", UNK, "cat"]


def test_compatible_forms_are_folded():
    assert pieces("ＲＥＤ") == ["red"]
    assert pieces("ﬁsh") == ["fish"]


def test_special_tokens_are_not_split():
    specials = [PAD, BOS, EOS, UNK, IMAGE, USER, ASSISTANT]
    assert TOKENIZER.convert_tokens_to_ids(specials) == list(range(7))
    for token in specials:
        assert pieces(token) == [token]
    said = f"{BOS}{IMAGE}{USER}is there a cat?{ASSISTANT}yes{EOS}"
    assert pieces(said) == [BOS, IMAGE, USER, "is", "there", "a", "cat", "?", ASSISTANT, "yes", EOS]
    assert TOKENIZER.decode(TOKENIZER(f"{USER}red{EOS}").input_ids, skip_special_tokens=True) == "red"


def test_rows_are_padded_on_the_left():
    batch = TOKENIZER(["red", "a red cat"], padding=True, add_special_tokens=False)
    assert batch.input_ids[0][:2] == [TOKENIZER.pad_token_id] * 2
    assert batch.attention_mask == [[0, 0, 1], [1, 1, 1]]


def test_the_order_of_words_is_kept_and_doubles_are_dropped():
    made = build_tokenizer(["b", "cat", "cat", "dog"])
    assert made.convert_tokens_to_ids(["b", "cat", "dog"]) == [7, 8, 9]
    assert len(set(made.get_vocab().values())) == len(made) == len(made.get_vocab())


def test_a_tokenizer_with_more_experts_keeps_the_ids_of_the_first():
    class Brightness:
        labels = ("gloomy", None, "very Radiant", "red")

    larger = tiny_tokenizer([Brightness, *COMPACT.values()])
    before, after = TOKENIZER.get_vocab(), larger.get_vocab()
    assert {word: after[word] for word in before} == before
    assert set(after) - set(before) == {"gloomy", "very", "radiant"}
    assert larger.tokenize("a gloomy, very radiant zebra")[:5] == ["a", "gloomy", ",", "very", "radiant"]


def test_a_saved_tokenizer_is_the_same(tmp_path):
    from transformers import AutoTokenizer

    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a red cat.", "zebra", "☃", f"{BOS}{IMAGE}{USER}is it?{ASSISTANT}"):
        assert loaded(text, add_special_tokens=False).input_ids == TOKENIZER(text, add_special_tokens=False).input_ids
    assert loaded.chat_template == TOKENIZER.chat_template


def test_the_chat_template():
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "is it red?"}, {"type": "image"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "why?"},
    ]
    text = TOKENIZER.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text == f"{BOS}{IMAGE}{USER}is it red?{ASSISTANT}yes{EOS}{USER}why?{ASSISTANT}"
