"""Adaptive weight allocator: each expert's gate weight for this picture *and* this question.

Letters: B pictures, S questions per picture, E experts, D language-model width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix

BAND, LEAK = 0.12, 0.02
"""How far a load may be from the mean, relative to it, before the bias moves; and how fast the bias decays while no
load is. The decay keeps the bias as small as possible, because it moves weights away from measured contributions."""


class Gate(nn.Module, ABC):
    """What every gate has: a bias per expert that evens the load, and weights for a question about a picture.

    Attributes:
        load_bias: (E,) added to the logit of every expert. load: (E,) moving average of the weights. Buffers.
    """

    load_bias: Tensor
    load: Tensor

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.register_buffer("load_bias", torch.zeros(experts))
        self.register_buffer("load", torch.full((experts,), 1 / experts))

    @abstractmethod
    def weigh(self, question_BSD: Tensor, matrix: ExpertMatrix) -> Tensor:
        """Gate weights (B, S, E), 0 for absent experts; they sum to less than 1, the rest is the null expert's."""

    @torch.no_grad()
    def update_load(self, shares_NE: Tensor, *, rate: float = 0.01, decay: float = 0.95) -> None:
        """Move the bias of every expert a step: up if it starves, down if it dominates.

        Args:
            shares_NE: shares of the step's questions (rows where all experts were present).
        """
        if len(shares_NE) == 0:
            return
        self.load.mul_(decay).add_((1 - decay) * shares_NE.mean(0))
        short = self.load.mean() - self.load
        outside = short.abs() > BAND * self.load.mean()
        if rate and not outside.any():
            self.load_bias.mul_(1 - LEAK)
        self.load_bias.add_(rate * torch.sign(short) * outside)
        self.load_bias.sub_(self.load_bias.mean())


class Allocator(Gate):
    """``a_e = v_e . norm(q) + u . tanh(W_q norm(q) + W_x norm(x_e))``, ``w = softmax(a / tau + b)`` over those present
    and a null expert. With ``use_confidence`` a term ``W_c conf_e`` is added inside the tanh.

    Our reading of the paper's "adaptive weight allocators". The null expert's weight, ``1 - sum(w)``, is the part of an
    answer that needs no single expert: the language model knows it, or several experts provide it. Without it, weights
    could only compare experts with each other, not state that one question depends on its experts more than another.
    The question is normalised first, otherwise the tokens outweigh it. ``b`` is the load bias: a buffer that
    `update_load` moves, not a loss, so that weights may still differ between questions (after the auxiliary-loss-free
    balancing of arXiv 2408.15664).

    It is trained on measured contributions (`astrea.fusion.contribution`) only: inputs are detached, and no gradient
    of the answers reaches it.
    """

    def __init__(
        self,
        width: int,
        experts: int,
        *,
        hidden: int = 64,
        tau: float = 1.0,
        use_question: bool = True,
        use_confidence: bool = False,
    ) -> None:
        super().__init__(experts)
        self.tau = tau
        self.use_question = use_question
        self.norm_q, self.norm_x = nn.LayerNorm(width), nn.LayerNorm(width)
        self.from_question = nn.Linear(width, hidden)
        self.from_expert = nn.Linear(width, hidden, bias=False)
        # Off by default: with it, weights follow measured contributions no better (docs/lab-notes.md).
        self.from_confidence = nn.Linear(1, hidden, bias=False) if use_confidence else None
        self.score = nn.Linear(hidden, 1, bias=False)
        self.bias_question = nn.Linear(width, experts, bias=False)
        self.nobody = nn.Linear(width, 1)
        nn.init.normal_(self.score.weight, std=0.02)
        for linear in (self.bias_question, self.nobody):
            nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.nobody.bias)

    def weigh(self, question_BSD: Tensor, matrix: ExpertMatrix) -> Tensor:
        """Gate weights (B, S, E), see `forward`."""
        weights: Tensor = self(question_BSD, *matrix.summary(), matrix.present)
        return weights

    def forward(self, question_BSD: Tensor, expert_BED: Tensor, confidence_BE: Tensor, present_BE: Tensor) -> Tensor:
        """Gate weights (B, S, E), 0 for absent experts; they sum to less than 1, the rest is the null expert's."""
        question_BSD, expert_BED, confidence_BE = question_BSD.detach(), expert_BED.detach(), confidence_BE.detach()
        hidden = self.from_expert(self.norm_x(expert_BED)).unsqueeze(1)
        null_BS1 = self.nobody.bias.expand(*question_BSD.shape[:2], 1)
        logits = torch.zeros_like(null_BS1)
        if self.use_question:
            question = self.norm_q(question_BSD)
            hidden = hidden + self.from_question(question).unsqueeze(2)
            # A term of the question alone; the tanh term mixes question and picture.
            logits, null_BS1 = self.bias_question(question), self.nobody(question)
        if self.from_confidence is not None:
            hidden = hidden + self.from_confidence(confidence_BE.unsqueeze(-1)).unsqueeze(1)
        logits = logits + self.score(torch.tanh(hidden)).squeeze(-1)
        logits = logits.expand(-1, question_BSD.shape[1], -1) / self.tau + self.load_bias
        present = present_BE.unsqueeze(1)
        logits = torch.cat([logits.masked_fill(~present, -1e4), null_BS1], -1)
        return logits.softmax(-1)[..., :-1] * present
