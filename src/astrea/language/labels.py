"""From an expert's channel names to the language model's own word embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase


class LabelWords:
    """The word embeddings of channel names: (C, D), the mean over a name's pieces, zero for channels without a name."""

    def __init__(self, labels: Sequence[str | None], tokenizer: PreTrainedTokenizerBase) -> None:
        pieces = [tokenizer(label, add_special_tokens=False).input_ids if label else [] for label in labels]
        starts = [0]
        for piece in pieces[:-1]:
            starts.append(starts[-1] + len(piece))
        self.ids = torch.tensor([i for piece in pieces for i in piece], dtype=torch.long)
        self.starts = torch.tensor(starts)

    def embed(self, weight_VD: Tensor) -> Tensor:
        """Mean embeddings (C, D), with gradient to ``weight_VD``."""
        return F.embedding_bag(self.ids, weight_VD, self.starts, mode="mean")
