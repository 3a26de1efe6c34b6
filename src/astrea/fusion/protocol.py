"""What every way to fuse gives the language model.

Letters: B pictures, S questions per picture, E experts, T expert tokens, M visual tokens read, D width, H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is to fuse and who reads it.

    width: D of the language model. names: experts in the order of the matrix. counts: T_e of each; they sum to T.
    heads: H, attention heads of the language model.
    """

    width: int
    names: tuple[str, ...]
    counts: tuple[int, ...]
    heads: int

    @property
    def tokens(self) -> int:
        """T, all experts' tokens together."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What the language model reads of a batch of pictures.

    tokens: (B, M, D). valid: (B, M) bool. shares: (B, S, E), each expert's share for each question; they sum to 1, or
    to less where a strategy can tell that no single expert is needed.
    bias: (B, S, M) added to every text-to-visual attention score of that question, or None.
    words: (B, M, D) or None; a word of the text adds ``gamma_h cos(its embedding, words)`` to its attention to the
    token, with the strategy's own `FusionStrategy.word_match` as gamma.
    reliable: (B, E) bool, which experts are reliable for this picture; None where the strategy does not judge.
    auxiliary: a scalar loss that the strategy wants added in training (a balancing loss, say), or None.
    cross_only: (M,) bool, tokens that text reads and other visual tokens do not; None = none.
    """

    tokens: Tensor
    valid: Tensor
    shares: Tensor
    bias: Tensor | None
    words: Tensor | None = None
    reliable: Tensor | None = None
    auxiliary: Tensor | None = None
    cross_only: Tensor | None = None


class FusionStrategy(nn.Module, ABC):
    """From the expert matrix and the questions to visual tokens. Subclass it, and set ``num_tokens`` (M).

    A strategy is built as ``Strategy(layout, **options)``, options from the recipe.

    Attributes:
        per_question: the visual *tokens* depend on the question, so every row holds one question and S = 1 (or S
            times the same question). Otherwise many questions share one picture in a packed row.
        word_match: (H,) strength of the word match per attention head; None where `VisualTokens.words` is.
    """

    num_tokens: int
    per_question: bool = False
    word_match: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.word_match = None

    @abstractmethod
    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        """Fuse. ``generator`` drives whatever is random in training; None means evaluation."""


def equal_shares(present_BE: Tensor, questions: int) -> Tensor:
    """Equal shares (B, S, E) over present experts, for strategies that do not weigh: zeros where none is present."""
    count = present_BE.sum(-1, keepdim=True).clamp_min(1)
    return (present_BE / count).unsqueeze(1).expand(-1, questions, -1)
