"""From slots to a map: every expert's tokens on one common grid, for strategies that fuse feature maps.

Letters: B pictures, E experts, T all experts' tokens, R rows, C columns, G = R * C cells, D language-model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout

LONGEST = 2.0
"""Columns per row at most: a grid much longer than that is none."""


class Grid(nn.Module):
    """A map (G, D) per expert, and an embedding of its cells.

    Most peers fuse feature maps; our experts give slots that say where they look. A cell's value is the mean of the
    expert's valid tokens, weighted by ``w = exp(-distance^2 / (2 sigma^2))`` between token and centre of the cell:

        map_eg = sum_t w_gt x_t / (empty + sum_t w_gt)

    With ``empty`` in the denominator a cell far from every token is near zero, as it would be a copy of the nearest
    token without. A token without a place goes to every cell with weight 1. There is nothing to learn in this: the
    learning is in the adapters before and the fusion behind, as it is in the peers.

    Args:
        sigma: in shares of the picture; by default half of what a square cell would measure.
        empty: how much weight a cell needs before it counts as half full.
    """

    def __init__(self, layout: Layout, *, sigma: float | None = None, empty: float = 0.1) -> None:
        super().__init__()
        self.rows, self.columns = grid_shape(layout.tokens)
        self.sigma = 0.5 / math.sqrt(self.cells) if sigma is None else sigma
        self.empty = empty
        # All visual tokens share one position of the language model, so a cell has to say which one it is.
        self.position = nn.Parameter(0.02 * torch.randn(self.cells, layout.width))

    @property
    def cells(self) -> int:
        """G."""
        return self.rows * self.columns

    def forward(self, matrix: ExpertMatrix) -> Tensor:
        """Maps (B, E, G, D), zeros for absent experts. Add ``position`` (G, D) once they are fused."""
        member_ET = nn.functional.one_hot(matrix.expert, matrix.experts).T.to(matrix.tokens.dtype)
        weight_BEGT = self.weights(matrix).unsqueeze(1) * member_ET.unsqueeze(1)
        # Zero times what an unread slot may hold is not always zero.
        tokens_BTD = matrix.tokens.masked_fill(~matrix.valid.unsqueeze(-1), 0)
        total_BEG1 = weight_BEGT.sum(-1, keepdim=True)
        return weight_BEGT @ tokens_BTD.unsqueeze(1) / (self.empty + total_BEG1)

    def weights(self, matrix: ExpertMatrix) -> Tensor:
        """How much of each token a cell takes: (B, G, T), zeros for tokens that are not valid."""
        centre_G2 = self.centres().to(matrix.places)
        square_BGT = (centre_G2.view(1, -1, 1, 2) - matrix.places.unsqueeze(1)).square().sum(-1)
        weight_BGT = torch.exp(-square_BGT / (2 * self.sigma**2))
        return weight_BGT.nan_to_num(nan=1.0) * matrix.valid.unsqueeze(1)

    def valid(self, matrix: ExpertMatrix) -> Tensor:
        """Which cells may be read, (B, G): all of them, or none where no expert says anything."""
        return matrix.valid.any(-1, keepdim=True).expand(-1, self.cells)

    def centres(self) -> Tensor:
        """x and y of every cell's centre as shares of the picture, (G, 2), row by row."""
        y_R, x_C = (torch.arange(0.5, count) / count for count in (self.rows, self.columns))
        return torch.stack([x_C.repeat(self.rows), y_R.repeat_interleave(self.columns)], -1)


def grid_shape(tokens: int) -> tuple[int, int]:
    """Rows and columns with as many cells as possible, ``tokens`` at most; of these, the grid nearest to a square."""
    shapes = [(rows, columns) for rows in range(1, tokens + 1) for columns in range(rows, tokens // rows + 1)]
    return max(
        ((rows, columns) for rows, columns in shapes if columns <= LONGEST * rows),
        key=lambda shape: (shape[0] * shape[1], shape[0]),
    )
