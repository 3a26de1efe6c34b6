"""A small expert matrix drawn at random, some of whose slots are empty: three experts with 3, 2 and 3 tokens."""

from __future__ import annotations

import torch

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout

OWNER = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
LAYOUT = Layout(width=8, names=("a", "b", "c"), counts=(3, 2, 3), heads=4)


def matrix(batch: int = 4, seed: int = 0) -> ExpertMatrix:
    """Slot 1 of the first picture is empty, and so is all that the second expert says of the second picture."""
    generator = torch.Generator().manual_seed(seed)
    sure = torch.rand(batch, 8, generator=generator) * 0.9 + 0.1
    sure[0, 1] = sure[1, 3:5] = 0.0
    tokens = torch.randn(batch, 8, 8, generator=generator)
    places = torch.rand(batch, 8, 2, generator=generator)
    return ExpertMatrix(tokens, sure, sure > 0, torch.ones(batch, 3, dtype=torch.bool), OWNER, places)
