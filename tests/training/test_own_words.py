"""Features are hidden only where an expert's own word is right, and only as often as is wanted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from astrea.alignment.phrase_ids import PhraseIds
from astrea.alignment.phrases import phrase_adapter
from astrea.experts.protocol import ExpertFeatures
from astrea.language.whole_words import WholeWords
from astrea.training.own_words import TwoWays, hide_features, two_ways, words_told
from phrase_experts import THINGS, Lines, Seer

TEXTS = ["a cat and a dog.", "an umbrella.", "the cats are here.", "a sun."]
FEATURE = slice(0, 5)


@pytest.fixture(scope="module")
def words() -> WholeWords:
    return WholeWords(TEXTS * 3)


@pytest.fixture(scope="module")
def ways(words: WholeWords) -> dict[str, TwoWays]:
    parts = {"things": [["feature", "vertical"], ["thing", "vertical"]], "lines": []}
    ids = PhraseIds.model_validate({"scale": 1.0, "phrases": parts})
    experts = {"things": Seer(), "lines": Lines()}
    adapters = {
        name: phrase_adapter(name, expert, ids, "phrases", hidden=4, model_width=6) for name, expert in experts.items()
    }
    return two_ways(experts, adapters, words)


def seen() -> ExpertFeatures:
    """Three findings in each of two pictures: a cat, a dog, a red umbrella; the last slot of the second is empty."""
    tokens = torch.rand(2, 3, Seer.width) + 0.1
    tokens[..., 5:8] = torch.eye(3) + 0.1
    confidence = torch.ones(2, 3)
    confidence[1, 2] = 0
    return ExpertFeatures(tokens, confidence)


def test_only_experts_that_know_in_two_ways_are_found(ways, words):
    assert list(ways) == ["things"]
    assert (ways["things"].feature, ways["things"].name) == (FEATURE, slice(5, 8))
    assert [sorted(words.words[n] for n in some) for some in ways["things"].words] == [["cat"], ["dog"], ["umbrella"]]
    assert len(THINGS) == 3


def test_a_word_is_right_if_the_texts_of_the_picture_have_it(ways, words):
    told = [frozenset(words.of(["the cats are here."])), frozenset(words.of(["a dog and an umbrella."]))]
    assert ways["things"].right(seen(), told).tolist() == [[True, False, False], [False, True, False]]
    nothing = seen()
    nothing.tokens[..., 5:8] = 0
    assert not ways["things"].right(nothing, told).any()


@pytest.mark.parametrize(("chance", "hidden"), [(0.0, 0), (1.0, 2)])
def test_features_are_hidden_where_the_word_is_right(ways, words, chance, hidden):
    told = [frozenset(words.of(["a cat."])), frozenset(words.of(["a dog."]))]
    before = seen()
    found = hide_features({"things": before}, ways, told, chance, torch.Generator().manual_seed(0))["things"]
    gone = (found.tokens[..., FEATURE] == 0).all(-1)
    assert int(gone.sum()) == hidden
    assert not (gone & ~ways["things"].right(before, told)).any()
    torch.testing.assert_close(found.tokens[..., 5:], before.tokens[..., 5:])
    assert (before.tokens[..., FEATURE] != 0).all()


def test_what_other_experts_see_of_the_same_thing_is_hidden_too(ways, words):
    told = [frozenset(words.of(["a cat."]))]
    places = torch.tensor([[[0.2, 0.2], [0.8, 0.8], [0.5, 0.5]]])
    names = ExpertFeatures(seen().tokens[:1], torch.ones(1, 3), places)
    # Another expert, all of whose own words are wrong: near to the cat, nearer to it, far away, and an empty slot.
    other = torch.rand(1, 4, Seer.width) + 0.1
    other[..., 5:8] = torch.tensor([0.0, 0.0, 1.0])
    near = torch.tensor([[[0.3, 0.3], [0.25, 0.2], [0.8, 0.2], [0.2, 0.2]]])
    features = {"things": names, "more": ExpertFeatures(other, torch.tensor([[1.0, 1, 1, 0]]), near)}
    both = {"things": ways["things"], "more": ways["things"]}
    found = hide_features(features, both, told, 1.0, torch.Generator().manual_seed(0))
    gone = {name: (part.tokens[..., FEATURE] == 0).all(-1)[0].tolist() for name, part in found.items()}
    assert gone == {"things": [True, False, False], "more": [False, True, False, False]}
    features["more"] = replace(features["more"], places=torch.full((1, 4, 2), float("nan")))
    found = hide_features(features, both, told, 1.0, torch.Generator().manual_seed(0))["more"]
    assert (found.tokens[..., FEATURE] != 0).all()


def test_as_often_as_is_wanted(ways, words):
    many = seen().rows(torch.zeros(400, dtype=torch.long))
    told = [frozenset(words.of(["a cat."]))] * 400
    found = hide_features({"things": many}, ways, told, 0.3, torch.Generator().manual_seed(0))["things"]
    share = (found.tokens[:, 0, FEATURE] == 0).all(-1).float().mean()
    assert 0.2 < share < 0.4


def test_the_words_of_a_picture_are_those_of_the_samples_that_show_it_first(words):
    samples = SimpleNamespace(
        first=torch.tensor([1, -1, 1]), pictures=3, texts=[["a cat."], ["a sun."], ["a dog.", "the cats."]]
    )
    found = words_told(samples, words)
    assert [sorted(words.words[n] for n in some) for some in found] == [[], ["cat", "dog"], []]
