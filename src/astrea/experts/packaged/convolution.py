"""A convolution as TensorFlow pads it: networks that were trained there are shifted by half a cell otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv(nn.Module):
    """A convolution that pads as TensorFlow's "SAME" does: where a padding is odd, more below and to the right."""

    def __init__(self, into: int, out: int, side: int = 1, stride: int = 1, groups: int = 1, *, bias: bool = True):
        super().__init__()
        self.side, self.stride, self.groups = side, stride, groups
        self.weight = nn.Parameter(torch.zeros(out, into // groups, side, side))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.side > 1:
            x = F.pad(x, [*self._padding(x.shape[3]), *self._padding(x.shape[2])])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def _padding(self, length: int) -> tuple[int, int]:
        whole = max((-(-length // self.stride) - 1) * self.stride + self.side - length, 0)
        return whole // 2, whole - whole // 2
