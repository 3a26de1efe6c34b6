"""Progressive pre-alignment: experts join the language model's space one at a time (see design).

For the k-th expert only its adapter, the heads and the contrast's temperature learn; the language model is frozen:

    L_k = word * L_word + itc * ITC(p(X_k), t) + agree * ITC(p(X_k), stop_grad(mean of the experts already aligned))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.data.protocol import Samples, index_select, sample_names
from astrea.experts.protocol import ExpertFeatures
from astrea.training.context import CaptionBatch, TrainingContext
from astrea.training.loop import Objective
from astrea.training.losses.contrast import agreement

AlignBatch = tuple[Samples, CaptionBatch]
"""Pictures, and the text that is read of each."""


class AlignObjective(Objective):
    """Align the expert ``joining`` against the text and the experts in ``aligned``; ``joining`` None = all together."""

    def __init__(self, ctx: TrainingContext, *, joining: str | None, aligned: list[str], offset: int) -> None:
        self.ctx = ctx
        self.joining = joining
        self.aligned = aligned
        self.offset = offset
        self.losses = ctx.recipe.align.losses
        self.names = [joining] if joining else list(ctx.model.experts.names)
        ctx.contrast.queue.clear()
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []
        if not (self.losses.itc or self.losses.word):
            raise AstreaError(
                "align has no loss", "give align.losses.word or align.losses.itc a weight, or set steps: 0"
            )

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        alignment = self.ctx.model.alignment
        learns = self.ctx.recipe.align.train
        for name in self.names if "adapters" in learns else []:
            for part, p in alignment.adapters[name].named_parameters():
                yield f"adapters.{name}.{part}", p, 1.0
        for head in ("picture_head", "text_head") if "heads" in learns else ():
            for part, p in getattr(alignment, head).named_parameters():
                yield f"{head}.{part}", p, 1.0
        yield "contrast.log_temperature", self.ctx.contrast.log_temperature, 1.0
        yield from ((f"words.{part}", p, 1.0) for part, p in self.ctx.words.named_parameters())

    def batch(self, step: int, micro: int, size: int) -> AlignBatch:
        position = ((self.offset + step) * self.ctx.recipe.align.accumulate + micro) * size
        samples = self.ctx.data.draw(position, size, self.ctx.recipe.seed, pairs=True)
        return samples, self.ctx.captions(samples, "align", self.offset + step, micro)

    def loss(self, batch: AlignBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        samples, captions = batch
        ctx, alignment = self.ctx, self.ctx.model.alignment
        ranks, size = ctx.ranks, len(captions.tokens)
        own = ranks.local_slice(size)
        features = index_select(ctx.encode(samples), own)
        seen = {name: features[name] for name in self.names}
        matrix = alignment(seen)
        ids = captions.ids.to(ranks.device)
        parts: dict[str, Tensor] = {}
        picture = alignment.picture_head(matrix.tokens, matrix.valid)
        if self.losses.itc:
            parts["itc"] = self.losses.itc * self.contrast(seen, picture, captions, ids, own, step)
        if self.losses.agree and self.joining and self.aligned:
            with torch.no_grad():
                others = alignment({name: features[name] for name in self.aligned})
                pooled = [
                    alignment.picture_head(others.tokens, alignment.only(others, alignment.names.index(name)))
                    for name in self.aligned
                ]
                mean = ranks.gather(torch.stack(pooled).mean(0), size)
            agree = agreement(picture, mean, ids, ctx.contrast.temperature(), own)
            parts["agree"] = self.losses.agree * agree
        if self.losses.word:
            table = ctx.model.get_input_embeddings().weight
            word = ctx.words(
                matrix.tokens,
                matrix.valid,
                captions.tokens,
                table,
                own=own,
                gather=lambda rows: ranks.gather(rows, size),
            )
            parts["word"] = self.losses.word * word
        return sum(parts.values()), {name: part.item() for name, part in parts.items()}  # type: ignore[return-value]

    def contrast(
        self,
        seen: Mapping[str, ExpertFeatures],
        picture: Tensor,
        captions: CaptionBatch,
        ids: Tensor,
        own: slice,
        step: int,
    ) -> Tensor:
        """Momentum contrast of pictures with their texts: the only loss that wants the language model to read these.

        Args:
            picture: (own rows, P). ids: (B, 2) as in `CaptionBatch`.
        """
        ctx, ranks, size = self.ctx, self.ctx.ranks, len(captions.tokens)
        states = ctx.text_states(captions, own, frozen=True)
        text = ctx.model.alignment.text_head(states)
        with torch.no_grad():
            slow = ctx.contrast.copy
            slow_matrix = slow(seen)
            picture_key = ranks.gather(slow.picture_head(slow_matrix.tokens, slow_matrix.valid), size)
            text_key = ranks.gather(slow.text_head(states), size)
        self.pending.append((picture_key, text_key, ids))
        soft = ctx.recipe.contrast.soft_targets * min(1.0, (self.offset + step) / max(1, ctx.recipe.align.steps))
        return ctx.contrast.loss(picture, text, picture_key, text_key, ids, soft, own=own)

    def after_step(self, step: int) -> None:
        self.ctx.contrast.follow(self.ctx.model.alignment)
        for keys in self.pending:
            self.ctx.contrast.queue.push(*keys)
        self.pending.clear()

    def describe(self, batch: AlignBatch) -> str:
        return sample_names(batch[0])
