"""Astrea's own fusion: mixer and stochastic residual on the tokens, the allocator's share as attention bias."""

from __future__ import annotations

import torch
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.allocator import Allocator
from astrea.fusion.mixer import Mixer, StochasticResidual
from astrea.fusion.protocol import FusionStrategy, VisualTokens


class AstreaFusion(FusionStrategy):
    """Every expert token is read, in native form; ``log(w_e E)`` is added to each question's attention to expert e.

    With equal shares the bias is zero and this is the aligned sequence concat. ``residual_keep`` is the current
    probability p of the stochastic residual; the fuse stage moves it.
    """

    residual_keep: Tensor

    def __init__(
        self,
        width: int,
        experts: int,
        num_tokens: int,
        *,
        heads: int = 4,
        tau: float = 1.0,
        mixer: bool = True,
        residual: bool = True,
        allocator: bool = True,
        use_question: bool = True,
        use_confidence: bool = True,
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.mixer = Mixer(width, heads) if mixer else None
        self.residual = StochasticResidual(experts) if mixer and residual else None
        self.allocator = (
            Allocator(width, experts, tau=tau, use_question=use_question, use_confidence=use_confidence)
            if allocator
            else None
        )
        self.register_buffer("residual_keep", torch.tensor(1.0))

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        tokens = matrix.tokens
        if self.mixer is not None:
            mixed = self.mixer(tokens, matrix.valid)
            if self.residual is None:
                tokens = tokens + mixed
            else:
                tokens = self.residual(mixed, matrix, float(self.residual_keep), generator)
        present = matrix.present.unsqueeze(1)
        if self.allocator is None:
            count = present.sum(-1, keepdim=True).clamp_min(1)
            shares = (present / count).expand(-1, question_BSD.shape[1], -1)
            return VisualTokens(tokens, matrix.valid, shares, None)
        shares = self.allocator(question_BSD, *matrix.summary(), matrix.present)
        # Relative to equal shares, so that visual attention as a whole is neither raised nor lowered.
        relative = shares * present.sum(-1, keepdim=True)
        bias_BSE = torch.log(relative.clamp_min(1e-6))
        return VisualTokens(tokens, matrix.valid, shares, bias_BSE[:, :, matrix.expert])
