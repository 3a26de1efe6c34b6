"""Attention that may find nothing: what the peers' strategies read expert tokens with.

Letters: B pictures, Q queries, K keys, H heads, D width, E experts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from astrea.common.errors import AstreaError


def attend(q_BQD: Tensor, k_BKD: Tensor, v_BKD: Tensor, seen_BQK: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Multi-head attention beside a null key of score 0 whose value is zero.

    A query that may see nothing reads zeros, and never NaN; weights sum to less than 1 by what the null key takes.

    Args:
        seen_BQK: which keys a query may read; broadcast over what has size 1.

    Returns:
        The heads' readings side by side (B, Q, D) and the weights (B, H, Q, K).
    """
    batch, queries, width = q_BQD.shape
    q, k, v = (part.view(batch, part.shape[1], heads, -1).transpose(1, 2) for part in (q_BQD, k_BKD, v_BKD))
    score = q @ k.transpose(-1, -2) / math.sqrt(width // heads)
    score = score.masked_fill(~seen_BQK.unsqueeze(1), -1e4)
    weight = torch.cat([torch.zeros_like(score[..., :1]), score], -1).softmax(-1)[..., 1:]
    return (weight @ v).transpose(1, 2).reshape(batch, queries, width), weight


class Attention(nn.Module):
    """`attend` with its four maps. Give it normed tokens.

    Args:
        silent: the output starts at zero, for a part that joins a residual path without disturbing it.
    """

    def __init__(self, width: int, heads: int, *, silent: bool = False) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        if silent:
            start_at_zero(self.out)

    def forward(self, x_BQD: Tensor, read_BKD: Tensor, valid_BK: Tensor) -> tuple[Tensor, Tensor]:
        """What every x reads of the valid tokens (B, Q, D), and the weights (B, H, Q, K)."""
        read, weight = attend(
            self.query(x_BQD), self.key(read_BKD), self.value(read_BKD), valid_BK.unsqueeze(1), self.heads
        )
        return self.out(read), weight


def feed_forward(width: int, *, silent: bool = False) -> nn.Sequential:
    """The usual norm, widening, GELU, narrowing; ``silent`` as in `Attention`."""
    last = nn.Linear(2 * width, width)
    if silent:
        start_at_zero(last)
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), last)


def start_at_zero(layer: nn.Linear) -> None:
    """Let a linear map (with bias, if it has one) begin as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def shares_of(mass_BE: Tensor, present_BE: Tensor) -> Tensor:
    """Attention mass as shares (B, E) that sum to 1 over present experts; equal ones where none got any mass."""
    mass = mass_BE * present_BE
    total = mass.sum(-1, keepdim=True)
    equal = present_BE / present_BE.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(total > 0, mass / total.clamp_min(1e-12), equal)


def expert_mass(weight_BHQK: Tensor, expert_K: Tensor, experts: int) -> Tensor:
    """Weights averaged over heads and queries, summed per expert that the keys come from: (B, E)."""
    member_KE = nn.functional.one_hot(expert_K, experts).to(weight_BHQK.dtype)
    return weight_BHQK.mean((1, 2)) @ member_KE


def check_heads(width: int, heads: int) -> None:
    """Raises AstreaError: the heads do not divide the width."""
    if heads < 1 or width % heads:
        raise AstreaError(f"{heads} attention heads do not divide a width of {width}", "choose another number of heads")
