"""A segmentation head on the features of EfficientNet-Lite0: whose pixel each one is, and what it is like.

Bottom-up instances after Panoptic-DeepLab (arXiv 1911.10194), as in the drawn world's expert: every pixel tells whether
it is of a thing, which way that thing's centroid lies, and the thing's category and colour; centroids are the peaks of
a heat map, and every pixel of a thing joins the one that it points to.

Letters: B pictures, C channels, S side of the picture, h = w = S / 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.experts.packaged.efficientnet_network import EfficientNetLite0

TAPS = {3: 24, 5: 40, 11: 112, 16: 320}
"""Bottlenecks of the trunk behind which features are read, at strides 4, 8, 16 and 32 -> their channels."""
WIDTH = 64
DEEP = 2
"""Blocks that mix neighbours at each stride before it joins the next."""
REACH = 0.1
"""Offsets are predicted in this share of the picture's side."""
RARE = -4.6
"""Where the heat map's logits start: one cell in a hundred is a centroid."""


class Maps(NamedTuple):
    """Of every cell: logits of being of a thing (B, h, w), of being its centroid (B, h, w), of its category
    (B, K, h, w) and colour (B, K', h, w); and the way to the centroid (B, 2, h, w), x and y, in shares of the
    picture's side."""

    front: Tensor
    heat: Tensor
    offset: Tensor
    category: Tensor
    colour: Tensor


def pyramid(trunk: EfficientNetLite0, pixels_B3SS: Tensor) -> tuple[list[Tensor], Tensor]:
    """The features behind `TAPS`, and the last ones, which the trunk's classifier reads."""
    x, found = F.relu6(trunk.stem(pixels_B3SS)), []
    for number, block in enumerate(trunk.blocks, 1):
        x = block(x)
        if number in TAPS:
            found.append(x)
    return found, F.relu6(trunk.head(x))


class Neighbours(nn.Module):
    """Mixes what is near, then channels (after ConvNeXt, arXiv 2201.03545): (B, WIDTH, h, w) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH)
        self.norm = nn.GroupNorm(1, WIDTH)
        self.wide = nn.Conv2d(WIDTH, 2 * WIDTH, 1)
        self.back = nn.Conv2d(2 * WIDTH, WIDTH, 1)

    def forward(self, x_BChw: Tensor) -> Tensor:
        mixed: Tensor = self.back(F.gelu(self.wide(self.norm(self.near(x_BChw)))))
        return x_BChw + mixed


class SegmenterHead(nn.Module):
    """From the trunk's features and the picture itself, which knows colours best, to `Maps`."""

    def __init__(self, categories: int, colours: int) -> None:
        super().__init__()
        self.sizes = [1, 1, 2, categories, colours]
        self.laterals = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in TAPS.values())
        self.mixers = nn.ModuleList(nn.Sequential(*(Neighbours() for _ in range(DEEP))) for _ in TAPS)
        self.mix = nn.Sequential(
            nn.Conv2d(WIDTH + 3, WIDTH, 3, padding=1), nn.GELU(), nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1), nn.GELU()
        )
        self.out = nn.Conv2d(2 * WIDTH + 3, sum(self.sizes), 1)
        with torch.no_grad():
            self.out.bias[1] = RARE  # type: ignore[index]

    def forward(self, features: list[Tensor], pixels_B3SS: Tensor) -> Maps:
        joined: Tensor | None = None
        for lateral, mixer, level in zip(
            reversed(self.laterals), reversed(self.mixers), reversed(features), strict=True
        ):
            here = lateral(level)
            if joined is not None:
                here = here + F.interpolate(joined, here.shape[2:], mode="bilinear", align_corners=False)
            joined = mixer(here)
        assert joined is not None
        seen = F.adaptive_avg_pool2d(pixels_B3SS, (joined.shape[2], joined.shape[3]))
        mixed = self.mix(torch.cat([F.gelu(joined), seen], 1))
        front, heat, offset, category, colour = self.out(torch.cat([mixed, seen], 1)).split(self.sizes, 1)
        return Maps(front.squeeze(1), heat.squeeze(1), offset * REACH, category, colour)
