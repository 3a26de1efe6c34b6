"""What a broken expert says: another picture's truth, one thing for ever, or nothing that is a number.

Training corrupts experts on purpose, so that the model learns to tell which are reliable; benchmarks do it to measure
what a broken expert costs.

Letters: B pictures, E experts, T tokens of one expert, C width of its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from astrea.experts.protocol import ExpertFeatures

STUCK = 0.25
"""Share of corrupted pictures for which every slot says the same; otherwise the expert describes another picture."""


def of_the_next(part: ExpertFeatures) -> ExpertFeatures:
    """Every picture gets what the expert saw in the one before it in the batch: just as sure, and wrong."""
    return part.map(lambda values: values.roll(1, 0))


def stuck(part: ExpertFeatures) -> ExpertFeatures:
    """Every slot says what the picture's surest slot says."""
    surest_B = part.confidence.argmax(1)
    said_BTC = part.tokens[torch.arange(len(surest_B)), surest_B].unsqueeze(1).expand_as(part.tokens)
    return replace(part, tokens=said_BTC)


def frozen(part: ExpertFeatures) -> ExpertFeatures:
    """Every picture gets what the expert saw in one of the batch, the one it had most to say about."""
    fullest = int((part.confidence > 0).sum(1).argmax())
    return part.map(lambda values: values[fullest : fullest + 1].expand_as(values))


def not_numbers(part: ExpertFeatures) -> ExpertFeatures:
    """Tokens that are NaN; the confidence stays."""
    return replace(part, tokens=torch.full_like(part.tokens, float("nan")))


def where(chosen_B: torch.Tensor, part: ExpertFeatures, otherwise: ExpertFeatures) -> ExpertFeatures:
    """``part`` for the chosen pictures, ``otherwise`` for the rest."""
    chosen_B = chosen_B.to(part.tokens.device)
    places = otherwise.places
    if places is not None and part.places is not None:
        places = torch.where(chosen_B[:, None, None], part.places, places)
    return ExpertFeatures(
        torch.where(chosen_B[:, None, None], part.tokens, otherwise.tokens),
        torch.where(chosen_B[:, None], part.confidence, otherwise.confidence),
        places,
    )


def draw_experts(count: int, experts: int, chance: float, generator: torch.Generator) -> Tensor:
    """At most one expert per picture, drawn with this chance: (B,) long, -1 for none."""
    befalls = torch.rand(count, generator=generator) < chance
    whom = torch.randint(0, experts, (count,), generator=generator)
    return torch.where(befalls, whom, -1)


def draw_stuck(count: int, generator: torch.Generator) -> Tensor:
    """For which pictures a corrupted expert is `stuck`, instead of describing another picture: (B,) bool."""
    return torch.rand(count, generator=generator) < STUCK


def corrupt(features: Mapping[str, ExpertFeatures], expert_B: Tensor, stuck_B: Tensor) -> dict[str, ExpertFeatures]:
    """The features, with one expert of some pictures corrupted (`draw_experts`, `draw_stuck`): as confident as before,
    it says what it saw in another picture of the batch, or is stuck at its surest slot."""
    corrupted: dict[str, ExpertFeatures] = {}
    for index, (name, part) in enumerate(features.items()):
        mine_B = expert_B == index
        corrupted[name] = where(mine_B & stuck_B, stuck(part), where(mine_B & ~stuck_B, of_the_next(part), part))
    return corrupted
