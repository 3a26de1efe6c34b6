"""A thing that an expert names rightly is called by another of its labels, by the expert and in the texts alike."""

from __future__ import annotations

import pytest
import torch

from astrea.experts.protocol import ExpertFeatures
from astrea.language.whole_words import WholeWords
from astrea.training.borrowed_names import Lent, Renaming, borrow_names, lent_labels
from astrea.training.own_words import TwoWays

LABELS = ("cat", "dog", "red umbrella", "otter", "tea pot", "crane (bird)", "")
FEATURE, NAME = slice(0, 2), slice(2, 9)
WORDS = WholeWords(["a cat and a dog.", "an umbrella.", "the cats are here.", "a sun."] * 3)
WAY = TwoWays(FEATURE, NAME, tuple(frozenset(WORDS.of([label])) for label in LABELS))
LENT = Lent({"things": LABELS}, {"things": torch.tensor([3, 4])})


def seen() -> ExpertFeatures:
    """In each of two pictures a cat and a dog, far apart."""
    tokens = torch.rand(2, 2, 9) * 0.1 + 0.1
    tokens[:, 0, 2], tokens[:, 1, 3] = 0.9, 0.8
    return ExpertFeatures(tokens, torch.ones(2, 2), torch.tensor([[[0.2, 0.2], [0.8, 0.8]]]).expand(2, -1, -1))


class Bank(dict):
    """Experts by name, of which only the labels are asked for."""


def borrowed(features, told, chance=1.0, ways=None, lent=LENT, seed=0):
    said = [frozenset(WORDS.of([text])) for text in told]
    generator = torch.Generator().manual_seed(seed)
    return borrow_names(features, ways or {"things": WAY}, lent, WORDS, said, chance, generator)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("is there a cat?", "is there an otter?"),
        ("A cat, and the Cat.", "An otter, and the otter."),
        ("how many cats are there?", "how many otters are there?"),
        ("a catfish in category two", "a catfish in category two"),
        ("no", "no"),
    ],
)
def test_texts_say_the_borrowed_name(text, said):
    assert Renaming(0, "cat", "otter", ("cats",))(text) == said


def test_names_of_several_words_are_renamed_whole():
    assert Renaming(0, "hot dog", "pear", ("hot dogs",))("a dog, a hot dog, two hot dogs") == "a dog, a pear, two pears"


def test_labels_that_training_has_or_must_not_have_are_not_lent():
    experts = Bank(things=type("Fake", (), {"labels": (None, None, *LABELS)}))
    assert lent_labels(experts, {"things": WAY}, ()).channels["things"].tolist() == [3, 4]
    assert lent_labels(experts, {"things": WAY}, ["sea otter"]).channels["things"].tolist() == [4]


def test_the_finding_is_called_so_too_and_its_features_are_hidden():
    before = seen()
    found, (first, second) = borrowed({"things": before}, ["a cat.", "a sun."])
    tokens = found["things"].tokens
    assert second is None
    assert torch.equal(tokens[1], before.tokens[1])
    assert first is not None
    assert (first.word, first.plurals) == ("cat", ("cats",))
    assert LABELS[int(tokens[0, 0, NAME].argmax())] == first.label in ("otter", "tea pot")
    assert float(tokens[0, 0, NAME].max()) == pytest.approx(0.9)
    assert (tokens[0, 0, FEATURE] == 0).all()
    assert torch.equal(tokens[0, 1], before.tokens[0, 1])  # the dog, of which the texts say nothing
    assert (before.tokens[0, 0, FEATURE] > 0).all()


def test_no_name_is_borrowed_by_chance_0_and_about_half_by_chance_a_half():
    features, told = {"things": seen()}, ["a cat.", "a dog."]
    same, renamed = borrowed(features, told, 0.0)
    assert renamed == [None, None]
    assert torch.equal(same["things"].tokens, features["things"].tokens)
    counted = [sum(each is not None for each in borrowed(features, told, 0.5, seed=seed)[1]) for seed in range(100)]
    assert 70 < sum(counted) < 130


def test_an_expert_without_the_label_says_nothing_and_one_that_sees_the_same_thing_loses_its_features():
    other = seen()
    other.tokens[..., NAME] = 0
    other.tokens[:, :, 2 + 2] = 0.5  # an umbrella: wrong, where the cat is
    few = TwoWays(FEATURE, slice(2, 5), WAY.words[:3])
    ways = {"things": WAY, "few": few, "wrong": WAY}
    lent = Lent(
        {"things": LABELS, "few": LABELS[:3], "wrong": LABELS},
        {"things": torch.tensor([3]), "few": torch.tensor([], dtype=torch.long), "wrong": torch.tensor([3])},
    )
    features = {"things": seen(), "few": seen(), "wrong": other}
    found, (renamed, _) = borrowed(features, ["a cat.", "a sun."], ways=ways, lent=lent)
    assert renamed is not None
    assert renamed.label == "otter"
    assert (found["few"].tokens[0, 0, 2:5] == 0).all()
    assert torch.equal(found["wrong"].tokens[0, 0, NAME], other.tokens[0, 0, NAME])
    assert all((found[name].tokens[0, 0, FEATURE] == 0).all() for name in found)
    assert all((found[name].tokens[0, 1, FEATURE] > 0).all() for name in found)


def test_where_nothing_is_lent_nothing_changes():
    nothing = Lent({"things": LABELS}, {"things": torch.tensor([], dtype=torch.long)})
    assert borrowed({"things": seen()}, ["a cat.", "a dog."], lent=nothing)[1] == [None, None]
