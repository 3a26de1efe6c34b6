"""MoAI: what the auxiliary experts say in words, compressed to latents and mixed into the visual expert's tokens.

Letters: B pictures, S questions per picture, E experts, T expert tokens, V tokens of the visual expert, A auxiliary
latents, M visual tokens (= V + A), H heads, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.peers.attend import Attention, expert_mass, feed_forward, shares_of, start_at_zero
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens


class MoAI(FusionStrategy):
    """After MoAI (arXiv 2403.07508): verbalised experts, a Perceiver over them, and a mixer of three attentions.

        a  = Perceiver(auxiliary tokens)       A latents
        x  = tokens of the visual expert
        g  = softmax(Linear(D -> 3)(LN x))
        x += sum_k g_k Attention_k(LN x, .)    over k: latents a, the question, x itself
        M visual tokens = [x; a]

    There the outputs of detector, segmenter, scene-graph and text reader are written out as sentences and embedded by
    the language model's own word embeddings. The counterpart here is the adapter that starts at words
    (``model.word_start: true``): its token *is* the mixture of its labels' word embeddings, soft where theirs is of the
    likeliest label. So use this strategy with it; no pre-alignment (``align.steps: 0``) belongs to MoAI.

    What else is simplified, and why:

    * There the mixers are at four places *inside* the language model, for image and for language tokens. Here the image
      side stands once before it (the tiny language model is half as deep as one of their intervals); the language side
      is left to the language model, which reads latents and visual tokens in its own sequence.
    * The other modality of an image token is the text there; here the question's mean embedding, one token.
    * There a first step takes one of the three at random, and a second one trains the gates; here gates learn from the
      first step on, beginning at a third each.

    Shares: a latent counts for the auxiliary experts as the Perceiver's attention is spread over them (mean over
    latents, heads and layers); of a visual token, so does the auxiliary gate's part, and the rest is the visual
    expert's.

    Args:
        visual: the expert in the place of their CLIP; the classification expert (global tags) by default.
        latents: A; by default as many as make M the number of all expert tokens.
    """

    per_question = True

    def __init__(
        self,
        layout: Layout,
        *,
        visual: str | None = None,
        latents: int | None = None,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if visual is None:
            visual = "classification" if "classification" in layout.names else layout.names[0]
        if visual not in layout.names:
            raise AstreaError(f"MoAI's visual {visual!r} is no expert here", f"choose one of {', '.join(layout.names)}")
        if len(layout.names) < 2:
            raise AstreaError("MoAI needs an auxiliary expert beside the visual one", "name a second expert")
        self.visual = layout.names.index(visual)
        first, seen = sum(layout.counts[: self.visual]), layout.counts[self.visual]
        self.own = slice(first, first + seen)
        latents = layout.tokens - seen if latents is None else latents
        if latents < 1 or depth < 1:
            raise AstreaError(f"MoAI with {latents} latents and depth {depth}", "both must be 1 or more")
        self.num_tokens = seen + latents
        width = layout.width
        self.slots = nn.Parameter(torch.randn(seen, width) * 0.02)
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.02)
        self.perceiver = nn.ModuleList(PerceiverLayer(width, heads) for _ in range(depth))
        self.norm, self.norm_latents, self.norm_question = (nn.LayerNorm(width) for _ in range(3))
        self.from_latents, self.from_question, self.from_self = (Attention(width, heads, silent=True) for _ in range(3))
        self.gate = nn.Linear(width, 3)
        start_at_zero(self.gate)

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        # What is not read must be harmless in the products below too.
        tokens = matrix.tokens.masked_fill(~matrix.valid.unsqueeze(-1), 0)
        auxiliary_BT = matrix.valid & (matrix.expert != self.visual)
        latents_BAD = self.latents.expand(len(tokens), -1, -1)
        masses = []
        for layer in self.perceiver:
            latents_BAD, weight_BHAT = layer(latents_BAD, tokens, auxiliary_BT)
            masses.append(expert_mass(weight_BHAT, matrix.expert, matrix.experts))
        any_B1 = auxiliary_BT.any(1, keepdim=True)
        any_BA = any_B1.expand(-1, latents_BAD.shape[1])
        seen_BV = matrix.valid[:, self.own]
        asked_B11 = self.norm_question(question_BSD[:, :1])
        visual_BVD = self.slots + tokens[:, self.own]
        x = self.norm(visual_BVD)
        gate_BV3 = self.gate(x).softmax(-1)
        readings = torch.stack(
            [
                self.from_latents(x, self.norm_latents(latents_BAD), any_BA)[0],
                self.from_question(x, asked_B11, torch.ones_like(any_B1))[0],
                self.from_self(x, x, seen_BV)[0],
            ],
            -1,
        )
        mixed_BVD = visual_BVD + (readings * gate_BV3.unsqueeze(2)).sum(-1)
        spread_BE = torch.stack(masses).mean(0)
        spread_BE = spread_BE / spread_BE.sum(-1, keepdim=True).clamp_min(1e-12)
        borrowed_B1 = (gate_BV3[..., 0] * seen_BV).sum(-1, keepdim=True)
        mass_BE = spread_BE * (any_BA.sum(-1, keepdim=True) + borrowed_B1)
        own_E = torch.arange(matrix.experts, device=tokens.device) == self.visual
        mass_BE = mass_BE + own_E * (seen_BV.sum(-1, keepdim=True) - borrowed_B1)
        shares = shares_of(mass_BE, matrix.present).unsqueeze(1).expand(-1, question_BSD.shape[1], -1)
        return VisualTokens(torch.cat([mixed_BVD, latents_BAD], 1), torch.cat([seen_BV, any_BA], 1), shares, None)


class PerceiverLayer(nn.Module):
    """Latents read tokens and each other, then think (after Flamingo's resampler, arXiv 2204.14198)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.norm_tokens = nn.LayerNorm(width), nn.LayerNorm(width)
        self.read = Attention(width, heads)
        self.feed = feed_forward(width)

    def forward(self, latents_BAD: Tensor, tokens_BTD: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """New latents, and their attention to the tokens (B, H, A, T)."""
        x = self.norm(latents_BAD)
        keys = torch.cat([self.norm_tokens(tokens_BTD), x], 1)
        valid = torch.cat([valid_BT, torch.ones_like(x[..., 0], dtype=torch.bool)], 1)
        read, weight = self.read(x, keys, valid)
        latents_BAD = latents_BAD + read
        return latents_BAD + self.feed(latents_BAD), weight[..., : tokens_BTD.shape[1]]
