"""What the momentum contrasts of all stages share: the keys of a step wait until the optimizer has stepped."""

from __future__ import annotations

from torch import Tensor

from astrea.training.context import TrainingContext
from astrea.training.losses.protocol import Loss


class QueuedContrast(Loss):
    """A loss whose keys enter the queue of the run's `MomentumContrast` after the step.

    Attributes:
        pending: keys of pictures and of texts, and their ids, of the micro-steps since then.
    """

    def __init__(self, ctx: TrainingContext) -> None:
        super().__init__(ctx)
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def contrast(
        self,
        picture: Tensor,
        text: Tensor,
        picture_key: Tensor,
        text_key: Tensor,
        ids: Tensor,
        soft: float,
        own: slice,
    ) -> Tensor:
        """`MomentumContrast.loss` of a micro-step."""
        self.pending.append((picture_key, text_key, ids))
        return self.ctx.contrast.loss(picture, text, picture_key, text_key, ids, soft, own=own)

    def after_step(self) -> None:
        for keys in self.pending:
            self.ctx.contrast.queue.push(*keys)
        self.pending.clear()
