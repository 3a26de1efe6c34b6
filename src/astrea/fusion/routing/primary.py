"""One primary expert that reads its peers."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.peers.attend import Attention
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Reader, Scored, check_choice
from astrea.fusion.routing.route import Route, Scores, entropy, largest, unevenness


class Primary(Scored):
    """The best of k experts is read, and it reads the k - 1 others, after Mixture of Thoughts (arXiv 2509.21164).

        p = softmax(z);  K = the k largest, w = p / sum over K;  primary = the largest
        X_primary += CrossAttention(LN X_primary, [w_e LN X_e of the other e in K]);  nothing else is read
        loss = balance * E * sum_e f_e P_e + sharpness * mean entropy(p)

    There experts are language models whose hidden states meet in a shared space at several depths. Here they meet once,
    in front of one language model, whose space adapters have brought them to. A consistency loss over routing noise,
    which that training has too, is not part of this.
    """

    policy: Literal["primary"] = "primary"
    k: int = Field(3, ge=2, description="the primary expert among them")
    heads: int = Field(4, ge=1, description="of the attention to the peers")
    balance: float = Field(0.01, ge=0, description="weight of the balancing loss")
    sharpness: float = Field(1e-4, ge=0, description="weight of the mean entropy")

    @property
    def per_question(self) -> bool:
        return True

    def scorer(self, layout: Layout) -> nn.Module:
        check_choice(self.k, len(layout.names), "experts")
        return super().scorer(layout)

    def reader(self, layout: Layout) -> Reader:
        return PeerReader(layout.width, self.heads)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        probability = scores.probability()
        chosen = largest(probability, scores.present, self.k)
        weight = probability * chosen
        loss = self.balance * unevenness(probability, chosen, scores.asked)
        loss = loss + self.sharpness * scores.mean(entropy(probability))
        return Route(weight / weight.sum(-1, keepdim=True).clamp_min(1e-9), chosen, loss)


class PeerReader(Reader):
    """The primary expert's tokens, with what they read of the peers'. The attention's output starts at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.peer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross = Attention(width, heads, silent=True)

    def forward(self, tokens_BTD: Tensor, matrix: ExpertMatrix, route: Route) -> tuple[Tensor, Tensor, None]:
        weight_BE, chosen_BE = route.weight[:, 0], route.chosen[:, 0]
        mine_BT = matrix.expert == weight_BE.argmax(-1, keepdim=True)
        peer_BT = matrix.valid & chosen_BE[:, matrix.expert] & ~mine_BT
        peers = self.peer_norm(tokens_BTD) * weight_BE[:, matrix.expert].unsqueeze(-1)
        read, _ = self.cross(self.norm(tokens_BTD), peers, peer_BT)
        return tokens_BTD + read, matrix.valid & mine_BT, None
