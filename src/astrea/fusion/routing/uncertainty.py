"""Routing by how sure the router is."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Scored
from astrea.fusion.routing.route import Route, Scores
from astrea.fusion.routing.router import Router


class Uncertainty(Scored):
    """Several passes of the router with dropout; what they disagree about counts less, after the uncertainty-aware
    router of MoFME (arXiv 2312.16610).

        z_n: the logits of pass n, with dropout in the hidden layer;  m, s: their mean and standard deviation over n
        w = softmax(m / (1 + s))

    Our reading: the paper weighs by mean and variance of such passes, and its public code has no such router. Its
    experts, feature-wise modulations of one shared layer, are not part of this: the vision experts stand in their
    place. At evaluation the passes drop the same units every time.
    """

    policy: Literal["uncertainty"] = "uncertainty"
    passes: int = Field(4, ge=2)
    dropout: float = Field(0.1, gt=0, lt=1)

    def scorer(self, layout: Layout) -> nn.Module:
        return DropoutRouter(
            Router(layout.width, len(layout.names), self.hidden, self.jitter), self.passes, self.dropout
        )

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        return Route(scores.probability(), scores.present.expand_as(scores.logits))


class DropoutRouter(nn.Module):
    """A router whose hidden layer loses some of its units, differently in every pass."""

    def __init__(self, router: Router, passes: int, dropout: float) -> None:
        super().__init__()
        self.router, self.passes, self.dropout = router, passes, dropout

    def forward(self, question_BSD: Tensor, matrix: ExpertMatrix, generator: torch.Generator | None = None) -> Tensor:
        """The calibrated logits (B, S, E)."""
        asked_BSD, hidden_BSEH = self.router.inputs(question_BSD, matrix.summary()[0], generator)
        draws = torch.Generator().manual_seed(0) if generator is None else generator
        # All rows lose the same units, so a row is routed as it would be alone.
        kept_NH = torch.rand(self.passes, hidden_BSEH.shape[-1], generator=draws, device=draws.device) >= self.dropout
        masks = kept_NH.to(hidden_BSEH) / (1 - self.dropout)
        return calibrated(torch.stack([self.router.logits(asked_BSD, hidden_BSEH * mask) for mask in masks]))


def calibrated(logits_N: Tensor) -> Tensor:
    """``m / (1 + s)`` of the logits of several passes (first axis)."""
    found: Tensor = logits_N.mean(0) / (1 + logits_N.std(0, correction=0))
    return found
