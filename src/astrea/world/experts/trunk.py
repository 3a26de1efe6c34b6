"""The small convolutional trunk that the four compact experts share as a *shape* (each trains its own weights)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Residual(nn.Module):
    """Two 3x3 convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Trunk(nn.Module):
    """Pixels (B, 3, H, W) in 0..1 -> three maps: stride 2 (w0), stride 4 (w1, with the coarse map folded in)
    and stride 8 (w2)."""

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 96)) -> None:
        super().__init__()
        w0, w1, w2 = widths
        self.widths = widths
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), conv(12, w0))
        self.middle = nn.Sequential(conv(w0, w1, stride=2), Residual(w1))
        self.deep = nn.Sequential(conv(w1, w2, stride=2), Residual(w2), Residual(w2))
        self.lateral = nn.Conv2d(w2, w1, 1)
        self.merge = conv(w1, w1)

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = self.stem(pixels_B3HW * 2 - 1)
        middle = self.middle(stem)
        deep = self.deep(middle)
        fine = self.merge(middle + F.interpolate(self.lateral(deep), scale_factor=2.0, mode="nearest"))
        return stem, fine, deep
