"""A fusion strategy of one's own: each expert's surest tokens, experts weighed by how sure they are.

    PYTHONPATH=docs/examples astrea train tiny model.strategy=my_strategy:SurestTokens 'model.options={keep: 4}'

Letters: B pictures, S questions, E experts, T all experts' tokens, M visual tokens read, D width of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from astrea import AstreaError, FusionStrategy
from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout, VisualTokens


class SurestTokens(FusionStrategy):
    """The language model reads the ``keep`` surest tokens of each expert, and leans on experts that are sure.

    The gate is one learned number: ``w = softmax(sharpness * mean confidence)`` over the experts that are present.

    Args:
        keep: how many tokens of each expert are read; of an expert with fewer, all.

    Raises:
        AstreaError: ``keep`` is less than 1.
    """

    def __init__(self, layout: Layout, *, keep: int = 8) -> None:
        super().__init__()
        if keep < 1:
            raise AstreaError(f"keep is {keep}", "each expert needs at least one token: model.options={keep: 1}")
        self.keep = keep
        self.num_tokens = sum(min(count, keep) for count in layout.counts)  # M: known before any picture is seen
        self.sharpness = nn.Parameter(torch.ones(()))
        self.expert = nn.Parameter(torch.zeros(len(layout.names), layout.width))  # who says it; starts as nothing

    def surest(self, matrix: ExpertMatrix) -> Tensor:
        """Indices (B, M) of each expert's surest tokens, in the order of the experts."""
        sure_BT = matrix.confidence.masked_fill(~matrix.valid, -1)  # empty slots come last
        chosen = []
        for expert in range(matrix.experts):
            own = (matrix.expert == expert).nonzero().squeeze(-1)
            chosen.append(own[sure_BT[:, own].topk(min(self.keep, len(own))).indices])
        return torch.cat(chosen, 1)

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        at_BM = self.surest(matrix)
        tokens_BMD = matrix.tokens.gather(1, at_BM.unsqueeze(-1).expand(-1, -1, matrix.tokens.shape[-1]))
        owner_BM = matrix.expert[at_BM]

        _, sure_BE = matrix.summary()
        score_BE = (self.sharpness * sure_BE).masked_fill(~matrix.present, -1e4)  # finite: no softmax becomes NaN
        weight_BE = score_BE.softmax(-1) * matrix.present
        mean_B1 = weight_BE.sum(-1, keepdim=True) / matrix.present.sum(-1, keepdim=True).clamp_min(1)
        # With equal weights nothing is added, so attention to the picture as a whole is neither raised nor lowered.
        bias_BE = (weight_BE / mean_B1.clamp_min(1e-6)).clamp_min(1e-6).log()

        questions = question_BSD.shape[1]  # this gate asks for no question: the same weights for each
        return VisualTokens(
            tokens_BMD + self.expert[owner_BM],
            matrix.valid.gather(1, at_BM),
            weight_BE.unsqueeze(1).expand(-1, questions, -1),
            bias_BE.gather(1, owner_BM).unsqueeze(1).expand(-1, questions, -1),
        )
