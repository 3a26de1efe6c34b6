"""Calibration: stated probabilities become the rate of right answers, and the threshold loses no more than it may."""

from __future__ import annotations

import pytest
import torch

from astrea.confidence.calibration import (
    MOST_LOST,
    best_threshold,
    calibration_error,
    learn_calibration,
    share,
)
from astrea.confidence.signals import SIGNS, Signs


def drawn(count: int, seed: int, *, refusing: bool = True) -> tuple[Signs, torch.Tensor, torch.Tensor]:
    """Answers whose words are always nearly certain, half about strange pictures, where they are wrong."""
    generator = torch.Generator().manual_seed(seed)
    answerable = torch.rand(count, generator=generator) < 0.5
    likelihood = -0.05 * torch.rand(count, generator=generator)
    strange = torch.where(answerable, -1.0, 1.5) + 0.7 * torch.randn(count, generator=generator)
    refused = (torch.rand(count, generator=generator) < 0.3) & ~answerable if refusing else torch.zeros(count).bool()
    right = torch.where(answerable, torch.rand(count, generator=generator) < 0.9, refused)
    signs = Signs(refused, likelihood, strange.unsqueeze(1), torch.ones(count, 4).bool(), torch.zeros(count))
    return signs, right, answerable


def test_confidence_means_what_it_says():
    calibration = learn_calibration(*drawn(800, 1))
    signs, right, answerable = drawn(800, 2)
    sure = calibration.right(signs)
    before, after = calibration_error(signs.likelihood.exp(), right), calibration_error(sure, right)
    assert before > 0.25
    assert after < 0.08
    declined = signs.refused | (sure < calibration.threshold)
    assert share(declined, ~answerable) > 0.9
    assert share(declined & right, answerable) < 2 * MOST_LOST + 0.02


@pytest.mark.parametrize("right", [True, False])
def test_where_all_are_right_or_wrong_the_rate_has_to_do(right):
    signs, _, _ = drawn(60, 3, refusing=False)
    everything = torch.full((60,), right)
    calibration = learn_calibration(signs, everything, torch.ones(60).bool())
    sure = calibration.right(signs)
    assert torch.allclose(sure, sure[0].expand(60))
    assert (float(sure[0]) > 0.9) == right


def test_it_learns_wherever_it_is_called_from():
    with torch.inference_mode():
        signs, right, answerable = drawn(100, 4)
        assert torch.isfinite(learn_calibration(signs, right, answerable).weights).all()


def test_the_threshold_declines_no_more_right_answers_than_it_may():
    sure = torch.linspace(0, 1, 200)
    answerable = torch.ones(200).bool()
    answerable[:20] = False
    chosen = best_threshold(sure, torch.zeros(200).bool(), answerable, answerable)
    lost = (sure < chosen) & answerable
    assert chosen > 0
    assert int(lost.sum()) <= MOST_LOST * int(answerable.sum())


def test_calibration_error_by_hand():
    sure = torch.tensor([0.95, 0.95, 0.15, 0.15])
    right = torch.tensor([True, False, False, False])
    assert calibration_error(sure, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.15)
    assert calibration_error(torch.tensor([1.0, 1.0]), torch.tensor([True, True])) == 0


def test_numbers_of_signs():
    signs = Signs(
        torch.tensor([False]),
        torch.tensor([0.0]),
        torch.tensor([[-9.0, 9.0]]),
        torch.tensor([[True, False]]),
        torch.tensor([0.25]),
    )
    numbers = signs.numbers()
    assert numbers.shape == (1, len(SIGNS))
    assert numbers[0].tolist() == pytest.approx([13.8, 0.0, 1.0, 0.5, 0.25], abs=0.05)
