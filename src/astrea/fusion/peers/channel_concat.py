"""All experts' maps stacked on channels and projected together, as Eagle does.

Letters: B pictures, S questions, E experts, G cells, D language-model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.peers.grid import Grid
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens, equal_shares


class ChannelConcat(FusionStrategy):
    """Eagle (arXiv 2408.15998): expert maps on one grid, concatenated on channels, then ``Linear, GELU, Linear`` to D.

    Eagle resizes feature maps to a common size; our experts give slots, which `Grid` puts on one. Its experts come raw,
    ours through an adapter each: the first of the two layers has E * D inputs whatever the experts' own widths. An
    absent expert's channels are zeros.

    Args:
        hidden: width between the two layers; the language model's by default, as there.
    """

    def __init__(self, layout: Layout, *, hidden: int | None = None) -> None:
        super().__init__()
        self.grid = Grid(layout)
        self.num_tokens = self.grid.cells
        hidden = hidden or layout.width
        first, second = nn.Linear(len(layout.names) * layout.width, hidden), nn.Linear(hidden, layout.width)
        # Maps of slots are mostly near zero: torch's own start leaves a fifth of what pictures differ by.
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.xavier_normal_(second.weight)
        for layer in (first, second):
            nn.init.zeros_(layer.bias)
        self.project = nn.Sequential(first, nn.GELU(), second)

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        stacked_BGC = self.grid(matrix).transpose(1, 2).flatten(2)
        tokens_BGD = self.project(stacked_BGC) + self.grid.position
        return VisualTokens(
            tokens_BGD, self.grid.valid(matrix), equal_shares(matrix.present, question_BSD.shape[1]), None
        )
