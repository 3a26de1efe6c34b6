"""Top-p routing: harder questions read more experts."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from astrea.fusion.routing.policy import Scored, Sparse
from astrea.fusion.routing.route import Route, Scores, entropy, unevenness


class TopP(Scored, Sparse):
    """As many experts as reach a mass, after "Harder Tasks Need More Experts" (arXiv 2403.07652).

        p = softmax(z);  the smallest prefix of the sorted p whose mass reaches tau is read;  w = p on it
        loss = balance * E * sum_e f_e P_e + sharpness * mean entropy(p)

    Without the entropy the router could read everything by being undecided.
    """

    policy: Literal["top_p"] = "top_p"
    tau: float = Field(0.4, gt=0, le=1, description="mass that the experts read must reach")
    balance: float = Field(0.01, ge=0, description="weight of the balancing loss")
    sharpness: float = Field(1e-4, ge=0, description="weight of the mean entropy")

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        probability = scores.probability()
        chosen = smallest_prefix(probability, self.tau) & scores.present
        loss = self.balance * unevenness(probability, chosen, scores.asked)
        loss = loss + self.sharpness * scores.mean(entropy(probability))
        return Route(probability * chosen, chosen, loss)


def smallest_prefix(probability: Tensor, mass: float) -> Tensor:
    """The fewest largest entries (last axis) whose sum reaches a mass, the one that crosses it included; bool."""
    order = probability.argsort(dim=-1, descending=True, stable=True)
    largest_first = probability.gather(-1, order)
    before = largest_first.cumsum(-1) - largest_first
    # The very first is always read, whatever rounding says.
    kept = (before < mass - 1e-6) | (torch.arange(probability.shape[-1], device=order.device) == 0)
    return torch.zeros_like(kept).scatter(-1, order, kept)
