"""How a gate learns from each item: it predicts what every expert contributes to one answer about one picture.

Letters: R rows of the whole batch, S questions per row, E experts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.fusion.calibration import LOSS, Calibration, measured
from astrea.fusion.item_gate import predicted_contributions, squashed
from astrea.fusion.training import TrainingStep


class ItemCalibration(Calibration):
    """Regression of every item's own contributions, in place of the means per template.

        y_e = d_e+ / (1 + d_e+),  d_e = loss(without e) - loss(with);   p_e = c_e / (1 + c_e)
        loss = mean over items and experts of  - y_e log p_e - (1 - y_e) log(1 - p_e)

    c_e are the contributions that the gate predicts for the item (`predicted_contributions` of its weights). The loss
    is least where p_e is the mean of y_e given what the gate sees. Source: our own.

    Attributes:
        delta: (R', S, E) what was measured for the first rows of this micro-step; None where nothing was.
    """

    delta: Tensor | None = None

    def measure(self, step: TrainingStep) -> None:
        self.delta = measured(step)

    def loss(self, step: TrainingStep, shares: Tensor, load_bias: Tensor) -> dict[str, Tensor]:
        """Take in the weights (local R, S, E) of the local rows; the cross-entropy to what was measured in this step.
        Only complete rows count: contributions are measured with all experts present and sound."""
        self.take(step, shares)
        delta, self.delta = self.delta, None
        if delta is None:
            return {}
        counts = (step.groups >= 0) & step.complete.unsqueeze(1)
        counts[len(delta) :] = False
        wanted = torch.zeros(*counts.shape, delta.shape[-1])
        wanted[: len(delta)] = squashed(delta)
        rows = step.local_rows
        mine = counts[rows]
        found = squashed(predicted_contributions(shares[mine], load_bias)).clamp(1e-6, 1 - 1e-6)
        wrong = F.binary_cross_entropy(found, wanted[rows][mine].to(found), reduction="sum")
        # A small batch may have no complete row: nothing to learn from, and a mean over nothing would be NaN.
        return {LOSS: wrong / max(1, int(counts.sum()) * delta.shape[-1])}
