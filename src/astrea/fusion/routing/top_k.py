"""Top-k routing, with top-1 (Switch Transformers) among it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from astrea.fusion.draws import rand_rows
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Scored, Sparse, check_choice
from astrea.fusion.routing.route import Route, Scores, largest, unevenness


class TopK(Scored, Sparse):
    """The k most probable experts, at their probabilities, and a loss that evens the load.

        p = softmax(z);  K = the k largest of p;  w = p on K (k = 1: Switch Transformers, arXiv 2101.03961)
        w = p / sum of p over K (k > 1: arXiv 1701.06538; GShard, arXiv 2006.16668)
        loss = balance * E * sum_e f_e P_e

    Divided by their sum, the one weight of k = 1 would be 1, and no gradient of the answers would reach the router.
    Simplified: no capacity, since every expert looks at every picture anyway.
    """

    policy: Literal["top_k"] = "top_k"
    k: PositiveInt = 2
    balance: float = Field(0.01, ge=0, description="weight of the balancing loss")

    def scorer(self, layout: Layout) -> nn.Module:
        check_choice(self.k, len(layout.names), "experts")
        return super().scorer(layout)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        probability = scores.probability()
        chosen = largest(probability, scores.present, self.k)
        weight = probability * chosen
        if self.k > 1:
            weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-9)
        return Route(weight, chosen, self.balance * unevenness(probability, chosen, scores.asked))


def drawn(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Logits with Gumbel noise, whose k largest are a draw without replacement from the softmax (arXiv 1903.06059): in
    training an expert that is never kept could never learn to be. Without a generator, as they are."""
    if generator is None:
        return logits
    even = rand_rows(*logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(logits)
    return logits - torch.log(-torch.log(even))
