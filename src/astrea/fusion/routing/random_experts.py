"""Random routing with a consistency loss."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from astrea.fusion.draws import rand_rows
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Sparse, check_choice
from astrea.fusion.routing.route import Route, Scores, largest
from astrea.fusion.routing.router import Even
from astrea.fusion.training import Output, TrainingStep


class RandomExperts(Sparse):
    """No router: every training question reads k experts drawn at random, twice, and both answers should agree, after
    THOR (arXiv 2110.04260).

        L = CE_1 + CE_2 + consistency * (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2     p_i: the words' distributions

    There an expert is drawn per layer and batch, and again at inference. Here it is drawn per question, and at
    evaluation all experts are read at equal weights, which is the mean of what was trained.
    """

    policy: Literal["random"] = "random"
    k: PositiveInt = 2
    consistency: float = Field(1.0, ge=0, description="weight of the symmetric divergence of both answers")

    def scorer(self, layout: Layout) -> nn.Module:
        check_choice(self.k, len(layout.names), "experts")
        return Even()

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        chosen = scores.present.expand_as(scores.logits)
        if generator is not None:
            draw = rand_rows(*scores.logits.shape, generator=generator, per_question=True).to(scores.logits.device)
            chosen = largest(draw, scores.present, self.k)
        return Route(chosen / chosen.sum(-1, keepdim=True).clamp_min(1), chosen)

    def losses(self, step: TrainingStep, output: Output, names: tuple[str, ...]) -> dict[str, Tensor]:
        first, second = step.answers(output), step.answers(step.forward("second draw"))
        apart = divergence(first.logits, second.logits)
        return {"second": second.mean(second.losses()), "consistency": self.consistency * first.mean(apart)}


def divergence(one_NV: Tensor, other_NV: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence (N,) of the distributions that two sets of logits stand for."""
    one, other = one_NV.log_softmax(-1), other_NV.log_softmax(-1)
    there = F.kl_div(other, one, log_target=True, reduction="none").sum(-1)
    back = F.kl_div(one, other, log_target=True, reduction="none").sum(-1)
    return (there + back) / 2
