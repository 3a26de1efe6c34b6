"""Pre-alignment by the answers themselves: adapter by adapter learns to be read by the frozen language model.

Eagle (arXiv 2408.15998, section on pre-alignment) first trains each expert alone against the frozen language model with
the next-token loss, and joins the experts afterwards. There every expert has a projector of its own in that stage;
here the adapter is that projector, and the language model reads its tokens as they are, without the fusion strategy.
Simplified: Eagle tunes the vision encoder with its projector, here experts are frozen in every stage.

Letters: B pictures, S questions, T all experts' tokens, O tokens of the one expert, D language-model width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.data.packing import Packer
from astrea.experts.protocol import index_select
from astrea.fusion.protocol import FusionStrategy, VisualTokens, equal_shares
from astrea.training.context import TrainingContext
from astrea.training.stages.batch import InstructBatch, packed_rows
from astrea.training.stages.instruct import InstructObjective


class OneExpert(FusionStrategy):
    """An expert's aligned tokens as they are, and nothing else: (B, O, D). It has nothing to learn."""

    def __init__(self, index: int, tokens: int) -> None:
        super().__init__()
        self.index, self.num_tokens = index, tokens

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        own_T = matrix.expert == self.index
        shares_BSE = equal_shares(matrix.present, question_BSD.shape[1])
        return VisualTokens(matrix.tokens[:, own_T], matrix.valid[:, own_T], shares_BSE, None)


class NextTokenAlignObjective(InstructObjective):
    """Align the expert ``joining`` alone: the batches of `InstructObjective`, its next-token loss, one adapter.

    Args:
        offset: optimizer steps of the phases before, so that the stream of samples goes on where they stopped.
    """

    def __init__(self, ctx: TrainingContext, *, joining: str, offset: int) -> None:
        stage = ctx.recipe.align
        super().__init__(ctx, f"align/{joining}", stage, offset=offset * stage.accumulate, weights={"lm": 1.0})
        self.joining = joining
        alignment = ctx.model.alignment
        index = alignment.names.index(joining)
        self.fusion = OneExpert(index, alignment.counts[index])
        self.packer = Packer(ctx.tokenizer, self.fusion.num_tokens)

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        if "adapters" in self.stage.train:
            adapter = self.ctx.model.alignment.adapters[self.joining]
            yield from ((f"adapters.{self.joining}.{name}", p, 1.0) for name, p in adapter.named_parameters())

    def loss(self, batch: InstructBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        ranks = self.ctx.ranks
        rows = ranks.local_slice(len(batch.groups))
        shown = batch.shown[batch.shown_in(rows)]
        seen = {name: part for name, part in self.ctx.encode(batch.samples).items() if name == self.joining}
        features = index_select(seen, shown) if len(shown) else None
        packed = packed_rows(batch.packed, rows)
        inputs = {name: value.to(ranks.device) for name, value in packed.model_inputs().items()}
        loss = self.ctx.model(
            **inputs,
            features=features,
            fusion=self.fusion,
            num_items_in_batch=batch.labelled,
            use_cache=False,
            answers_only=True,
        ).loss
        return loss, {"lm": loss.item()}
