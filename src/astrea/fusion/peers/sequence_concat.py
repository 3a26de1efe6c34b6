"""All experts' tokens side by side: the plainest mixture that loses nothing.

Letters: B pictures, S questions, T all experts' tokens, D language-model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens, equal_shares


class SequenceConcat(FusionStrategy):
    """As LLaVA (arXiv 2304.08485) does with one expert: projected tokens, concatenated along the sequence.

    A slot's learned embedding stands for its position in the sequence, since all visual tokens share one here; it also
    says which expert speaks.

    Args:
        slot_embedding: without it the language model reads a set, and there is nothing to learn in this strategy.
    """

    def __init__(self, layout: Layout, *, slot_embedding: bool = True) -> None:
        super().__init__()
        self.num_tokens = layout.tokens
        self.slot = nn.Parameter(0.02 * torch.randn(layout.tokens, layout.width)) if slot_embedding else None

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        tokens_BTD = matrix.tokens if self.slot is None else matrix.tokens + self.slot
        return VisualTokens(tokens_BTD, matrix.valid, equal_shares(matrix.present, question_BSD.shape[1]), None)
