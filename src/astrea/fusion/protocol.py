"""What every way to fuse gives the language model.

Letters: B pictures, S questions per picture, E experts, T expert tokens, M visual tokens read, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What the language model reads of a batch of pictures.

    tokens: (B, M, D). valid: (B, M) bool. shares: (B, S, E), each expert's share for each question, summing to 1.
    bias: (B, S, M) added to every text-to-visual attention score of that question, or None.
    words: (B, M, D) or None; a word of the text adds ``(its unit embedding) . words`` to its attention to the token.
    """

    tokens: Tensor
    valid: Tensor
    shares: Tensor
    bias: Tensor | None
    words: Tensor | None = None


class FusionStrategy(nn.Module, ABC):
    """From the expert matrix and the questions to visual tokens. Subclass it, and set ``num_tokens`` (M)."""

    num_tokens: int

    @abstractmethod
    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        """Fuse. ``generator`` drives whatever is random in training; None means evaluation."""
