"""Experts made to lie: only those drawn, only about their pictures, and just as surely."""

from __future__ import annotations

import torch

from astrea.experts.corruption import STUCK, corrupt, draw_experts, draw_stuck
from astrea.experts.protocol import ExpertFeatures


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
    corrupted = draw_experts(20_000, 4, 0.2, torch.Generator().manual_seed(0))
    assert abs(float((corrupted >= 0).float().mean()) - 0.2) < 0.01
    counts = torch.bincount(corrupted[corrupted >= 0], minlength=4) / (corrupted >= 0).sum()
    assert (counts - 0.25).abs().max() < 0.03
    assert (draw_experts(100, 4, 0.0, torch.Generator()) == -1).all()


def test_only_the_liar_changes_and_only_its_picture():
    clean = features()
    corrupted = torch.tensor([-1, 0, 1, -1, 0, -1])
    changed = corrupt(clean, corrupted, draw_stuck(len(corrupted), torch.Generator().manual_seed(3)))
    for index, name in enumerate(clean):
        mine = corrupted == index
        for field in ("tokens", "confidence", "places"):
            before, after = getattr(clean[name], field), getattr(changed[name], field)
            if before is not None:
                assert torch.equal(before[~mine], after[~mine])
        assert all(not torch.equal(clean[name].tokens[i], changed[name].tokens[i]) for i in mine.nonzero().flatten())


def test_a_lie_is_another_pictures_truth_or_one_thing_again_and_again():
    clean = features(400)
    drawn = draw_stuck(400, torch.Generator().manual_seed(1))
    changed = corrupt(clean, torch.zeros(400, dtype=torch.long), drawn)["a"]
    before = clean["a"]
    swapped = (changed.tokens == before.tokens.roll(1, 0)).flatten(1).all(1)
    best = before.confidence.argmax(1)
    stuck = (changed.tokens == before.tokens[torch.arange(400), best].unsqueeze(1)).flatten(1).all(1)
    assert (swapped ^ stuck).all()
    assert torch.equal(stuck, drawn)
    assert abs(float(stuck.float().mean()) - STUCK) < 0.06
    assert torch.equal(changed.confidence[swapped], before.confidence.roll(1, 0)[swapped])
    assert torch.equal(changed.places[swapped], before.places.roll(1, 0)[swapped])
    assert torch.equal(changed.confidence[stuck], before.confidence[stuck])
