"""Mean contribution of each expert so far, per kind of task: the target that gate weights are calibrated to.

Letters: G task groups, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

DECAY = 0.95
"""Of the moving average, once there have been enough measurements for one."""

NOISE = 0.005
"""Nats added to every contribution: differences of this size are noise."""

NOBODY = 1.0
"""Nats, the root of which stands beside those of the experts for what no single one is needed for."""


class Contributions:
    """Moving averages of loss(without e) - loss(with), in nats, with how often each group was measured.

    Attributes:
        table: (G, E). seen: (G,).
    """

    def __init__(self, groups: int, experts: int) -> None:
        self.table = torch.zeros(groups, experts)
        self.seen = torch.zeros(groups)

    def learn(self, group: int, measured_E: Tensor) -> None:
        """Take in one measurement. The first few are averaged evenly: a start at zero would be a claim."""
        self.seen[group] += 1
        self.table[group].lerp_(measured_E, max(1 - DECAY, 1 / float(self.seen[group])))

    def targets(self, load_bias_E: Tensor) -> Tensor:
        """Shares (G, E + 1) in proportion to the square roots of contributions, shifted by the load bias; the last is
        nobody's, so that where contributions are small, so are the shares.

        The root, because loss without an expert says too little of one that others can stand in for: in plain
        proportion the one that nobody replaces would take nearly all. The bias enters here as it enters the shares, so
        that balancing the load and calibrating do not pull against each other: what is learned is the share as it would
        be without the bias.
        """
        gain = (self.table.clamp_min(0) + NOISE).sqrt()
        return F.pad(gain.log() + load_bias_E, (0, 1), value=math.log(NOBODY) / 2).softmax(1)

    def state_dict(self) -> dict[str, Tensor]:
        """For checkpoints."""
        return {"table": self.table, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        self.table.copy_(state["table"])
        self.seen.copy_(state["seen"])
