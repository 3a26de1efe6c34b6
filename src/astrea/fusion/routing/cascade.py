"""A cheap expert alone where it is sure, all experts elsewhere."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Scored, Sparse, find_expert, is_expert
from astrea.fusion.routing.route import Route, Scores
from astrea.fusion.routing.router import Router
from astrea.fusion.training import Output, TrainingStep


class Cascade(Scored, Sparse):
    """Confidence decides who answers, after the mixture of weak and strong experts (Mowst, arXiv 2311.05185).

        C = (Var(p) / its largest possible value) ^ alpha     p: the weak answer's distribution of its first word
        L = C * L_weak + (1 - C) * L_strong;  evaluation: weak alone where C > threshold, or else all experts

    There C is read off the weak expert's own answer. A question's tokens are chosen before it is answered, so here a
    router learns to predict C from the question and what the weak expert says: cross-entropy to the measured C. There
    weak and strong learn in turns; here they are one language model, and learn together.
    """

    policy: Literal["cascade"] = "cascade"
    expert: str | None = Field(None, description="the weak one; by default captioning, or else the first")
    alpha: float = Field(1.0, gt=0)
    threshold: float = Field(0.5, ge=0, le=1)

    def scorer(self, layout: Layout) -> nn.Module:
        if len(layout.names) < 2:
            raise AstreaError("the policy cascade needs experts beside the weak one", "name another expert")
        weak = find_expert(layout.names, self.expert, "the weak expert")
        return OfOneExpert(Router(layout.width, 1, self.hidden, self.jitter), weak)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        present = scores.present.expand(-1, scores.logits.shape[1], -1)
        weak = present & is_expert(scores, self.expert, "the weak expert")
        # The weak one may be missing; and in training the strong answer is wanted, `losses` asks for the other.
        sure = (scores.logits.sigmoid() > self.threshold) & weak.any(-1, keepdim=True)
        chosen = torch.where(sure, weak, present) if generator is None else present
        return Route(chosen / chosen.sum(-1, keepdim=True).clamp_min(1), chosen)

    def losses(self, step: TrainingStep, output: Output, names: tuple[str, ...]) -> dict[str, Tensor]:
        weak_E = torch.arange(len(names)) == find_expert(names, self.expert, "the weak expert")
        weak, strong = step.answers(step.forward("weak", weak_E)), step.answers(output)
        begins_Q = weak.first()
        answered_Q = begins_Q >= 0
        measured = confidence(weak.logits[begins_Q[answered_Q]].softmax(-1), self.alpha)
        sure_Q = weak.logits.new_zeros(len(begins_Q)).index_put((answered_Q.nonzero()[:, 0],), measured)
        # The strong answers' loss is there already: C L_weak + (1 - C) L_strong is that and C times the difference.
        better = sure_Q[weak.question] * (weak.losses() - strong.losses())
        predicted_Q = step.per_row(output.router_logits, weak.logits.new_zeros(1)).flatten()
        asked_Q = answered_Q & (step.groups[step.local_rows].flatten() >= 0).to(answered_Q.device)
        target = sure_Q.detach()[asked_Q]
        error = F.binary_cross_entropy_with_logits(predicted_Q[asked_Q], target, reduction="sum")
        return {"cascade": strong.mean(better), "predicted_confidence": error / max(1, int((step.groups >= 0).sum()))}


def confidence(probability: Tensor, alpha: float) -> Tensor:
    """How far a distribution (last axis) is from an even one: its variance over that of a single certain outcome, to
    the power of alpha."""
    outcomes = probability.shape[-1]
    part = (probability.square().sum(-1) - 1 / outcomes) / (1 - 1 / outcomes)
    found: Tensor = part.clamp_min(1e-9) ** alpha
    return found


class OfOneExpert(nn.Module):
    """A router that knows one expert only: logits (B, S, 1)."""

    def __init__(self, router: Router, expert: int) -> None:
        super().__init__()
        self.router, self.expert = router, expert

    def forward(self, question_BSD: Tensor, matrix: ExpertMatrix, generator: torch.Generator | None = None) -> Tensor:
        """The logits (B, S, 1)."""
        mine_B1D = matrix.summary()[0][:, self.expert : self.expert + 1]
        return self.router.logits(*self.router.inputs(question_BSD, mine_B1D, generator))
