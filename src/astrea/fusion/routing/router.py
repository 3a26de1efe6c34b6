"""The scorer that most policies share: how well each expert fits a question about a picture.

Letters: B pictures, S questions, E experts (or slices of experts), D language-model width, H hidden width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.draws import rand_rows


class Router(nn.Module):
    """Logits (B, S, E) from the question and a summary of what each expert says.

    The router of Switch Transformers (arXiv 2101.03961) is one linear map of the token to be routed. Here a question
    asks, so there is such a map of the question, and beside it a small network that weighs the question against what
    each expert saw.

    Args:
        jitter: in training, inputs are multiplied by numbers in 1 - jitter .. 1 + jitter.
    """

    def __init__(self, width: int, experts: int, hidden: int, jitter: float) -> None:
        super().__init__()
        self.jitter = jitter
        self.norm_q, self.norm_x = nn.LayerNorm(width), nn.LayerNorm(width)
        self.by_name = nn.Linear(width, experts)
        self.from_question, self.from_expert = nn.Linear(width, hidden), nn.Linear(width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        # A tenth of the usual variance, as in Switch: routing starts near even and moves before it hardens.
        for last in (self.by_name, self.score):
            std = math.sqrt(0.1 / last.in_features)
            nn.init.trunc_normal_(last.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.by_name.bias)

    def forward(self, question_BSD: Tensor, matrix: ExpertMatrix, generator: torch.Generator | None = None) -> Tensor:
        """The logits; ``generator`` draws the jitter, None means evaluation."""
        return self.logits(*self.inputs(question_BSD, matrix.summary()[0], generator))

    def inputs(
        self, question_BSD: Tensor, expert_BED: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The normalised question (B, S, D), and the hidden layer (B, S, E, H). ``expert_BED``: mean tokens."""
        asked_BSD = shake(self.norm_q(question_BSD), self.jitter, generator, per_question=True)
        said_BED = shake(self.norm_x(expert_BED), self.jitter, generator)
        hidden_BSEH = self.from_question(asked_BSD).unsqueeze(2) + self.from_expert(said_BED).unsqueeze(1)
        return asked_BSD, torch.tanh(hidden_BSEH)

    def logits(self, asked_BSD: Tensor, hidden_BSEH: Tensor) -> Tensor:
        """The last layer."""
        found: Tensor = self.by_name(asked_BSD) + self.score(hidden_BSEH).squeeze(-1)
        return found


class Even(nn.Module):
    """No scorer: every expert fits as well as any other. For policies that look at nothing, or at tokens."""

    def forward(self, question_BSD: Tensor, matrix: ExpertMatrix, generator: torch.Generator | None = None) -> Tensor:
        """Zeros (B, S, E)."""
        return question_BSD.new_zeros(*question_BSD.shape[:2], matrix.experts)


def shake(x: Tensor, jitter: float, generator: torch.Generator | None, *, per_question: bool = False) -> Tensor:
    """Multiply every number by one drawn from 1 - jitter .. 1 + jitter; without a generator, leave them."""
    if generator is None:
        return x
    noise = rand_rows(*x.shape, generator=generator, per_question=per_question).to(x) * 2 - 1
    return x * (1 + jitter * noise)
