"""Whole words of captions: which count, and where they lie in a language model's space."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.language.whole_words import MOST, WholeWords, letter_groups, plurals, table_mean, word_vectors
from language_builders import small_tokenizer

TEXTS = ["A Cat and two dogs.", "the cats sleep; a fire engine!", "One dog, 3 glasses and a bus", "nothing but a fire"]


def test_words_are_letters_in_lower_case_and_plurals_are_one_with_their_singulars():
    words = WholeWords(TEXTS)
    assert set(words.words) == {"cat", "two", "dog", "sleep", "fire", "engine", "glasses", "bus", "nothing"}
    assert [words.words[i] for i in words.of(["Two CATS!", "a cat"])] == ["two", "cat"]
    assert words.of(["a zebra", "the and of"]) == []


def test_a_plural_alone_stays_as_it_is():
    assert plurals({"cats", "bus", "as", "glass", "s"}) == {}
    found = plurals({"cat", "cats", "box", "boxes", "berry", "berries", "glass", "glasses", "bus", "busses"})
    assert found == {"cats": "cat", "boxes": "box", "berries": "berry", "glasses": "glass"}


def test_a_name_of_two_words_is_one_and_names_are_all_that_tells():
    words = WholeWords([*TEXTS, "two fire engines"], ["fire engine", "dog", "zebra"])
    assert set(words.words) == {"fire engine", "dog"}
    assert [words.words[i] for i in words.of(["dogs and fire engines on fire"])] == ["dog", "fire engine"]


def test_what_most_texts_hold_tells_nothing():
    texts = [*(f"photo {word}" for word in ("cat", "dog", "sun", "moon")), "a moon"]
    assert set(WholeWords([text.replace("photo", "sketch") for text in texts]).words) == {"cat", "dog", "sun", "moon"}


def test_what_is_said_in_another_way_tells_nothing_unless_it_is_a_name():
    texts = ["a red bus", "an orange cat", "one blue orange", "a green dog"]
    said = ["red", "blue", "green", "orange"]
    assert set(WholeWords(texts, said=said).words) == {"bus", "cat", "dog"}
    assert set(WholeWords(texts, ["bus", "orange"], said).words) == {"bus", "orange"}


def test_the_most_frequent_come_first_and_there_is_an_end():
    texts = [f"{a}{b}{c}{d}" for a in "bcdfghjklm" for b in "aeiouywxvz" for c in "bcdfghjklm" for d in "npqrtvwxyz"]
    assert len(texts) > MOST
    words = WholeWords(["zebra", *texts, "zebra"])
    assert words.words[0] == "zebra"
    assert len(words.words) == MOST


@settings(max_examples=50)
@given(st.lists(st.text(max_size=40), max_size=8), st.lists(st.text(max_size=12), max_size=3))
def test_any_text_is_read(texts, names):
    words = WholeWords(texts, names)
    assert len(set(words.words)) == len(words.words)
    for text in texts:
        found = words.of([text])
        assert len(set(found)) == len(found)
        assert all(0 <= i < len(words.words) for i in found)


def test_letters_of_any_script_are_words():
    assert letter_groups("Größe: 3 çiçek, 猫_x2") == ["größe", "çiçek", "猫", "x"]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_vectors_are_centred_means_of_the_pieces_inside_a_sentence(family):
    tokenizer = small_tokenizer(family)
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(len(tokenizer) + 5, 8)
    with torch.no_grad():
        embedding.weight += 3  # a large common part
    mean = table_mean(embedding, len(tokenizer), torch.device("cpu"))
    torch.testing.assert_close(mean, embedding.weight[: len(tokenizer)].mean(0))
    words = ["cat", "umbrellas", "red sun"]
    found = word_vectors(words, tokenizer, embedding, mean)
    before = tokenizer("the", add_special_tokens=False).input_ids
    for word, vector in zip(words, found, strict=True):
        ids = tokenizer(f"the {word}", add_special_tokens=False).input_ids[len(before) :]
        wanted = embedding.weight[ids].mean(0) - mean
        torch.testing.assert_close(vector, wanted / wanted.norm())
