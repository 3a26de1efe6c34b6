"""Progressive pre-alignment: experts are aligned with the language model's space one at a time.

For the k-th expert only its adapter, the heads and the contrast's temperature learn; the language model is frozen:

    L_k = word * L_word + caption_words * L_whole_words
          + itc * ITC(p(X_k), t) + agree * ITC(p(X_k), stop_grad(mean of the experts already aligned))
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.data.protocol import Samples, sample_names
from astrea.experts.protocol import index_select
from astrea.training.context import CaptionBatch, TrainingContext
from astrea.training.loop import Objective
from astrea.training.losses.protocol import AlignLoss, AlignStep
from astrea.training.losses.registry import build_losses

AlignBatch = tuple[Samples, CaptionBatch]
"""Pictures, and the text that is read of each."""


class AlignObjective(Objective):
    """Align the expert ``joining`` against the text and the experts in ``aligned``; ``joining`` None = all together."""

    def __init__(self, ctx: TrainingContext, *, joining: str | None, aligned: list[str], offset: int) -> None:
        self.ctx = ctx
        self.joining = joining
        self.aligned = aligned
        self.offset = offset
        self.names = (joining,) if joining else tuple(ctx.model.experts.names)
        ctx.contrast.queue.clear()
        self.weights = ctx.recipe.align.losses.weights
        self.losses = build_losses(AlignLoss, self.weights, ctx)  # type: ignore[type-abstract]
        if not self.losses or set(self.losses) == {"agree"}:
            raise AstreaError(
                "align has no loss", "give align.losses.caption_words, word or itc a weight, or set steps: 0"
            )

    @property
    def idle(self) -> bool:
        own = {"adapters", "picture_head", "text_head"}
        learns = any(name.partition(".")[0] in own for name, _, _ in self.trainable())
        return not learns or not any(loss.teaches(self.names) for loss in self.losses.values())

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        alignment = self.ctx.model.alignment
        learns = self.ctx.recipe.align.train
        for name in self.names if "adapters" in learns else []:
            for part, p in alignment.adapters[name].named_parameters():
                # Not the residual of places: by them a picture can be known by heart.
                if not part.startswith("residuals."):
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
        local = ctx.ranks.local_slice(len(captions.tokens))
        features = index_select(ctx.encode(samples), local)
        matrix = ctx.model.with_words(alignment({name: features[name] for name in self.names}))
        aligned = tuple(self.aligned) if self.joining else ()
        here = AlignStep(
            samples=samples,
            captions=captions,
            local=local,
            features=features,
            matrix=matrix,
            head=alignment.picture_head,
            learning=self.names,
            aligned=aligned,
            number=self.offset + step,
        )
        found = {name: loss(here) for name, loss in self.losses.items()}
        parts = {name: self.weights[name] * part for name, part in found.items() if part is not None}
        return sum(parts.values()), {name: part.item() for name, part in parts.items()}  # type: ignore[return-value]

    def after_step(self, step: int) -> None:
        self.ctx.contrast.follow(self.ctx.model.alignment)
        for loss in self.losses.values():
            loss.after_step()

    def describe(self, batch: AlignBatch) -> str:
        return sample_names(batch[0])
