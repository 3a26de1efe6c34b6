"""The losses of pre-alignment: words, pictures with their captions, and agreement with the experts already aligned.

Letters: B samples of the whole batch, P contrast width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from astrea.training.losses.contrast import agreement
from astrea.training.losses.protocol import AlignLoss, AlignStep
from astrea.training.losses.queued_contrast import QueuedContrast


class PictureCaptionContrast(QueuedContrast, AlignLoss):
    """``itc``: momentum contrast of pictures with their captions."""

    def __call__(self, step: AlignStep) -> Tensor:
        ctx, ranks, size = self.ctx, self.ctx.ranks, len(step.captions.tokens)
        states = ctx.text_states(step.captions, step.local, frozen=True)
        ids = step.captions.ids.to(ranks.device)
        text = ctx.model.alignment.text_head(states)
        with torch.no_grad():
            slow = ctx.contrast.copy
            matrix = ctx.model.with_words(slow({name: step.features[name] for name in step.learning}))
            picture_key = ranks.gather(slow.picture_head(matrix.tokens, matrix.valid), size)
            text_key = ranks.gather(slow.text_head(states), size)
        recipe = ctx.recipe
        soft = recipe.contrast.soft_targets * min(1.0, step.number / max(1, recipe.align.steps))
        return self.contrast(step.picture, text, picture_key, text_key, ids, soft, step.local)


class AlignedAgreement(AlignLoss):
    """``agree``: contrast with the mean of the experts that are aligned already; nothing for the first one."""

    def __call__(self, step: AlignStep) -> Tensor | None:
        if not step.aligned:
            return None
        ctx, alignment = self.ctx, self.ctx.model.alignment
        with torch.no_grad():
            others = ctx.model.with_words(alignment({name: step.features[name] for name in step.aligned}))
            pooled = [
                alignment.picture_head(others.tokens, alignment.only(others, alignment.names.index(name)))
                for name in step.aligned
            ]
            mean = ctx.ranks.gather(torch.stack(pooled).mean(0), len(step.captions.tokens))
        ids = step.captions.ids.to(ctx.ranks.device)
        return agreement(step.picture, mean, ids, ctx.contrast.temperature(), step.local)


class CaptionWords(AlignLoss):
    """``word``: every telling word of a caption finds its token (`astrea.training.losses.words`)."""

    def __call__(self, step: AlignStep) -> Tensor:
        ctx, tokens = self.ctx, step.captions.tokens
        return ctx.words(  # type: ignore[no-any-return]
            step.matrix.tokens,
            step.matrix.valid,
            tokens,
            ctx.model.get_input_embeddings().weight,
            own=step.local,
            gather=lambda rows: ctx.ranks.gather(rows, len(tokens)),
        )
