"""One eye taught by several: a compact encoder that learns to say what other experts say (see training.distill).

RADIO (arXiv 2312.06709) distils several vision models into one student. Its tokens are a grid over the picture and
speak no language of their own: channels have no names, so its adapter starts at random.

Simplified: RADIO's student is a large ViT. This one is the trunk that every compact expert has, pooled to a grid, and
one transformer layer, so that a token knows its neighbours and its place.

Letters: B batch, Y X rows and columns of the grid, T = Y X tokens, C width of a token, H W picture height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.experts.protocol import Expert, ExpertFeatures, Reading
from astrea.world.experts.trunk import Trunk, conv

ROWS, COLUMNS = 4, 7
"""As many tokens as the four compact experts have together, so that the language model reads no more of them."""
WIDTH = 96


class StudentExpert(Expert):
    """A grid of 4 x 7 tokens over the whole picture; none is ever empty."""

    kind = "student"
    num_tokens = ROWS * COLUMNS
    width = WIDTH
    labels = (None,) * WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.widen = conv(self.trunk.widths[1], WIDTH)
        self.place = nn.Parameter(torch.randn(self.num_tokens, WIDTH) * 0.1)
        self.context = nn.TransformerEncoderLayer(
            WIDTH, nhead=4, dim_feedforward=2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        _, fine, _ = self.trunk(pixels_B3HW)
        grid_BTC = F.adaptive_avg_pool2d(self.widen(fine), (ROWS, COLUMNS)).flatten(2).transpose(1, 2)
        tokens_BTC = self.context(grid_BTC + self.place)
        x_X, y_Y = ((torch.arange(n, device=fine.device, dtype=fine.dtype) + 0.5) / n for n in (COLUMNS, ROWS))
        centres_T2 = torch.stack([x_X.repeat(ROWS), y_Y.repeat_interleave(COLUMNS)], -1)
        return ExpertFeatures(
            tokens_BTC, tokens_BTC.new_ones(tokens_BTC.shape[:2]), centres_T2.expand(len(tokens_BTC), -1, -1)
        )

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        """Where the student finds something of its own: cells that differ from the picture's mean token by more than
        the average cell does. It has no words for what it finds."""
        tokens_BTC = self(pixels_B3HW).tokens
        odd_BT = (tokens_BTC - tokens_BTC.mean(1, keepdim=True)).norm(dim=-1)
        cells_BYX = (odd_BT > odd_BT.mean(1, keepdim=True)).view(-1, 1, ROWS, COLUMNS).float()
        masks_BHW = F.interpolate(cells_BYX, size=pixels_B3HW.shape[-2:], mode="nearest").squeeze(1).long()
        return [Reading("student", mask=mask) for mask in masks_BHW]
