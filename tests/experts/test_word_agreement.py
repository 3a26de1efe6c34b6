"""Agreement of words: who does not fit is found without an example of it, and whose part it is, where three speak."""

from __future__ import annotations

import pytest
import torch

from astrea.experts.corruption_kinds import FUNCTIONS, channels_of
from astrea.experts.word_agreement import WordAgreement, learn_agreement
from word_experts import LABELS, seen


@pytest.fixture(scope="module")
def judge() -> WordAgreement:
    return learn_agreement(seen(400, 0), LABELS)


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
