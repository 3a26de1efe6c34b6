"""From an expert's channel names to the language model's own word embeddings.

Letters: C channels, P pieces of all their names, V words, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

BEFORE = "the"
"""A word to stand before a name: many tokenizers write a word inside a sentence otherwise than at its beginning."""


class LabelWords:
    """The word embeddings of channel names: (C, D), the mean over a name's pieces, zero for channels without a name."""

    def __init__(self, labels: Sequence[str | None], tokenizer: PreTrainedTokenizerBase) -> None:
        pieces = [inside_a_sentence(label, tokenizer) if label else [] for label in labels]
        starts = [0]
        for piece in pieces[:-1]:
            starts.append(starts[-1] + len(piece))
        self.ids = torch.tensor([i for piece in pieces for i in piece], dtype=torch.long)
        self.starts = torch.tensor(starts)

    def embed(self, weight_VD: Tensor) -> Tensor:
        """Mean rows (C, D) of a table, with gradient to ``weight_VD``."""
        return F.embedding_bag(self.ids, weight_VD, self.starts, mode="mean")

    @torch.no_grad()
    def read(self, embedding: nn.Module) -> Tensor:
        """Mean embeddings (C, D) as the language model's embedding module gives them, which may be no mere look-up
        (Gemma scales them), in float32 at least."""
        pieces_PD: Tensor = embedding(self.ids)
        pieces_PD = pieces_PD.to(torch.promote_types(pieces_PD.dtype, torch.float32))
        return F.embedding_bag(torch.arange(len(self.ids)), pieces_PD, self.starts, mode="mean")


def inside_a_sentence(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a text as they are behind another word: " cat" instead of "cat" where spaces belong to words."""
    before = list(tokenizer(BEFORE, add_special_tokens=False).input_ids)
    whole = list(tokenizer(f"{BEFORE} {text}", add_special_tokens=False).input_ids)
    if whole[: len(before)] == before and len(whole) > len(before):
        return whole[len(before) :]
    return list(tokenizer(text, add_special_tokens=False).input_ids)
