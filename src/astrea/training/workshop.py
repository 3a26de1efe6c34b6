"""What the stages share: the model, its training-only companions, the data, and the texts in token form."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.alignment.contrast import MomentumContrast
from astrea.alignment.words import WordContrast
from astrea.config import Run
from astrea.data.packing import Packer
from astrea.data.world import WorldData
from astrea.model import AstreaForConditionalGeneration
from astrea.training.seeds import generator_for

GROUPS = ("existence", "counting", "attribute", "spatial", "logic", "reading", "knowledge", "area", "caption")
"""Task groups over which an expert's contribution is measured."""


class Workshop:
    """One training run's moving parts.

    Attributes:
        contrast: momentum copy, queue, temperature. words: the word-level loss. contribution: (G, E) moving average of
        loss(without e) - loss(with), in nats, per task group; kept in checkpoints with the rest.
    """

    def __init__(
        self, run: Run, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, data: WorldData
    ) -> None:
        self.run, self.model, self.tokenizer, self.data = run, model, tokenizer, data
        self.packer = Packer(tokenizer, model.num_visual_tokens)
        self.contrast = MomentumContrast(
            model.alignment,
            width=model.config.contrast_width,
            momentum=run.contrast.momentum,
            queue=run.contrast.queue,
            temperature=run.contrast.temperature,
        )
        told = [[self.packer.ids(text) for text in texts] for texts in data.captions]
        self.told = told
        self.words = WordContrast((ids for texts in told for ids in texts), len(tokenizer))
        self.contribution = torch.zeros(len(GROUPS), len(model.experts.names))
        # The same sentence told of two pictures is one caption: neither may be the other's negative.
        numbers: dict[tuple[int, ...], int] = {}
        self.caption_numbers = [[numbers.setdefault(tuple(ids), len(numbers)) for ids in texts] for texts in told]

    def pick_captions(self, index: Tensor, *purpose: object) -> Tensor:
        """Which caption of each sample is read in this step: (B,)."""
        draw = torch.rand(len(index), generator=generator_for(self.run.seed, "captions", *purpose))
        counts = torch.tensor([len(self.told[i]) for i in index.tolist()])
        return (draw * counts).long()

    def caption_ids(self, index: Tensor, which: Tensor) -> list[list[int]]:
        """Token ids of the chosen captions."""
        return [self.told[i][c] for i, c in zip(index.tolist(), which.tolist(), strict=True)]

    def ids(self, index: Tensor, which: Tensor) -> Tensor:
        """(B, 2) sample id and caption id, for the queue."""
        numbers = [self.caption_numbers[i][c] for i, c in zip(index.tolist(), which.tolist(), strict=True)]
        return torch.stack([index, torch.tensor(numbers)], 1)

    def caption_states(self, index: Tensor, which: Tensor) -> Tensor:
        """The language model's mean hidden state of the chosen captions (B, D), without gradient: the target space."""
        told = self.caption_ids(index, which)
        length = max(map(len, told))
        ids = torch.tensor([row + [self.packer.pad] * (length - len(row)) for row in told])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in told])
        return self.model.text_states(ids, mask)
