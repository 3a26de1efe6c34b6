"""MoVA: experts chosen by the question, then poured into a base expert's tokens block by block.

Letters: B pictures, S questions per picture, E experts, T expert tokens, T_e those of one, M visual tokens (= T),
D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.peers.attend import Attention, feed_forward, start_at_zero
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens
from astrea.fusion.routing.policy import find_expert
from astrea.fusion.routing.route import largest, softmax_among
from astrea.fusion.routing.top_k import drawn


class MoVA(FusionStrategy):
    """After MoVA (arXiv 2404.13046): coarse choice of experts from the question, fine gates per block.

        kept = top-k of router(question) among present experts              router: Linear(D -> E), r its logits
        w    = softmax over kept of (gate([question; mean(x)]) + r)         per block
        x   += sum_e w_e CrossAttention_e(LN x, LN X_e);  x += SelfAttention(LN x);  x += SwiGLU(LN x)
        out  = y + MLP(LN y)  with  y = (x at the start + x at the end) / 2

    What is simplified, and why:

    * Coarse: there a language model reads a menu of experts and is tuned on annotated choices. We have no such
      labels: a linear router on the normalised question embedding chooses, learning through its logits' part in w
      (the product of both softmaxes, renormalised). In training the choice is drawn (Gumbel noise, so that an expert
      is dropped with the router's own probability), or one that is never kept could never learn to be.
    * Base: there CLIP's map, whose number of tokens is the output's. Here x has a slot per expert token; the base's
      slots hold its tokens, the others start as learned vectors that the blocks fill. Base is the captioning expert
      where there is one: like CLIP it learned from sentences and looks at the whole picture, and it has more tokens to
      pour into than the few tags of a classifier. The base is on the menu as well, so that it has a share.
    * No 2D rotary positions: tokens are slots, not a map, and say their place in their content.
    * The last MLP has a skip path: there it changes the width, here the tokens have the language model's already.

    Every sub-block's output and the gates start at zero, as there. Shares are w, averaged over the blocks.
    """

    per_question = True

    def __init__(
        self, layout: Layout, *, base: str | None = None, blocks: int = 3, top: int = 3, heads: int = 4
    ) -> None:
        super().__init__()
        if top < 1 or blocks < 1:
            raise AstreaError(f"MoVA with {blocks} blocks and the top {top} experts", "both must be 1 or more")
        self.base, self.top, self.counts = find_expert(layout.names, base, "MoVA's base"), top, list(layout.counts)
        self.num_tokens = layout.tokens
        width, experts = layout.width, len(layout.names)
        self.slots = nn.Parameter(torch.randn(layout.tokens, width) * 0.02)
        self.norm_question = nn.LayerNorm(width)
        self.router = nn.Linear(width, experts)
        nn.init.normal_(self.router.weight, std=0.02)
        nn.init.zeros_(self.router.bias)
        self.blocks = nn.ModuleList(Block(width, heads, experts) for _ in range(blocks))
        self.project = feed_forward(width, silent=True)

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        question = self.norm_question(question_BSD[:, 0])
        routed_BE = self.router(question)
        kept_BE = self.choose(routed_BE, matrix.present, generator)
        # What is not read must be harmless in the products below too.
        tokens = matrix.tokens.masked_fill(~matrix.valid.unsqueeze(-1), 0)
        own = (matrix.expert == self.base).unsqueeze(-1)
        start = x = self.slots + tokens.masked_fill(~own, 0)
        parts = list(zip(tokens.split(self.counts, 1), matrix.valid.split(self.counts, 1), strict=True))
        shares = []
        for block in self.blocks:
            x, weight_BE = block(x, question, parts, routed_BE, kept_BE)
            shares.append(weight_BE)
        middle = (start + x) / 2
        out = middle + self.project(middle)
        valid = matrix.valid.any(1, keepdim=True).expand(-1, self.num_tokens)
        share_BSE = torch.stack(shares).mean(0).unsqueeze(1).expand(-1, question_BSD.shape[1], -1)
        return VisualTokens(out, valid, share_BSE, None)

    def choose(self, routed_BE: Tensor, present_BE: Tensor, generator: torch.Generator | None) -> Tensor:
        """The coarse choice (B, E) bool: at most ``top`` of the present experts; with a generator, drawn."""
        return largest(drawn(routed_BE.detach(), generator), present_BE, self.top)


class Block(nn.Module):
    """One block: gated cross-attention to every kept expert, self-attention, SwiGLU."""

    def __init__(self, width: int, heads: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, experts))
        start_at_zero(self.gate[-1])  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(width)
        self.expert_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(experts))
        self.cross = nn.ModuleList(Attention(width, heads, silent=True) for _ in range(experts))
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, silent=True)
        self.feed = SwiGLU(width)

    def forward(
        self, x_BMD: Tensor, question_BD: Tensor, parts: list[tuple[Tensor, Tensor]], routed_BE: Tensor, kept_BE: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New x, and the weights (B, E) of the experts: 0 for those not kept.

        Args:
            parts: per expert, its tokens (B, T_e, D) and which are valid (B, T_e).
        """
        x = self.norm(x_BMD)
        logits = self.gate(torch.cat([question_BD, x.mean(1)], -1)) + routed_BE
        weight_BE = softmax_among(logits, kept_BE)
        poured = torch.zeros_like(x_BMD)
        for index, (norm, cross, (tokens, valid)) in enumerate(zip(self.expert_norms, self.cross, parts, strict=True)):
            poured = poured + weight_BE[:, index, None, None] * cross(x, norm(tokens), valid)[0]
        x_BMD = x_BMD + poured
        x = self.self_norm(x_BMD)
        x_BMD = x_BMD + self.self_attention(x, x, torch.ones_like(x[..., 0], dtype=torch.bool))[0]
        return x_BMD + self.feed(x_BMD), weight_BE


class SwiGLU(nn.Module):
    """``out(silu(gate(LN x)) * up(LN x))``, starting at zero (arXiv 2002.05202)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.out = nn.Linear(2 * width, width, bias=False)
        start_at_zero(self.out)

    def forward(self, x_BMD: Tensor) -> Tensor:
        x = self.norm(x_BMD)
        found: Tensor = self.out(F.silu(self.gate(x)) * self.up(x))
        return found
