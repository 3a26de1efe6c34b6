"""A small expert matrix by hand: one expert without places, two with, one empty slot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout

LAYOUT = Layout(width=8, names=("a", "b", "c"), counts=(3, 3, 2), heads=4)
OWNER = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])


@pytest.fixture
def layout() -> Layout:
    """Three experts with 3, 3 and 2 tokens: 8 in all, a grid of 2 x 4."""
    return LAYOUT


@pytest.fixture
def make_matrix() -> Callable[..., ExpertMatrix]:
    """Draws a matrix; ``absent`` are indices of experts that no picture has. Slot 4 of the first picture is empty."""

    def make(batch: int = 3, seed: int = 0, absent: tuple[int, ...] = ()) -> ExpertMatrix:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(batch, 8, LAYOUT.width, generator=generator)
        sure = torch.rand(batch, 8, generator=generator) * 0.9 + 0.1
        sure[0, 4] = 0.0
        places = torch.rand(batch, 8, 2, generator=generator)
        places[:, OWNER == 0] = float("nan")
        present = torch.ones(batch, 3, dtype=torch.bool)
        present[:, list(absent)] = False
        whole = ExpertMatrix(tokens, sure, sure > 0, torch.ones_like(present), OWNER, places)
        return whole.with_presence(present)

    return make


@pytest.fixture
def make_questions() -> Callable[..., torch.Tensor]:
    """Draws questions (B, S, D)."""

    def make(batch: int = 3, count: int = 2, seed: int = 9) -> torch.Tensor:
        return torch.randn(batch, count, LAYOUT.width, generator=torch.Generator().manual_seed(seed))

    return make
