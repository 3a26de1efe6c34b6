"""A gated bottleneck adapter per expert."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.policy import Policy, Reader
from astrea.fusion.routing.route import Route, Scores


class Adapters(Policy):
    """All experts are read, each through a small adapter of its own behind a gate that starts shut, after PILL
    (arXiv 2311.02126).

        x += tanh(w_e . LN x) * U_e gelu(D_e LN x)      e: the token's expert;  w_e = 0 at the start

    There adapters belong to modalities and sit in every layer, and the gate scales visual values per head of the
    language model's attention. Here the token's expert decides in place of its modality, once, in front of the language
    model.
    """

    policy: Literal["adapters"] = "adapters"
    rank: PositiveInt = Field(16, description="width of the bottleneck")

    def reader(self, layout: Layout) -> Reader:
        return GatedAdapters(layout.width, len(layout.names), self.rank)

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        return Route(scores.probability(), scores.present.expand_as(scores.logits))


class GatedAdapters(Reader):
    """A bottleneck adapter and a gate for every expert."""

    def __init__(self, width: int, experts: int, rank: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Parameter(torch.randn(experts, width, rank) / width**0.5)
        self.up = nn.Parameter(torch.randn(experts, rank, width) / rank**0.5)
        self.gate = nn.Parameter(torch.zeros(experts, width))

    def forward(self, tokens_BTD: Tensor, matrix: ExpertMatrix, route: Route) -> tuple[Tensor, Tensor, None]:
        x = self.norm(tokens_BTD)
        hidden_BTR = F.gelu(torch.einsum("btd,tdr->btr", x, self.down[matrix.expert]))
        open_BT1 = torch.tanh(torch.einsum("btd,td->bt", x, self.gate[matrix.expert])).unsqueeze(-1)
        found = torch.einsum("btr,trd->btd", hidden_BTR, self.up[matrix.expert])
        return tokens_BTD + open_BT1 * found, matrix.valid, None
