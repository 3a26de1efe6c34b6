"""How the gate learns: its weights follow measured contributions, and a bias evens the load.

Letters: R rows of the whole batch, S questions per row, E experts, G groups of questions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.fusion.contribution import Contributions
from astrea.fusion.gate import Gate
from astrea.fusion.training import TrainingStep

LOSS = "contribution"
"""The name of the loss in recipes."""

MEASURED = 16
"""Rows that are answered again without each expert, whenever contributions are measured."""


class Calibration:
    """The gate's state in training.

    Attributes:
        contributions: mean contribution of each expert. taken: weights (N, E) of the questions since the last step.
    """

    def __init__(self, groups: int, experts: int) -> None:
        self.contributions = Contributions(groups, experts)
        self.taken: list[Tensor] = []

    def measure(self, step: TrainingStep) -> None:
        """Measure contributions, in the steps in which that is due."""
        delta = measured(step)
        if delta is None:
            return
        for group in range(len(self.contributions.seen)):
            mine = step.groups[: len(delta)] == group
            if mine.any():
                self.contributions.learn(group, delta[mine].mean(0))

    def loss(self, step: TrainingStep, shares: Tensor, load_bias: Tensor) -> dict[str, Tensor]:
        """Take in the weights (local R, S, E) of the local rows; KL to those that contributions suggest, if that loss
        has a weight. Only complete rows count."""
        asked, groups, complete = step.groups >= 0, step.groups, step.complete
        self.take(step, shares)
        if not (step.weights.get(LOSS) and step.settings.contribution_every):
            return {}
        known, rows = self.contributions, step.local_rows
        target = known.targets(load_bias.cpu())[groups]
        counts = asked & complete.unsqueeze(1) & (known.seen[groups] > 0)
        share = shares[counts[rows]]
        share = torch.cat([share, 1 - share.sum(1, keepdim=True)], 1).clamp_min(1e-6)
        wanted = target[rows][counts[rows]].to(share)
        # A small batch may have no complete row: nothing to learn from, and a mean over nothing would be NaN.
        kl = F.kl_div(share.log(), wanted, reduction="sum") / max(1, int(counts.sum()))
        return {LOSS: kl}

    def take(self, step: TrainingStep, shares: Tensor) -> None:
        """Remember the weights (local R, S, E) of the local rows for the load bias; only complete rows count."""
        complete = step.complete
        everyone = step.gather(shares.detach(), len(complete))
        self.taken.append(everyone[complete][(step.groups >= 0)[complete]])

    def after_step(self, gate: Gate, rate: float) -> None:
        """Move the load bias by what was taken since the last step; ``rate``: its step size."""
        if self.taken:
            gate.update_load(torch.cat(self.taken), rate=rate)
        self.taken.clear()


def measured(step: TrainingStep) -> Tensor | None:
    """Contributions (R', S, E) to the answers of the first rows of the batch; None in steps in which none is due."""
    every = step.settings.contribution_every
    if not (step.weights.get(LOSS) and every) or step.number % every:
        return None
    return step.leave_one_out(MEASURED)
