"""One shared expert, and one more that question and shared expert choose together."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.peers.attend import attend, check_heads
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Sparse, find_expert, is_expert
from astrea.fusion.routing.route import Route, Scores, entropy, largest, softmax_among


class Scope(Sparse):
    """After SCOPE (arXiv 2510.12974): the question attends to the shared expert's tokens, and what it finds chooses one
    of the others. The others' own tokens play no part, so only the chosen one would have to be computed.

        z = W attention(question, tokens of the shared expert);  p = softmax(z) over the others;  the largest is read
        w = 1 on the shared expert, p on the chosen one
        loss = sharpness * mean entropy(p) - spread * entropy(mean p)

    The second entropy spreads the load over the data, the first makes each single choice firm. Our reading: p weighs
    the chosen one, as in Switch Transformers, so that answers teach the router too.
    """

    policy: Literal["scope"] = "scope"
    expert: str | None = Field(None, description="the shared one; by default captioning, or else the first")
    heads: int = Field(4, ge=1, description="of the attention to it")
    sharpness: float = Field(0.01, ge=0, description="weight of the mean entropy of single choices")
    spread: float = Field(0.01, ge=0, description="weight of the entropy of the mean choice")

    def scorer(self, layout: Layout) -> nn.Module:
        shared = find_expert(layout.names, self.expert, "the shared expert")
        if len(layout.names) < 2:
            raise AstreaError("the policy scope chooses one of several experts", "name another expert")
        return SharedExpertAttention(layout.width, len(layout.names), shared, self.heads)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        shared_E = is_expert(scores, self.expert, "the shared expert")
        others = scores.present & ~shared_E
        probability = softmax_among(scores.logits, others)
        chosen = largest(probability, others, 1)
        always = (scores.present & shared_E).expand_as(chosen)
        asked = scores.asked.unsqueeze(-1)
        mean_E = (probability * asked).sum((0, 1)) / asked.sum().clamp_min(1)
        loss = self.sharpness * scores.mean(entropy(probability)) - self.spread * entropy(mean_E)
        return Route(probability * chosen + always, chosen | always, loss)


class SharedExpertAttention(nn.Module):
    """The question's cross-attention to one expert's tokens, and a linear map of what it reads and asks to logits."""

    def __init__(self, width: int, experts: int, shared: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.shared, self.heads = shared, heads
        self.norm_q, self.norm_x = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.choose = nn.Linear(2 * width, experts)
        nn.init.normal_(self.choose.weight, std=math.sqrt(0.1 / (2 * width)))

    def forward(self, question_BSD: Tensor, matrix: ExpertMatrix, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, S, E)."""
        asked = self.norm_q(question_BSD)
        mine_T = matrix.expert == self.shared
        valid_BT = matrix.valid[:, mine_T]
        tokens = self.norm_x(matrix.tokens[:, mine_T].masked_fill(~valid_BT.unsqueeze(-1), 0))
        found, _ = attend(self.query(asked), self.key(tokens), self.value(tokens), valid_BT.unsqueeze(1), self.heads)
        logits: Tensor = self.choose(torch.cat([asked, found], -1))
        return logits
