"""Grouped routing: as many experts of every group."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Scored, Sparse, check_choice
from astrea.fusion.routing.route import Route, Scores, largest, load_figures, unevenness


class Grouped(Scored, Sparse):
    """The k most probable experts of every group, after Pangu Pro MoE (MoGE, arXiv 2505.21411).

        p = softmax(z) over all;  K = the k largest of p inside each of M groups;  w = p on K
        loss = balance * E * sum_e f_e P_e
        figure: mean over questions of (largest - smallest number of experts read in a group), 0 by construction

    There a group is what one device holds. Here groups are equally many experts each, in the order of the recipe. No
    shared expert: that is the policy ``shared``.
    """

    policy: Literal["grouped"] = "grouped"
    groups: PositiveInt = 2
    k: PositiveInt = Field(1, description="experts read per group")
    balance: float = Field(0.01, ge=0, description="weight of the balancing loss")

    def scorer(self, layout: Layout) -> nn.Module:
        experts = len(layout.names)
        if experts % self.groups:
            raise AstreaError(
                f"{experts} experts do not divide into {self.groups} equal groups", "choose another number of groups"
            )
        check_choice(self.k, experts // self.groups, "experts of a group")
        return super().scorer(layout)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        probability = scores.probability()
        present = scores.present.expand_as(probability)
        chosen = largest(self.by_group(probability), self.by_group(present), self.k).flatten(-2)
        return Route(probability * chosen, chosen, self.balance * unevenness(probability, chosen, scores.asked))

    def figures(self, shares_NE: Tensor) -> dict[str, float]:
        read_NM = self.by_group(shares_NE > 0).sum(-1).float()
        return load_figures(shares_NE) | {"imbalance": float((read_NM.amax(-1) - read_NM.amin(-1)).mean())}

    def by_group(self, x: Tensor) -> Tensor:
        """(..., E) as (..., M, E / M)."""
        found: Tensor = x.unflatten(-1, (self.groups, -1))
        return found
