"""Adapters: from an expert's native tokens to the language model's width.

Letters: B pictures, T tokens of this expert, C its width, D language-model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """``token = features @ mixture + residual(norm(features))``.

    Where the expert's channels have names, `start_at_words` sets ``mixture`` to the language model's embeddings of
    those names: a token then starts as the probability-weighted mixture of its labels' words (our reading of the
    paper's "alignment into the latent space of the VLM"). The residual MLP starts at zero there.
    Without names both maps start at random.
    """

    def __init__(self, width: int, hidden: int, model_width: int) -> None:
        super().__init__()
        self.mixture = nn.Linear(width, model_width, bias=False)
        self.residual = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, model_width)
        )

    @torch.no_grad()
    def start_at_words(self, words_CD: Tensor) -> None:
        """Start as the mixture of word embeddings (C, D); rows of zeros for channels without a name."""
        self.mixture.weight.copy_(words_CD.T)
        last = self.residual[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, features_BTC: Tensor) -> Tensor:
        found: Tensor = self.mixture(features_BTC) + self.residual(features_BTC)
        return found
