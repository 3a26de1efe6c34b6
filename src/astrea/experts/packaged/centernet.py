"""The kind `centernet`: the 80 classes of COCO with their boxes, from a small detector that comes with the package.

Letters: B pictures, T findings, K classes, H W picture height and width, h w cells of the maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.experts.packaged.centernet_network import CLASSES, FEATURES, STRIDE, CenterNet
from astrea.experts.packaged.class_names import COCO
from astrea.experts.packaged.findings import (
    HORIZONTAL,
    SIZE,
    VERTICAL,
    pooled_in_boxes,
    side_words,
    size_words,
    suppress,
)
from astrea.experts.packaged.stored import read_weights
from astrea.experts.pretrained.slots import even
from astrea.experts.protocol import Expert, ExpertFeatures, Reading

WEIGHTS = Path(__file__).parent / "weights" / "centernet.safetensors"
SIDE = 512
MOST = 8
LEAST = 0.05
"""Classes less likely than this at a place are left out of the mixture."""
OVERLAP = 0.5


class Found(NamedTuple):
    """classes: (B, T, K) probabilities that sum to 1. box: (B, T, 4) corners as shares. score: (B, T), falling; 0 =
    empty. features: (B, T, FEATURES) of the backbone inside the box."""

    classes: Tensor
    box: Tensor
    score: Tensor
    features: Tensor


class CenterNetExpert(Expert):
    """Up to 8 things of COCO's 80 classes, the surest first: what it is (a mixture of classes), where, how large, and
    what the network's backbone sees there.

    Args:
        most: how many things it tells of at most, 1..32.
        threshold: a smaller probability is an empty slot.

    Raises:
        AstreaError: an option is out of range.
    """

    num_tokens = MOST
    labels = (*COCO, *VERTICAL, *HORIZONTAL, *SIZE, None, None, *([None] * FEATURES))
    width = len(labels)
    slots = {
        "thing": (0, CLASSES),
        "vertical": (CLASSES, CLASSES + 2),
        "horizontal": (CLASSES + 2, CLASSES + 4),
        "size": (CLASSES + 4, CLASSES + 6),
        "feature": (CLASSES + 8, CLASSES + 8 + FEATURES),
    }
    phrases = ("{feature:name} {vertical} {horizontal} {size} ;", "{thing:name} {vertical} {horizontal} {size} ;")

    def __init__(self, *, most: int = MOST, threshold: float = 0.2) -> None:
        super().__init__()
        if most not in range(1, 33):
            raise AstreaError(f"most={most!r}", "a whole number in 1..32")
        if not 0 < threshold < 1:
            raise AstreaError(f"threshold={threshold!r}", "a probability between 0 and 1")
        self.num_tokens, self.threshold = most, threshold
        self.network = CenterNet()
        # On the meta device there is nothing to fill yet: the weights will come from the model folder.
        if not self.network.stem.weight.is_meta:
            self.network.load_state_dict(read_weights(WEIGHTS))

    def found(self, pixels_B3HW: Tensor) -> Found:
        """The surest middles of things, one at a place, without boxes that cover a better one."""
        square_B3SS = F.interpolate(pixels_B3HW, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        heat_BKhw, sides_B4hw, features = self.network(square_B3SS * 255)
        width = heat_BKhw.shape[3]
        best_B1hw = heat_BKhw.amax(1, keepdim=True)
        peaks = best_B1hw * (F.max_pool2d(best_B1hw, 5, 1, 2) == best_B1hw)
        score_BT, at_BT = peaks.flatten(1).topk(self.num_tokens, 1)
        classes_BTK, sides_BT4 = (
            maps.flatten(2).gather(2, at_BT.unsqueeze(1).expand(-1, maps.shape[1], -1)).transpose(1, 2)
            for maps in (heat_BKhw, sides_B4hw)
        )
        middle_BT2 = torch.stack([at_BT % width, at_BT // width], -1) * STRIDE
        corners = [middle_BT2 - sides_BT4[..., :2], middle_BT2 + sides_BT4[..., 2:]]
        box_BT4 = (torch.cat(corners, -1) / SIDE).clamp(0, 1)
        score_BT = suppress(box_BT4, torch.where(score_BT >= self.threshold, score_BT, 0), OVERLAP)
        order_BT = score_BT.argsort(dim=1, descending=True, stable=True)
        classes_BTK = classes_BTK * (classes_BTK > LEAST)
        classes_BTK = classes_BTK / classes_BTK.sum(-1, keepdim=True).clamp_min(1e-6)
        every = (classes_BTK, box_BT4, score_BT.unsqueeze(-1), pooled_in_boxes(features, box_BT4))
        picked = [values.gather(1, order_BT.unsqueeze(-1).expand(-1, -1, values.shape[-1])) for values in every]
        return Found(picked[0], picked[1], picked[2].squeeze(-1), picked[3])

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        found = self.found(pixels_B3HW)
        middle_BT2, span_BT2 = (found.box[..., :2] + found.box[..., 2:]) / 2, found.box[..., 2:] - found.box[..., :2]
        tokens_BTC = torch.cat(
            [found.classes, side_words(middle_BT2), size_words(span_BT2), span_BT2, even(found.features)], -1
        )
        return ExpertFeatures(tokens_BTC, found.score, middle_BT2)

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        found = self.found(pixels_B3HW)
        readings = []
        for classes_TK, box_T4, score_T in zip(found.classes, found.box, found.score, strict=True):
            there = score_T > 0
            readings.append(
                Reading(
                    "centernet",
                    boxes=[(box[0], box[1], box[2], box[3]) for box in box_T4[there].tolist()],
                    labels=[COCO[index] for index in classes_TK[there].argmax(-1).tolist()],
                    scores=score_T[there].tolist(),
                )
            )
        return readings
