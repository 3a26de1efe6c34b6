"""Projection heads into the contrast space: pictures by attention pooling, text by its mean hidden state.

Letters: B batch, T tokens, D language-model width, P contrast width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PictureHead(nn.Module):
    """Tokens (B, T, D) with a validity mask (B, T) -> unit vectors (B, P); a few learned queries read the tokens."""

    def __init__(self, width: int, out: int, queries: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(queries, width) / math.sqrt(width))
        self.value = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.out = nn.Linear(queries * width, out)

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        x = self.norm(tokens_BTD)
        score = (x @ self.queries.T) / math.sqrt(x.shape[-1])
        # A finite floor instead of -inf: a picture with no token at all must not become NaN.
        weight = score.masked_fill(~valid_BT.unsqueeze(-1), -1e4).softmax(1) * valid_BT.unsqueeze(-1)
        pooled = torch.einsum("btq,btd->bqd", weight, self.value(x)) * valid_BT.sum(1)[:, None, None].sqrt()
        return F.normalize(self.out(pooled.flatten(1)), dim=-1)


class TextHead(nn.Module):
    """Mean hidden states of the language model (B, D) -> unit vectors (B, P)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, out))

    def forward(self, mean_BD: Tensor) -> Tensor:
        return F.normalize(self.out(mean_BD), dim=-1)
