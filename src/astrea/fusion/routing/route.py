"""What a routing policy is given and what it decides, and the arithmetic that policies share.

Letters: B pictures, S questions per picture, E experts (or slices of experts, where a policy cuts them).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UNREAD = -1e4
"""Added to the score of what is not read: finite, so that no softmax becomes NaN."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a policy decides from.

    logits: (B, S, E) of the policy's own scorer. present: (B, 1, E) bool, broadcast over questions. asked: (B, S) bool,
    false for what fills up a row with fewer questions than others. names: of the E experts; slices have their expert's.
    """

    logits: Tensor
    present: Tensor
    asked: Tensor
    names: tuple[str, ...]

    def probability(self) -> Tensor:
        """Softmax over the experts that are present (B, S, E); zeros where none is."""
        return softmax_among(self.logits, self.present)

    def mean(self, values_BS: Tensor) -> Tensor:
        """The mean over the questions that are asked."""
        return (values_BS * self.asked).sum() / self.asked.sum().clamp_min(1)


@dataclass(frozen=True, slots=True)
class Route:
    """What a policy decided.

    weight: (B, S, E), how much a question leans on each expert; 0 for those not chosen. chosen: (B, S, E) bool, which
    it reads. loss: what the policy wants added in training, weighted by its own settings; None where it wants nothing.
    """

    weight: Tensor
    chosen: Tensor
    loss: Tensor | None = None


def softmax_among(logits: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over what is allowed (last axis), exactly 0 elsewhere, zeros where nothing is."""
    found: Tensor = logits.masked_fill(~allowed, UNREAD).softmax(-1) * allowed
    return found


def largest(score: Tensor, allowed: Tensor, k: int) -> Tensor:
    """The k largest of what is allowed (last axis), fewer where fewer are; bool. Of equals, the first."""
    order = score.masked_fill(~allowed, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    allowed = allowed.expand_as(score)
    return torch.zeros_like(allowed).scatter(-1, order[..., :k], True) & allowed


def entropy(probability: Tensor) -> Tensor:
    """Of distributions along the last axis, in nats."""
    return -(probability * probability.clamp_min(1e-9).log()).sum(-1)


def unevenness(probability_BSE: Tensor, chosen_BSE: Tensor, asked_BS: Tensor) -> Tensor:
    """``E sum_e f_e P_e`` over the questions (Switch Transformers, equation 4): 1 when experts are chosen evenly, E
    when one takes all. f_e is the part of all choices that fell on e, P_e the mean probability of e."""
    asked_BS1 = asked_BS.unsqueeze(-1)
    taken_BSE = chosen_BSE & asked_BS1
    routed_E = taken_BSE.sum((0, 1)) / taken_BSE.sum().clamp_min(1)
    mean_E = (probability_BSE * asked_BS1).sum((0, 1)) / asked_BS.sum().clamp_min(1)
    return probability_BSE.shape[-1] * (routed_E * mean_E).sum()


def load_figures(shares_NE: Tensor) -> dict[str, float]:
    """How many experts a question reads, and the largest mean share over the mean one: 1 when the load is even.

    Args:
        shares_NE: shares of N questions, one at least.
    """
    load_E = shares_NE.mean(0)
    return {
        "experts_read": float((shares_NE > 0).sum(-1).float().mean()),
        "load_max_over_mean": float(load_E.max() / load_E.mean().clamp_min(1e-9)),
    }
