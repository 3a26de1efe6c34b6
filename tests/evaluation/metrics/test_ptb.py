"""The caption tokeniser against the reference's tokens, and what must hold for any text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.evaluation.metrics.ptb import REMOVED, tokenize
from repository import FIXTURES

GOLDEN = json.loads((FIXTURES / "metrics/ptb.json").read_text(encoding="utf-8"))["cases"]
PLAIN_WORDS = st.lists(st.sampled_from(["dog", "Red", "kite", "IN", "park", "umbrella"]), max_size=12)


def test_golden_set_is_large() -> None:
    assert len(GOLDEN) >= 200


def test_tokens_are_those_of_the_reference() -> None:
    wrong = [
        (caption, tokens, " ".join(tokenize(caption)))
        for caption, tokens in GOLDEN
        if " ".join(tokenize(caption)) != tokens
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog, a cat.", ["a", "dog", "a", "cat"]),
        ("don't", ["do", "n't"]),
        ("(a dog)", ["-lrb-", "a", "dog", "-rrb-"]),  # brackets stay: the removal list spells them in capitals
        ("no!!!", ["no", "!!!"]),  # only a single mark is on the list
        ("1 1/2 cups", ["1\u00a01/2", "cups"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_habits_that_change_counts(caption: str, tokens: list[str]) -> None:
    assert tokenize(caption) == tokens


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_lower_case_tokens_without_removed_punctuation(text: str) -> None:
    tokens = tokenize(text)
    assert all(token and token == token.lower() and token not in REMOVED for token in tokens)
    assert all(" " not in token for token in tokens)


@settings(deadline=None)
@given(PLAIN_WORDS)
def test_plain_words_are_only_lower_cased(words: list[str]) -> None:
    assert tokenize(" ".join(words)) == [word.lower() for word in words]


@settings(deadline=None)
@given(PLAIN_WORDS, st.sampled_from([" ", "  ", "\n", "\t ", "\u3000"]))
def test_white_space_does_not_matter_between_words(words: list[str], space: str) -> None:
    assert tokenize(f" {space.join(words)} ") == tokenize(" ".join(words))


@settings(deadline=None)
@given(PLAIN_WORDS, st.sampled_from([".", "!", "?", ",", ";", ":", "...", " --"]))
def test_a_mark_at_the_end_changes_nothing(words: list[str], mark: str) -> None:
    assert tokenize(" ".join(words) + mark) == tokenize(" ".join(words))
