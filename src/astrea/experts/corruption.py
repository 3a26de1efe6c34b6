"""What a broken expert says: another picture's truth, one thing for ever, or nothing that is a number.

Letters: B pictures, T tokens of one expert, C width of its tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from astrea.experts.protocol import ExpertFeatures


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
