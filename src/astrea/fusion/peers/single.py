"""One expert alone: what every mixture must beat.

Letters: B pictures, S questions, E experts, T all experts' tokens, O tokens of the one expert, D language-model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens


class SingleExpert(FusionStrategy):
    """LLaVA (arXiv 2304.08485) with one expert: its projected tokens as they are; the others' are never read.

    A vision tower's tokens come in an order that the language model's positions tell. Here all visual tokens share one
    position, so each slot has a learned embedding in its stead. As many visual tokens as in the other strategies
    take their place in the text, so that lengths compare; those of other experts are not valid.

    Raises:
        AstreaError: there is no expert of that name.
    """

    def __init__(self, layout: Layout, *, expert: str) -> None:
        super().__init__()
        if expert not in layout.names:
            raise AstreaError(
                f"there is no expert {expert!r} to read alone", f"known: {', '.join(layout.names)}; set model.options"
            )
        self.num_tokens = layout.tokens
        self.index = layout.names.index(expert)
        self.before, own = sum(layout.counts[: self.index]), layout.counts[self.index]
        self.slot = nn.Parameter(0.02 * torch.randn(own, layout.width))

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        after = self.num_tokens - self.before - len(self.slot)
        slot_TD = F.pad(self.slot, (0, 0, self.before, after))
        mine_E = F.one_hot(torch.tensor(self.index, device=matrix.expert.device), matrix.experts)
        shares_BE = (mine_E * matrix.present).to(matrix.tokens.dtype)
        valid_BT = matrix.valid & (matrix.expert == self.index)
        shares_BSE = shares_BE.unsqueeze(1).expand(-1, question_BSD.shape[1], -1)
        return VisualTokens(matrix.tokens + slot_TD, valid_BT, shares_BSE, None)
