"""The light mixer and the stochastic residual around it.

Letters: B pictures, T all experts' tokens, E experts, H heads, D language-model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix, distances


class Mixer(nn.Module):
    """One cross-expert attention block, F(X): every token reads what *other* experts say, first of all about its place.

    The score of a pair is ``q . k / sqrt(d) + near - distance^2 / (2 sigma^2)`` where both have a place and ``far``
    elsewhere, against a null key of score 0, so that a token without a partner reads nothing. The query starts at
    zero and value and output at identity: the block starts as "add what the others see right here" and learns to
    depart from it. With the place in the score, binding a detector's name to a segmenter's colour is given instead of
    being left to the language model, for which it is a hard thing to discover.
    """

    def __init__(self, width: int, heads: int, *, sigma: float = 0.04, near: float = 4.0, far: float = -6.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.log_sigma = nn.Parameter(torch.full((heads,), math.log(sigma)))
        self.near = nn.Parameter(torch.full((heads,), near))
        self.far = nn.Parameter(torch.full((heads,), far))
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        # Query alone starts at zero: with key at zero too, neither would ever get a gradient.
        nn.init.zeros_(self.query.weight)
        for straight in (self.value, self.out):
            nn.init.eye_(straight.weight)
            nn.init.zeros_(straight.bias)
        last = self.feed[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, matrix: ExpertMatrix, heard_E: Tensor | None = None) -> Tensor:
        """F(X), (B, T, D).

        Args:
            heard_E: which experts the others read, bool; None = all. The rest reads without being read.
        """
        tokens = matrix.tokens
        batch, length, width = tokens.shape
        x = self.norm(tokens)
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in (self.query(x), self.key(x), self.value(tokens))
        )
        score = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads) + self.place_score(matrix.places)
        other = matrix.expert[:, None] != matrix.expert[None, :]
        if heard_E is not None:
            other = other & heard_E[matrix.expert]
        score = score.masked_fill(~(other & matrix.valid[:, None, :]).unsqueeze(1), -1e4)
        # The null key: a column of zeros whose value is zero.
        weight = torch.cat([torch.zeros_like(score[..., :1]), score], -1).softmax(-1)[..., 1:]
        mixed = self.out((weight @ v).transpose(1, 2).reshape(batch, length, width))
        found: Tensor = mixed + self.feed(self.feed_norm(tokens + mixed))
        return found

    def place_score(self, places_BT2: Tensor) -> Tensor:
        """(B, H, T, T): high for pairs at one place, ``far`` where either has none."""
        distance, known = (part.unsqueeze(1) for part in distances(places_BT2))
        sigma, near, far = (p.view(-1, 1, 1) for p in (self.log_sigma.exp(), self.near, self.far))
        by_place = near - distance / (2 * sigma.square())
        return torch.where(known, by_place, far)


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
            drawn = torch.rand(matrix.experts, generator=generator, device=generator.device) < keep
            gate = self.alpha * drawn.to(self.alpha)
        return mixed_BTD + gate[matrix.expert].unsqueeze(-1) * matrix.tokens
