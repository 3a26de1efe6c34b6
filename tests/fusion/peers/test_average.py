"""The mean of the maps of those present."""

from __future__ import annotations

import pytest
import torch

from astrea.fusion.peers.average import UniformAverage
from astrea.fusion.peers.grid import Grid


@pytest.mark.parametrize("absent", [(), (0,), (1, 2)])
def test_it_is_the_mean_over_experts_that_are_present(absent, layout, make_matrix, make_questions):
    made, seen = UniformAverage(layout), make_matrix(absent=absent)
    out = made(seen, make_questions())
    here = [e for e in range(3) if e not in absent]
    wanted = torch.stack([Grid(layout)(seen)[:, e] for e in here]).mean(0) + made.grid.position
    assert torch.allclose(out.tokens, wanted, atol=1e-6)
    assert out.valid.all()
    assert torch.allclose(out.shares.sum(-1), torch.ones(3, 2))
    assert made.num_tokens == 8


def test_a_lone_expert_counts_in_full(layout, make_matrix, make_questions):
    """With two thirds of the experts gone a mean over all would shrink the tokens."""
    made, seen = UniformAverage(layout), make_matrix(absent=(1, 2))
    tokens = made(seen, make_questions()).tokens - made.grid.position
    assert torch.allclose(tokens[:, 0], seen.tokens[:, :3].sum(1) / 3.1, atol=1e-5)


def test_no_expert_at_all_is_finite_and_not_read(layout, make_matrix, make_questions):
    out = UniformAverage(layout)(make_matrix(absent=(0, 1, 2)), make_questions())
    assert out.tokens.isfinite().all()
    assert not out.valid.any()
