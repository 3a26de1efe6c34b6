"""Momentum contrast between fused tokens and texts, beyond the batch by its queue."""

from __future__ import annotations

import torch
from torch import Tensor

from astrea.experts.protocol import index_select
from astrea.model.outputs import AstreaOutput
from astrea.training.losses.protocol import InstructLoss
from astrea.training.losses.queued_contrast import QueuedContrast
from astrea.training.stages.batch import backfill, captions_at
from astrea.training.stages.step import InstructStep


class FusedContrast(QueuedContrast, InstructLoss):
    """``itc`` of the stages fuse and tune. Keys are computed with every expert present, from uncorrupted features."""

    def __call__(self, step: InstructStep, output: AstreaOutput) -> Tensor | None:
        batch = step.batch
        if not batch.samples.pictures:
            return None
        ctx, model, ranks, size = self.ctx, self.ctx.model, self.ctx.ranks, len(batch.captions.tokens)
        # A text without a picture has nothing to be compared with: the next one that has takes its place.
        place = backfill(batch.samples.first >= 0)
        captions, first = captions_at(batch.captions, place), batch.samples.first[place]
        local, frozen = ranks.local_slice(size), "language_model" not in step.stage.train
        states = ctx.text_states(captions, local, frozen=frozen)
        ids, shown = captions.ids.to(ranks.device), first[local]
        picture = model.picture_vectors(index_select(step.corrupted, shown), batch.present[shown].to(ranks.device))
        text = model.alignment.text_head(states)
        with torch.no_grad():
            key = model.picture_vectors(index_select(step.features, shown), alignment=ctx.contrast.copy)
            picture_key = ranks.gather(key, size)
            text_key = ranks.gather(ctx.contrast.copy.text_head(states), size)
        return self.contrast(picture, text, picture_key, text_key, ids, ctx.recipe.contrast.soft_targets, local)
