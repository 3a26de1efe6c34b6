"""What the stages share: the model, its training-only companions, the data, and the texts in token form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.alignment.contrast import MomentumContrast
from astrea.alignment.words import WordContrast
from astrea.config import Run
from astrea.data.cache import FeatureCache
from astrea.data.packing import Packer
from astrea.data.world import Progress, WorldData
from astrea.experts.protocol import ExpertFeatures
from astrea.fingerprint import tensors_fingerprint
from astrea.model import AstreaForConditionalGeneration
from astrea.training.contribution import Contributions
from astrea.training.distributed import ALONE, Distributed
from astrea.training.lies import as_told
from astrea.training.seeds import generator_for

GROUPS = ("existence", "counting", "attribute", "spatial", "logic", "reading", "knowledge", "area", "caption")
"""Task groups over which an expert's contribution is measured."""

STATES_AT_ONCE = 128


class Workshop:
    """One training run's moving parts.

    Attributes:
        contrast: momentum copy, queue, temperature. words: the word-level loss. contributions: what each expert
        was worth so far; kept in checkpoints with the rest. kept_states: see `keep_states`. ranks: the processes that
        share the work. Data and indices are on the processor, what is computed is on ``ranks.device``.
    """

    def __init__(
        self,
        run: Run,
        model: AstreaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        data: WorldData,
        ranks: Distributed = ALONE,
    ) -> None:
        self.run, self.model, self.tokenizer, self.data = run, model.to(ranks.device), tokenizer, data  # type: ignore[arg-type]
        self.ranks = ranks
        self.packer = Packer(tokenizer, model.num_visual_tokens)
        self.contrast = MomentumContrast(
            model.alignment,
            width=model.config.contrast_width,
            momentum=run.contrast.momentum,
            queue=run.contrast.queue,
            temperature=run.contrast.temperature,
        ).to(ranks.device)
        told = [[self.packer.ids(text) for text in texts] for texts in data.captions]
        self.told = told
        self.words = WordContrast((ids for texts in told for ids in texts), len(tokenizer)).to(ranks.device)
        self.kept_states: Tensor | None = None
        counts = torch.tensor([len(texts) for texts in told])
        self.first_caption = counts.cumsum(0) - counts
        self.contributions = Contributions(len(GROUPS), len(model.experts.names))
        # The same sentence told of two pictures is one caption: neither may be the other's negative.
        numbers: dict[tuple[int, ...], int] = {}
        self.caption_numbers = [[numbers.setdefault(tuple(ids), len(numbers)) for ids in texts] for texts in told]

    def rows(self, index: Tensor) -> dict[str, ExpertFeatures]:
        """What the experts saw in some pictures."""
        return self.placed(self.data.rows(index))

    def told_rows(self, index: Tensor, liar: Tensor, stuck: Tensor, own: slice) -> dict[str, ExpertFeatures]:
        """What the experts say of a batch's ``own`` pictures, where some lie (see `as_told`)."""
        # A liar tells of the picture before in the whole batch, so that one is looked up too.
        ring = torch.arange(own.start - 1, own.stop) % len(index)
        told = as_told(self.data.rows(index[ring]), liar[ring], stuck[ring])
        return self.placed({name: part.rows(slice(1, None)) for name, part in told.items()})

    def placed(self, features: dict[str, ExpertFeatures]) -> dict[str, ExpertFeatures]:
        """Features where the model is."""
        return {name: part.map(lambda values: values.to(self.ranks.device)) for name, part in features.items()}

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

    def caption_states(self, index: Tensor, which: Tensor, *, frozen: bool = False) -> Tensor:
        """The language model's mean hidden state of the chosen captions (B, D), without gradient: the target space.

        Args:
            frozen: the language model does not learn in this stage, so `kept_states` hold if there are any.
        """
        if frozen and self.kept_states is not None:
            return self.kept_states[self.first_caption[index] + which].to(self.ranks.device)
        return self.states_of(self.caption_ids(index, which))

    def keep_states(self, cache: FeatureCache, progress: Progress, notify: Callable[[str], None]) -> None:
        """Every caption's state in the language model as it is now, from the cache like the experts' features.

        Computed caption by caption in a fixed order: which captions share a batch decides their last bits, and a
        resumed run must find the same ones.
        """
        every = [ids for texts in self.told for ids in texts]

        def compute() -> dict[str, Tensor]:
            parts = []
            for start in range(0, len(every), STATES_AT_ONCE):
                parts.append(self.states_of(every[start : start + STATES_AT_ONCE]))
                progress("reading captions", min(start + STATES_AT_ONCE, len(every)), len(every))
            return {"states": torch.cat(parts)}

        key = {
            "states_of": hashlib.sha256(repr(every).encode()).hexdigest(),
            "pad": self.packer.pad,
            "weights": tensors_fingerprint(self.model.language_model.state_dict()),
            "config": self.model.config.text_config.to_dict(),
        }
        self.kept_states = cache.get_or_compute(key, compute, on_event=notify)["states"]

    def states_of(self, told: list[list[int]]) -> Tensor:
        """Mean hidden states (B, D) of captions in token form."""
        length = max(map(len, told))
        ids = torch.tensor([row + [self.packer.pad] * (length - len(row)) for row in told])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in told])
        return self.model.text_states(ids.to(self.ranks.device), mask.to(self.ranks.device))
