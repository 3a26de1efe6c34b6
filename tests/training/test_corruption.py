"""Experts made to lie: only those drawn, only about their pictures, and just as surely."""

from __future__ import annotations

import torch

from astrea.experts.protocol import ExpertFeatures
from astrea.training.corruption import STUCK, corrupt, draw_experts, draw_stuck


def features(count: int = 6) -> dict[str, ExpertFeatures]:
    generator = torch.Generator().manual_seed(0)

    def part(tokens: int, width: int, placed: bool) -> ExpertFeatures:
        return ExpertFeatures(
            torch.randn(count, tokens, width, generator=generator),
            torch.rand(count, tokens, generator=generator),
            torch.rand(count, tokens, 2, generator=generator) if placed else None,
        )

    return {"a": part(3, 5, True), "b": part(2, 4, False)}


def test_liars_are_drawn_as_often_as_asked_and_evenly():
    liar = draw_experts(20_000, 4, 0.2, torch.Generator().manual_seed(0))
    assert abs(float((liar >= 0).float().mean()) - 0.2) < 0.01
    counts = torch.bincount(liar[liar >= 0], minlength=4) / (liar >= 0).sum()
    assert (counts - 0.25).abs().max() < 0.03
    assert (draw_experts(100, 4, 0.0, torch.Generator()) == -1).all()


def test_only_the_liar_changes_and_only_its_picture():
    told = features()
    liar = torch.tensor([-1, 0, 1, -1, 0, -1])
    lied = corrupt(told, liar, draw_stuck(len(liar), torch.Generator().manual_seed(3)))
    for index, name in enumerate(told):
        mine = liar == index
        for field in ("tokens", "confidence", "places"):
            before, after = getattr(told[name], field), getattr(lied[name], field)
            if before is not None:
                assert torch.equal(before[~mine], after[~mine])
        assert all(not torch.equal(told[name].tokens[i], lied[name].tokens[i]) for i in mine.nonzero().flatten())


def test_a_lie_is_another_pictures_truth_or_one_thing_again_and_again():
    told = features(400)
    drawn = draw_stuck(400, torch.Generator().manual_seed(1))
    lied = corrupt(told, torch.zeros(400, dtype=torch.long), drawn)["a"]
    before = told["a"]
    swapped = (lied.tokens == before.tokens.roll(1, 0)).flatten(1).all(1)
    best = before.confidence.argmax(1)
    stuck = (lied.tokens == before.tokens[torch.arange(400), best].unsqueeze(1)).flatten(1).all(1)
    assert (swapped ^ stuck).all()
    assert torch.equal(stuck, drawn)
    assert abs(float(stuck.float().mean()) - STUCK) < 0.06
    assert torch.equal(lied.confidence[swapped], before.confidence.roll(1, 0)[swapped])
    assert torch.equal(lied.places[swapped], before.places.roll(1, 0)[swapped])
    assert torch.equal(lied.confidence[stuck], before.confidence[stuck])
