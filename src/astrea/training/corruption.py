"""Experts that are confidently wrong: what training shows the model so that it learns whom to believe.

Letters: B pictures, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from astrea.experts.corruption import of_the_next, stuck, where
from astrea.experts.protocol import ExpertFeatures

STUCK = 0.25
"""Share of lies that say one thing in every slot, whatever there is to see; the others tell of another picture."""


def draw_experts(count: int, experts: int, chance: float, generator: torch.Generator) -> Tensor:
    """Which expert something befalls in each picture, at most one and with this chance: (B,) long, -1 for none."""
    befalls = torch.rand(count, generator=generator) < chance
    whom = torch.randint(0, experts, (count,), generator=generator)
    return torch.where(befalls, whom, -1)


def draw_stuck(count: int, generator: torch.Generator) -> Tensor:
    """Which of so many pictures a liar is stuck at, instead of telling of another one: (B,) bool."""
    return torch.rand(count, generator=generator) < STUCK


def corrupt(features: Mapping[str, ExpertFeatures], expert_B: Tensor, stuck_B: Tensor) -> dict[str, ExpertFeatures]:
    """The same features, but where an expert lies it says, just as surely, what it saw in another picture of the
    batch; or, where it is stuck, what its surest slot says in all of them."""
    corrupted: dict[str, ExpertFeatures] = {}
    for index, (name, part) in enumerate(features.items()):
        mine_B = expert_B == index
        corrupted[name] = where(mine_B & stuck_B, stuck(part), where(mine_B & ~stuck_B, of_the_next(part), part))
    return corrupted
