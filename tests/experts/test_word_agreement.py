"""Agreement of words: who does not fit is found without an example of it, and whose part it is, where three speak."""

from __future__ import annotations

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.experts.corruption import not_numbers
from astrea.experts.corruption_kinds import FUNCTIONS, channels_of
from astrea.experts.protocol import ExpertFeatures
from astrea.experts.word_agreement import WordAgreement, learn_agreement
from word_experts import LABELS, seen


@pytest.fixture(scope="module")
def judge() -> WordAgreement:
    return learn_agreement(seen(400, 0), LABELS)


def test_sound_experts_are_believed(judge: WordAgreement):
    assert judge.believed(seen(200, 1), margin=1.0).float().mean() > 0.93


@pytest.mark.parametrize("kind", ["swapped", "wrong_class", "wrong_colour", "stuck_picture", "noise"])
def test_one_that_does_not_fit_is_found_and_the_others_stay(judge: WordAgreement, kind: str):
    told = seen(200, 2)
    wrong = FUNCTIONS[kind](told["tags"], channels_of(LABELS["tags"]), torch.Generator().manual_seed(0))
    believed = judge.believed({**told, "tags": wrong}, margin=1.0).float().mean(0)
    assert believed[1] < 0.3
    assert believed[[0, 2]].min() > 0.6


def test_an_expert_in_a_mirror_has_its_ranks_the_wrong_way_round(judge: WordAgreement):
    told = seen(200, 3)
    wrong = FUNCTIONS["mirrored"](told["boxes"], channels_of(LABELS["boxes"]), torch.Generator())
    assert judge.believed({**told, "boxes": wrong}, margin=1.0).float().mean(0)[0] < 0.3


def test_of_two_that_contradict_each_other_alone_neither_is_believed_at_once(judge: WordAgreement):
    """With the third silent nobody can tell whose colours are wrong."""
    told = seen(200, 5)
    told["words"] = FUNCTIONS["noise"](told["words"], channels_of(LABELS["words"]), torch.Generator())
    wrong = FUNCTIONS["wrong_colour"](told["tags"], channels_of(LABELS["tags"]), torch.Generator().manual_seed(0))
    at_once = judge.believed({**told, "tags": wrong}, margin=1.0, at_once=True).float().mean(0)
    assert at_once[:2].max() < 0.3


def test_somebody_is_always_believed(judge: WordAgreement):
    told = {
        name: FUNCTIONS["noise"](part, channels_of(LABELS[name]), torch.Generator())
        for name, part in seen(50, 4).items()
    }
    assert judge.believed(told).any(1).all()


def test_who_is_absent_has_no_say(judge: WordAgreement):
    told = seen(100, 6)
    present = torch.tensor([True, False, True]).expand(100, -1)
    wrong = FUNCTIONS["swapped"](told["tags"], channels_of(LABELS["tags"]), torch.Generator())
    believed = judge.believed({**told, "tags": wrong}, present, margin=1.0)
    assert torch.equal(believed, judge.believed(told, present, margin=1.0))
    assert not believed[:, 1].any()
    assert believed[:, [0, 2]].float().mean() > 0.9
    alone = judge.believed(told, torch.tensor([False, True, False]).expand(100, -1), margin=1e-9)
    assert torch.equal(alone, torch.tensor([False, True, False]).expand(100, -1))


def test_who_says_no_numbers_goes_alone(judge: WordAgreement):
    told = seen(50, 7)
    believed = judge.believed({**told, "tags": not_numbers(told["tags"])})
    assert not believed[:, 1].any()
    assert believed[:, [0, 2]].float().mean() > 0.9


def test_a_wider_margin_believes_more(judge: WordAgreement):
    told = seen(200, 8)
    wrong = FUNCTIONS["half_swapped"](told["tags"], channels_of(LABELS["tags"]), torch.Generator().manual_seed(0))
    shares = [float(judge.believed({**told, "tags": wrong}, margin=m)[:, 1].float().mean()) for m in (0.5, 3, 300)]
    assert shares[0] < shares[1] < shares[2]


def test_who_came_later_or_shares_no_word_is_believed(judge: WordAgreement):
    told = seen(150, 9)
    mute = ExpertFeatures(torch.rand(150, 2, 5), torch.ones(150, 2))
    wrong = FUNCTIONS["swapped"](told["tags"], channels_of(LABELS["tags"]), torch.Generator())
    later = judge.believed({"mute": mute, **told, "tags": wrong})
    assert torch.equal(later[:, 1:], judge.believed({**told, "tags": wrong}))
    assert later[:, 0].all()
    knows = learn_agreement({"mute": mute, **told}, {"mute": (None,) * 5, **LABELS})
    strange = ExpertFeatures(100 + mute.tokens, mute.confidence)
    assert knows.believed({"mute": strange, **told})[:, 0].all()


def test_experts_that_say_something_else_are_refused(judge: WordAgreement):
    told = seen(5, 10)
    fewer = {**LABELS, "tags": ("sure", *[None] * (len(LABELS["tags"]) - 1))}
    with pytest.raises(AstreaError, match="what is usual for boxes has"):
        WordAgreement(fewer, judge.usual).believed(told)


def test_of_too_many_nobody_is_judged():
    told = seen(5, 11)["tags"]
    with pytest.raises(AstreaError, match="9 experts, and agreement is judged among at most 8"):
        learn_agreement({str(n): told for n in range(9)}, {str(n): LABELS["tags"] for n in range(9)})
