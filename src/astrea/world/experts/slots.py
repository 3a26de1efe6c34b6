"""Compact experts of slots: how many slots there are, and pictures larger than those of training.

Their networks are convolutions of stride 2 and 4, so weights that were trained on 64 pixels see things of the same size
in pixels on any larger canvas. Only what they say as a share of the picture is to be brought from one to the other.

Letters: B batch, T slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.experts.protocol import ORDINALS
from astrea.world.experts.states import CompactExpert

USUAL_SLOTS, MOST_SLOTS = 8, 64
SMALLEST = 48
"""Side in pixels of the smallest canvas that there is."""


class SlotExpert(CompactExpert):
    """An expert whose tokens are slots for the most likely things.

    trained_at: side in pixels of the pictures that its weights were trained on, where those it looks at are larger;
    None = they are of one size.
    """

    num_tokens = USUAL_SLOTS
    trained_at: int | None = None

    def take_options(self, slots: int, trained_at: int | None) -> None:
        """Declare so many slots, for pictures of that size.

        Raises:
            AstreaError: an option out of range.
        """
        if not 1 <= slots <= MOST_SLOTS:
            raise AstreaError(f"slots: {slots} is not in 1..{MOST_SLOTS}", "set the expert's option slots to so many")
        if trained_at is not None and trained_at < SMALLEST:
            raise AstreaError(
                f"trained_at: pictures of {trained_at} pixels are smaller than any",
                f"set the expert's option trained_at to at least {SMALLEST}, or leave it out",
            )
        self.num_tokens, self.trained_at = slots, trained_at

    def zoom(self, side: int) -> float:
        """How many times as large as those of training pictures of this side are: shares of a picture of training,
        divided by it, are shares of one of these."""
        return 1.0 if self.trained_at is None else side / self.trained_at


def named_ranks(confidence_BT: Tensor) -> Tensor:
    """One-hot rank of every filled slot: (B, T) -> (B, T, 8). Slots after the eighth have no name for theirs."""
    filled = confidence_BT > 0
    ranks_T8 = torch.eye(filled.shape[1], len(ORDINALS), device=filled.device)
    return ranks_T8.expand(len(filled), -1, -1) * filled.unsqueeze(-1)
