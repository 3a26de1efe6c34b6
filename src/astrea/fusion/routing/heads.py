"""Attention heads as experts."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.peers.attend import attend, check_heads, start_at_zero
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Policy, Reader, check_choice
from astrea.fusion.routing.route import Route, Scores, largest, unevenness


class Heads(Policy):
    """All vision experts are read; what is routed, token by token, are the heads of one attention layer over all their
    tokens, after Mixture-of-Head attention (MoH, arXiv 2410.11842).

        X += out([g_h head_h(LN X)])      a = softmax(W_b x), two numbers;  S shared heads, the others routed
        shared h: g_h = S a_1 softmax(W_s x)_h
        routed h: g_h = k a_2 p_h / (sum of p over K) on K, the k largest of p = softmax(W_r x), else 0
        loss = balance * H * sum_h f_h P_h over the H routed heads

    There the layer is one of the network's own. Here it is new, and its output starts at zero. The factors S and k keep
    the size of the sum, however many heads share it.
    """

    policy: Literal["heads"] = "heads"
    heads: int = Field(8, ge=4)
    shared: int = Field(2, ge=2, description="heads that are always read")
    k: int = Field(3, ge=2, description="of the other heads")
    balance: float = Field(0.01, ge=0, description="weight of the balancing loss")

    def reader(self, layout: Layout) -> Reader:
        check_choice(self.k, self.heads - self.shared, "routed heads")
        return HeadMixture(layout.width, self)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        return Route(scores.probability(), scores.present.expand_as(scores.logits))


class HeadMixture(Reader):
    """Self-attention over all tokens whose heads are gated per token."""

    def __init__(self, width: int, settings: Heads) -> None:
        super().__init__()
        check_heads(width, settings.heads)
        self.settings = settings
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        start_at_zero(self.out)
        self.which = nn.Linear(width, 2, bias=False)
        self.shared = nn.Linear(width, settings.shared, bias=False)
        self.routed = nn.Linear(width, settings.heads - settings.shared, bias=False)

    def forward(self, tokens_BTD: Tensor, matrix: ExpertMatrix, route: Route) -> tuple[Tensor, Tensor, Tensor]:
        heads, valid_BT = self.settings.heads, matrix.valid
        x = self.norm(tokens_BTD.masked_fill(~valid_BT.unsqueeze(-1), 0))
        found, _ = attend(self.query(x), self.key(x), self.value(x), valid_BT.unsqueeze(1), heads)
        gate, probability, chosen = head_gates(self.which(x), self.shared(x), self.routed(x), self.settings.k)
        gated = (found.unflatten(-1, (heads, -1)) * gate.unsqueeze(-1)).flatten(-2)
        uneven = unevenness(probability, chosen, valid_BT)
        return tokens_BTD + self.out(gated), valid_BT, self.settings.balance * uneven


def head_gates(which: Tensor, shared: Tensor, routed: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gates of the shared heads, then of the routed ones, from logits of shapes (..., 2), (..., S) and (..., H); the
    probabilities of the latter, and which of them are chosen."""
    both = which.softmax(-1)
    probability = routed.softmax(-1)
    chosen = largest(probability, torch.ones_like(probability, dtype=torch.bool), k)
    kept = probability * chosen
    always = shared.shape[-1] * both[..., :1] * shared.softmax(-1)
    some = k * both[..., 1:] * kept / kept.sum(-1, keepdim=True)
    return torch.cat([always, some], -1), probability, chosen
