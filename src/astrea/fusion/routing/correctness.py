"""A router that learns online which experts would have been right by themselves."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from astrea.fusion.routing.policy import Scored, Sparse
from astrea.fusion.routing.route import Route, Scores, largest
from astrea.fusion.training import Output, TrainingStep


class Correctness(Scored, Sparse):
    """After DriftMoE (arXiv 2507.18464): the router is taught by a mask of correct experts and by nothing else.

        mask_e = 1 where the answer with expert e alone is right;  loss = BCE(z, mask)
        read: experts with sigmoid(z_e) >= 1/2, or else the most likely one;  w = sigmoid(z) among them, normalised

    Where no expert is right, there the expert of the true class is marked. Experts here have no class, so the one with
    the smallest loss is. Right means that every word of the answer is the likeliest, given those before it. Answering
    with every expert costs a pass each, so the mask is made in one step of ``every``.
    """

    policy: Literal["correctness"] = "correctness"
    every: PositiveInt = 5

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        likely = scores.logits.detach().sigmoid() * scores.present
        chosen = ((likely >= 0.5) & scores.present) | largest(likely, scores.present, 1)
        weight = likely * chosen
        return Route(weight / weight.sum(-1, keepdim=True).clamp_min(1e-9), chosen)

    def losses(self, step: TrainingStep, output: Output, names: tuple[str, ...]) -> dict[str, Tensor]:
        if step.number % self.every:
            return {}
        with torch.no_grad():
            only = torch.eye(len(names), dtype=torch.bool)
            alone = [step.answers(step.forward(f"alone {name}", only[e])) for e, name in enumerate(names)]
        right_QE = torch.stack([each.right() for each in alone], -1)
        loss_QE = torch.stack([each.per_question(each.losses()) for each in alone], -1)
        logits_QE = step.per_row(output.router_logits, loss_QE.new_zeros(len(names))).flatten(0, 1)
        asked_Q = (step.groups[step.local_rows].flatten() >= 0).to(logits_QE.device)
        target = correct(right_QE, loss_QE)[asked_Q].to(logits_QE)
        error = F.binary_cross_entropy_with_logits(logits_QE[asked_Q], target, reduction="sum")
        return {"correctness": error / max(1, int((step.groups >= 0).sum()) * len(names))}


def correct(right_QE: Tensor, loss_QE: Tensor) -> Tensor:
    """The mask (Q, E) bool: who is right, or where nobody is, who is least wrong."""
    least = F.one_hot(loss_QE.argmin(-1), loss_QE.shape[-1]).bool()
    return torch.where(right_QE.any(-1, keepdim=True), right_QE, least)
