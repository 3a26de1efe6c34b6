"""What is familiar: pictures like those of training are, others are not, whatever an expert's tokens look like."""

from __future__ import annotations

import pytest
import torch

from astrea.confidence.familiarity import LEAST_SPREAD, USUAL, learn_familiar, summary
from astrea.experts.protocol import ExpertFeatures

TOKENS, WIDTH = 5, 12


def drawn(count: int, seed: int, *, shift: float = 0.0, mixing_seed: int = 0) -> ExpertFeatures:
    """Tokens on a few directions, as of one kind of picture; ``shift`` moves them off these directions."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(mixing_seed))
    tokens = torch.randn(count, TOKENS, 3, generator=generator) @ mixing
    tokens = tokens + 0.05 * torch.randn(count, TOKENS, WIDTH, generator=generator) + shift
    sure = torch.rand(count, TOKENS, generator=generator) * 0.5 + 0.5
    return ExpertFeatures(tokens, sure)


def test_nearly_all_pictures_of_the_same_kind_are_familiar():
    familiar = learn_familiar(drawn(400, 1))
    strange = familiar.strangeness(drawn(400, 2)) > 0
    assert strange.float().mean() < 4 * (1 - USUAL)


@pytest.mark.parametrize("features", [drawn(50, 3, shift=3.0), drawn(50, 3, mixing_seed=9)], ids=["shifted", "turned"])
def test_others_are_not(features):
    familiar = learn_familiar(drawn(400, 1))
    assert (familiar.strangeness(features) > 0).float().mean() > 0.9


def test_an_expert_with_nothing_to_say_is_strange_where_that_never_happened():
    familiar = learn_familiar(drawn(400, 1))
    silent = ExpertFeatures(torch.zeros(3, TOKENS, WIDTH), torch.zeros(3, TOKENS))
    assert torch.isfinite(summary(silent)).all()
    assert (familiar.strangeness(silent) > 0).all()


def test_the_distance_is_a_mean_over_numbers():
    familiar = learn_familiar(drawn(400, 1))
    assert float(familiar.distance(summary(drawn(300, 2))).mean()) == pytest.approx(1.0, abs=0.6)
    assert (familiar.spread >= LEAST_SPREAD).all()
    assert familiar.axes @ familiar.axes.T == pytest.approx(torch.eye(len(familiar.axes)).numpy(), abs=1e-4)


def test_empty_slots_count_for_nothing():
    features = drawn(6, 4)
    emptied = ExpertFeatures(features.tokens.clone(), features.confidence.clone())
    emptied.confidence[:, -1] = 0
    other = ExpertFeatures(emptied.tokens.clone(), emptied.confidence)
    other.tokens[:, -1] = 99.0
    assert torch.equal(summary(emptied), summary(other))


def test_a_handful_of_pictures_will_do():
    familiar = learn_familiar(drawn(8, 1))
    assert torch.isfinite(familiar.strangeness(drawn(5, 2))).all()
