"""The light mixer and the stochastic residual around it.

Letters: B pictures, T all experts' tokens, E experts, D language-model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix


class Mixer(nn.Module):
    """One cross-expert attention block, F(X): every valid token reads all valid tokens. Starts at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        for last in (self.out, self.feed[-1]):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        batch, length, width = tokens_BTD.shape
        q, k, v = self.qkv(self.norm(tokens_BTD)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        score = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        weight = score.masked_fill(~valid_BT[:, None, None, :], -1e4).softmax(-1)
        read = (weight @ v).transpose(1, 2).reshape(batch, length, width)
        mixed = self.out(read)
        return mixed + self.feed(self.feed_norm(tokens_BTD + mixed))


class StochasticResidual(nn.Module):
    """``Z_t = F(X)_t + m_e alpha_e X_t``: m_e ~ Bernoulli(p) per expert in training, its mean p at evaluation.

    Our reading of the paper's "stochastic residual connections": what pre-alignment taught each expert survives
    beside the mixture, and the mixture learns to carry it alone some of the time.
    """

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(experts))

    def forward(
        self, mixed_BTD: Tensor, matrix: ExpertMatrix, keep: float, generator: torch.Generator | None
    ) -> Tensor:
        """Add the residual. ``generator`` draws the gates (one per expert, shared by the batch, alike on every rank);
        None means evaluation."""
        if generator is None:
            gate = self.alpha * keep
        else:
            drawn = torch.rand(matrix.experts, generator=generator) < keep
            gate = self.alpha * drawn.to(self.alpha)
        return mixed_BTD + gate[matrix.expert].unsqueeze(-1) * matrix.tokens
