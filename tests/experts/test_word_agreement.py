"""Agreement of words: who does not fit is found without an example of it, and whose part it is, where three speak."""

from __future__ import annotations

import pytest
import torch

from astrea.experts.corruption_kinds import FUNCTIONS, channels_of
from astrea.experts.protocol import ORDINALS, ExpertFeatures
from astrea.experts.word_agreement import WordAgreement, aspects

NAMES, COLOURS = ("cat", "dog", "cow", "hen", "pig", "fox"), ("red", "blue", "green", "black")
LABELS = {
    "boxes": (*NAMES, *COLOURS, "left", "right", *ORDINALS[:2], "sure", "boxes"),
    "tags": (*NAMES, *COLOURS, "sure", "tags"),
    "words": ("end", *NAMES, *COLOURS, None),
}


def seen(count: int, seed: int) -> dict[str, ExpertFeatures]:
    """Two things in each picture, of which every expert tells names and colours, nearly without a fault."""
    generator = torch.Generator().manual_seed(seed)
    name = torch.eye(6)[torch.randint(6, (count, 2), generator=generator)]
    colour = torch.eye(4)[torch.randint(4, (count, 2), generator=generator)]
    places = torch.rand(count, 2, 2, generator=generator).sort(1).values
    sides = torch.stack([1 - places[..., 0], places[..., 0]], -1)
    one = torch.ones(count, 2, 1)
    rank = torch.eye(2).expand(count, -1, -1)
    parts = {
        "boxes": torch.cat([name, colour, sides, rank, one, one], -1),
        "tags": torch.cat([name, colour, one, one], -1),
        "words": torch.cat([0 * one, name, colour, torch.rand(count, 2, 1, generator=generator)], -1),
    }
    found = {}
    for expert, tokens in parts.items():
        tokens = (tokens + 0.1 * torch.rand(tokens.shape, generator=generator)).clamp_max(1)
        found[expert] = ExpertFeatures(tokens, torch.ones(count, 2), places if expert == "boxes" else None)
    return found


@pytest.fixture(scope="module")
def judge() -> WordAgreement:
    return WordAgreement(seen(400, 0), LABELS)


def test_words_are_known_by_what_they_are_about():
    found = aspects(("cat", "red", "x0", "x1", "y0", "left", "first", "sure", "me", None), "me")
    assert {aspect: list(words) for aspect, words in found.items()} == {
        "colour": ["red"],
        "name": ["cat"],
        "side": ["left"],
        "across": ["x0", "x1"],
        "down": ["y0"],
    }


def test_sound_experts_are_believed(judge: WordAgreement):
    assert judge.believed(seen(200, 1)).float().mean() > 0.93


@pytest.mark.parametrize("kind", ["swapped", "wrong_class", "wrong_colour", "stuck_picture", "noise"])
def test_one_that_does_not_fit_is_found_and_the_others_stay(judge: WordAgreement, kind: str):
    told = seen(200, 2)
    wrong = FUNCTIONS[kind](told["tags"], channels_of(LABELS["tags"]), torch.Generator().manual_seed(0))
    believed = judge.believed({**told, "tags": wrong}).float().mean(0)
    assert believed[1] < 0.3
    assert believed[[0, 2]].min() > 0.6


def test_an_expert_in_a_mirror_has_its_ranks_the_wrong_way_round(judge: WordAgreement):
    told = seen(200, 3)
    wrong = FUNCTIONS["mirrored"](told["boxes"], channels_of(LABELS["boxes"]), torch.Generator())
    assert judge.believed({**told, "boxes": wrong}).float().mean(0)[0] < 0.3


def test_of_two_that_contradict_each_other_alone_neither_is_believed_at_once(judge: WordAgreement):
    """With the third silent nobody can tell whose colours are wrong."""
    told = seen(200, 5)
    told["words"] = FUNCTIONS["noise"](told["words"], channels_of(LABELS["words"]), torch.Generator())
    wrong = FUNCTIONS["wrong_colour"](told["tags"], channels_of(LABELS["tags"]), torch.Generator().manual_seed(0))
    at_once = judge.believed({**told, "tags": wrong}, at_once=True).float().mean(0)
    assert at_once[:2].max() < 0.3


def test_somebody_is_always_believed(judge: WordAgreement):
    told = {
        name: FUNCTIONS["noise"](part, channels_of(LABELS[name]), torch.Generator())
        for name, part in seen(50, 4).items()
    }
    assert judge.believed(told).any(1).all()
