"""Experts that are confidently wrong: what training shows the model so that it learns whom to believe.

Letters: B pictures, T tokens of one expert, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from astrea.experts.protocol import ExpertFeatures

STUCK = 0.25
"""Share of lies that say one thing in every slot, whatever there is to see; the others tell of another picture."""


def draw_liars(count: int, experts: int, chance: float, generator: torch.Generator) -> Tensor:
    """Which expert lies about each picture: (B,) long, -1 for none."""
    lies = torch.rand(count, generator=generator) < chance
    liar = torch.randint(0, experts, (count,), generator=generator)
    return torch.where(lies, liar, -1)


def with_lies(
    features: Mapping[str, ExpertFeatures], liar_B: Tensor, generator: torch.Generator
) -> dict[str, ExpertFeatures]:
    """The same features, but where an expert lies it says, just as surely, what it saw in the batch's next picture; or
    it is stuck, and says what its surest slot says in all of them."""
    count = len(liar_B)
    stuck_B = torch.rand(count, generator=generator) < STUCK
    other = torch.arange(count).roll(1)
    told: dict[str, ExpertFeatures] = {}
    for index, (name, part) in enumerate(features.items()):
        mine = liar_B == index
        surest = part.confidence.argmax(1)
        frozen = part.tokens[torch.arange(count), surest].unsqueeze(1).expand_as(part.tokens)
        swap, stick = (mine & ~stuck_B), (mine & stuck_B)
        tokens = torch.where(swap[:, None, None], part.tokens[other], part.tokens)
        tokens = torch.where(stick[:, None, None], frozen, tokens)
        sure = torch.where(swap[:, None], part.confidence[other], part.confidence)
        places = part.places
        if places is not None:
            places = torch.where(swap[:, None, None], places[other], places)
        told[name] = ExpertFeatures(tokens, sure, places)
    return told
