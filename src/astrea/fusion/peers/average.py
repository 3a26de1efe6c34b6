"""The mean of all experts' maps: a mixture that cannot choose.

Letters: B pictures, S questions, E experts, G cells, D language-model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.peers.grid import Grid
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens, equal_shares


class UniformAverage(FusionStrategy):
    """Per cell of a common grid, the mean over the experts that are present.

    An expert that is present and sees nothing at a cell counts as zero there, as an expert's empty background would.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.grid = Grid(layout)
        self.num_tokens = self.grid.cells

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        count_B11 = matrix.present.sum(-1).clamp_min(1).view(-1, 1, 1)
        tokens_BGD = self.grid(matrix).sum(1) / count_B11 + self.grid.position
        return VisualTokens(
            tokens_BGD, self.grid.valid(matrix), equal_shares(matrix.present, question_BSD.shape[1]), None
        )
