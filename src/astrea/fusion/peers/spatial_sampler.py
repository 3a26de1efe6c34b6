"""Spatial sampler (Cambrian-1's SVA): learned queries on a grid, each reading its own window of every expert.

Letters: B pictures, S questions per picture, E experts, T expert tokens, T_e those of one, G cells of the grid
(= M visual tokens), H heads, D width.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.peers.attend import attend, check_heads, expert_mass, feed_forward, shares_of, start_at_zero
from astrea.fusion.peers.grid import grid_shape
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens

Softmax = Literal["joint", "separate"]


class SpatialSampler(FusionStrategy):
    """After the Spatial Vision Aggregator of Cambrian-1 (arXiv 2406.16860).

        x_ij = global + cell_ij;   x += out(read(LN x, the window of cell ij in every expert));   x += FFN(x)

    ``read`` has keys and values of its own per expert. ``joint``: one softmax over the windows of all experts.
    ``separate``: a softmax within each expert, then a softmax over present experts of Linear(D -> E)(LN x).

    What is simplified, and why:

    * There a window is a patch of a feature map. Our experts give slots, so it is every token whose place lies within
      ``window`` cells of the cell's centre along x and along y; a token without a place is in every window. A null key
      stands beside them: a query whose window is empty reads zeros.
    * There the sampler is repeated inside the language model at every third layer. Here it stands once before it, as
      the tiny language model has four layers, and a strategy never reaches into the language model.

    The question does not enter, so many questions share one picture. Shares: attention mass per expert in the last
    block, mean over queries and heads, without the null key.

    Args:
        window: in cells, as cells are not square; 0.5 is the least with which every place is in some window.
    """

    def __init__(
        self, layout: Layout, *, softmax: Softmax = "joint", depth: int = 3, heads: int = 4, window: float = 0.75
    ) -> None:
        super().__init__()
        if softmax not in get_args(Softmax):
            raise AstreaError(f"unknown softmax {softmax!r}", f"choose one of {', '.join(get_args(Softmax))}")
        if depth < 1:
            raise AstreaError(f"a sampler of depth {depth}", "it must be 1 or more")
        if window < 0.5:
            raise AstreaError(f"with a window of {window} cells some places are never seen", "use 0.5 or more")
        check_heads(layout.width, heads)
        self.window = window
        self.rows, self.columns = grid_shape(layout.tokens)
        self.num_tokens = self.rows * self.columns
        self.everywhere = nn.Parameter(torch.randn(layout.width) * 0.02)
        self.cells = nn.Parameter(torch.randn(self.num_tokens, layout.width) * 0.02)
        block = {"joint": JointBlock, "separate": SeparateBlock}[softmax]
        self.blocks = nn.ModuleList(block(layout.width, heads, layout.counts) for _ in range(depth))

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        seen_BGT = self.windows(matrix.places) & matrix.valid.unsqueeze(1)
        # What is not read must be harmless in the products below too.
        tokens = matrix.tokens.masked_fill(~matrix.valid.unsqueeze(-1), 0)
        x = (self.everywhere + self.cells).expand(len(tokens), -1, -1)
        mass_BE = matrix.tokens.new_zeros(matrix.present.shape)
        for block in self.blocks:
            x, mass_BE = block(x, tokens, seen_BGT, matrix)
        valid = matrix.valid.any(1, keepdim=True).expand(-1, self.num_tokens)
        shares = shares_of(mass_BE, matrix.present).unsqueeze(1).expand(-1, question_BSD.shape[1], -1)
        return VisualTokens(x, valid, shares, None)

    def windows(self, places_BT2: Tensor) -> Tensor:
        """Which tokens lie in the window of which cell, (B, G, T); cells go row by row."""
        row, column = (torch.arange(n, device=places_BT2.device) for n in (self.rows, self.columns))
        centre_G2 = torch.stack([column.repeat(self.rows), row.repeat_interleave(self.columns)], -1) + 0.5
        # In units of a cell along each axis.
        place = places_BT2 * places_BT2.new_tensor([self.columns, self.rows])
        near = ((place.unsqueeze(1) - centre_G2[:, None]).abs() <= self.window).all(-1)
        return near | places_BT2.isnan().any(-1).unsqueeze(1)


class Block(nn.Module):
    """What both ways to read share: norms, query, keys and values per expert, output and feed-forward part."""

    def __init__(self, width: int, heads: int, counts: tuple[int, ...]) -> None:
        super().__init__()
        self.heads, self.counts = heads, list(counts)
        self.norm = nn.LayerNorm(width)
        self.expert_norms = nn.ModuleList(nn.LayerNorm(width) for _ in counts)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = nn.ModuleList(nn.Linear(width, width) for _ in counts)
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in counts)
        self.feed = feed_forward(width)

    def forward(
        self, x_BGD: Tensor, tokens_BTD: Tensor, seen_BGT: Tensor, matrix: ExpertMatrix
    ) -> tuple[Tensor, Tensor]:
        """New x, and the attention mass per expert (B, E)."""
        parts = zip(self.expert_norms, self.keys, self.values, tokens_BTD.split(self.counts, 1), strict=True)
        keys, values = [], []
        for norm, key, value, part in parts:
            part = norm(part)
            keys.append(key(part))
            values.append(value(part))
        read, mass_BE = self.read(self.norm(x_BGD), keys, values, seen_BGT, matrix)
        x_BGD = x_BGD + self.out(read)
        return x_BGD + self.feed(x_BGD), mass_BE

    def read(
        self, x_BGD: Tensor, keys: list[Tensor], values: list[Tensor], seen_BGT: Tensor, matrix: ExpertMatrix
    ) -> tuple[Tensor, Tensor]:
        """The heads' readings (B, G, D) and the attention mass per expert (B, E).

        Args:
            keys, values: (B, T_e, D) per expert.
        """
        raise NotImplementedError


class JointBlock(Block):
    """One softmax over all experts' tokens in the window."""

    def read(
        self, x_BGD: Tensor, keys: list[Tensor], values: list[Tensor], seen_BGT: Tensor, matrix: ExpertMatrix
    ) -> tuple[Tensor, Tensor]:
        read, weight_BHGT = attend(self.query(x_BGD), torch.cat(keys, 1), torch.cat(values, 1), seen_BGT, self.heads)
        return read, expert_mass(weight_BHGT, matrix.expert, matrix.experts)


class SeparateBlock(Block):
    """A softmax within each expert, then one over the present experts per query."""

    def __init__(self, width: int, heads: int, counts: tuple[int, ...]) -> None:
        super().__init__(width, heads, counts)
        self.choose = nn.Linear(width, len(counts))
        start_at_zero(self.choose)

    def read(
        self, x_BGD: Tensor, keys: list[Tensor], values: list[Tensor], seen_BGT: Tensor, matrix: ExpertMatrix
    ) -> tuple[Tensor, Tensor]:
        present = matrix.present.unsqueeze(1)
        chosen_BGE = self.choose(x_BGD).masked_fill(~present, -1e4).softmax(-1) * present
        query = self.query(x_BGD)
        total, masses = torch.zeros_like(x_BGD), []
        for index, seen in enumerate(seen_BGT.split(self.counts, -1)):
            read, weight_BHGT = attend(query, keys[index], values[index], seen, self.heads)
            share_BG = chosen_BGE[..., index]
            total = total + share_BG.unsqueeze(-1) * read
            masses.append((weight_BHGT.sum(-1).mean(1) * share_BG).mean(-1))
        return total, torch.stack(masses, -1)
