"""A shared expert beside fine-grained routed ones."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Scored, Sparse, check_choice, find_expert, is_expert
from astrea.fusion.routing.route import Route, Scores, largest, softmax_among, unevenness


class Shared(Scored, Sparse):
    """Experts cut into slices, of which a few are chosen, and one expert that is always read, after DeepSeekMoE
    (arXiv 2401.06066).

        p = softmax(z) over the slices of all other experts;  K = the k largest;  w = p on K, not renormalised
        w = 1 on the shared expert;  loss = balance * U * sum_u f_u P_u over the slices of the others

    There an expert is a feed-forward layer, and a slice part of its hidden units. Here an expert is its tokens, and a
    slice is part of them, in their order: of an expert with 8 tokens, two slices hold 4 each.
    """

    policy: Literal["shared"] = "shared"
    expert: str | None = Field(None, description="the shared one; by default captioning, or else the first")
    slices: PositiveInt = Field(2, description="per expert")
    k: PositiveInt = Field(3, description="slices read besides the shared expert")
    balance: float = Field(0.01, ge=0, description="weight of the balancing loss")

    @property
    def parts(self) -> int:
        return self.slices

    def scorer(self, layout: Layout) -> nn.Module:
        find_expert(layout.names, self.expert, "the shared expert")
        check_choice(self.k, (len(layout.names) - 1) * self.slices, "slices")
        return super().scorer(layout)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        shared_U = is_expert(scores, self.expert, "the shared expert")
        routed = scores.present & ~shared_U
        probability = softmax_among(scores.logits, routed)
        chosen = largest(probability, routed, self.k)
        uneven = unevenness(probability[..., ~shared_U], chosen[..., ~shared_U], scores.asked)
        always = (scores.present & shared_U).expand_as(chosen)
        return Route(probability * chosen + always, chosen | always, self.balance * uneven)
