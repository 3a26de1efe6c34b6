"""The kind `segmenter`: things of any class by their masks, with category, colour, size and place.

Its head was trained on the photograph world (`astrea.world.photographs`), from the masks of pasted cut-outs; the
features below it, and those that it hands on, are EfficientNet-Lite0's (the extra ``photo``).

Letters: B pictures, T regions, C channels, H W picture height and width, h w cells of the maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.experts.packaged.class_names import CATEGORIES, COLOURS
from astrea.experts.packaged.efficientnet import installed_weights
from astrea.experts.packaged.efficientnet_network import FEATURES, EfficientNetLite0
from astrea.experts.packaged.findings import HORIZONTAL, SIZE, VERTICAL, side_words, size_words
from astrea.experts.packaged.segmenter_network import Maps, SegmenterHead, pyramid
from astrea.experts.packaged.stored import read_weights
from astrea.experts.pretrained.slots import even
from astrea.experts.protocol import Expert, ExpertFeatures, Reading

WEIGHTS = Path(__file__).parent / "weights" / "segmenter.safetensors"
SIDE, MOST = 320, 8
COLOUR_AT = len(CATEGORIES)
PLACE_AT = COLOUR_AT + len(COLOURS)
"""The first channels of colours and of places."""
TENTHS = 10
"""Parts of the picture's width and of its height that places are told in: one digit each."""
FEWEST = 6
"""Cells that a region must have."""


class Regions(NamedTuple):
    """member: (B, T, h, w) bool, whose cell each one is. score: (B, T), 0 = empty. centroid, span: (B, T, 2), the mean
    of the cells and width and height of the box around them, as shares. box: (B, T, 4). area: (B, T), share of the
    picture. category, colour: (B, T, K), sum 1. features: (B, T, FEATURES) of the trunk, averaged over the mask.
    Regions stand in the order of their area, the largest first."""

    member: Tensor
    score: Tensor
    centroid: Tensor
    span: Tensor
    box: Tensor
    area: Tensor
    category: Tensor
    colour: Tensor
    features: Tensor


class SegmenterExpert(Expert):
    """Up to 8 things, the largest first: category, colour, where, how large, and the features under the mask.

    Args:
        most: how many things it tells of at most, 1..32.
        threshold: of the probability that a place is a thing's centroid.
        numbers: whether phrases number the things from the largest to the smallest, so that they need not be counted.
        places: whether phrases say where a thing's middle is in tenths of the picture, across and then down: "37".
            "left" and "top" speak of halves: of two things in one half they can't say which is further left.
        counts: whether phrases number the things of one name, and those of one category, by themselves, the largest
            first: "frog 2" is the second frog.

    Raises:
        AstreaError: an option is out of range, or the weights are not installed.
    """

    num_tokens = MOST
    labels = (
        *CATEGORIES, *COLOURS, *VERTICAL, *HORIZONTAL, *SIZE, None, None, None, *([None] * FEATURES),
    )  # fmt: skip
    width = len(labels)
    slots = {
        "category": (0, COLOUR_AT),
        "colour": (COLOUR_AT, PLACE_AT),
        "vertical": (PLACE_AT, PLACE_AT + 2),
        "horizontal": (PLACE_AT + 2, PLACE_AT + 4),
        "size": (PLACE_AT + 4, PLACE_AT + 6),
        # Between them: width, height, and the square root of the area.
        "feature": (PLACE_AT + 9, PLACE_AT + 9 + FEATURES),
    }
    phrases: tuple[str, ...] = (
        "{feature:name} {colour} {vertical} {horizontal} {size} ;",
        "{category} {colour} {vertical} {horizontal} {size} ;",
    )

    def __init__(
        self,
        *,
        most: int = MOST,
        threshold: float = 0.25,
        numbers: bool = False,
        places: bool = False,
        counts: bool = False,
    ) -> None:
        super().__init__()
        if most not in range(1, 33):
            raise AstreaError(f"most={most!r}", "a whole number in 1..32")
        if not 0 < threshold < 1:
            raise AstreaError(f"threshold={threshold!r}", "a probability between 0 and 1")
        self.num_tokens, self.threshold = most, threshold
        self.numbers, self.places, self.counts = numbers, places, counts
        said = [str(number) for number in range(1, most + 1)]
        if numbers:
            self._add_slot("number", said)
            self.phrases = self._ending("number")
        if places:
            self._add_slot("tenths", [f"{place:02}" for place in range(TENTHS**2)])
            self.phrases = self._ending("tenths")
        if counts:
            self._add_slot("same", said)
            features, own = self.phrases
            self.phrases = (
                features.replace("{feature:name}", "{feature:name} {feature:count}"),
                own.replace("{category}", "{category} {same:name}"),
            )
        self.trunk = EfficientNetLite0()
        self.head = SegmenterHead(len(CATEGORIES), len(COLOURS))
        # On the meta device there is nothing to fill yet: the weights will come from the model folder.
        if not self.trunk.stem.weight.is_meta:
            self.trunk.load_state_dict(installed_weights())
            self.head.load_state_dict(read_weights(WEIGHTS))

    def _add_slot(self, slot: str, names: list[str]) -> None:
        """One more channel for each name."""
        self.slots = {**self.slots, slot: (self.width, self.width + len(names))}
        self.labels, self.width = (*self.labels, *names), self.width + len(names)

    def _ending(self, slot: str) -> tuple[str, ...]:
        """The phrases with one more word at their ends."""
        return tuple(f"{phrase[:-1]}{{{slot}:name}} ;" for phrase in self.phrases)

    def maps(self, pixels_B3HW: Tensor) -> tuple[Maps, Tensor]:
        """What the head says of every cell, and the trunk's last features (B, FEATURES, SIDE / 32, SIDE / 32)."""
        square_B3SS = F.interpolate(pixels_B3HW, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        with torch.no_grad():
            features, last = pyramid(self.trunk, (square_B3SS * 255 - 127) / 128)
        return self.head(features, square_B3SS), last

    def found(self, pixels_B3HW: Tensor) -> Regions:
        """The regions of pictures."""
        maps, last = self.maps(pixels_B3HW)
        h, w = maps.heat.shape[1:]
        p_Bhw = maps.heat.sigmoid()
        peaks = p_Bhw * (F.max_pool2d(p_Bhw.unsqueeze(1), 7, 1, 3).squeeze(1) == p_Bhw)
        score_BT, at_BT = peaks.flatten(1).topk(self.num_tokens, 1)
        centre_BT2 = (torch.stack([at_BT % w, at_BT // w], -1) + 0.5) / w
        owner_Bhw = nearest(maps.offset, centre_BT2, score_BT >= self.threshold)
        member_BThw = F.one_hot(owner_Bhw, self.num_tokens).permute(0, 3, 1, 2).bool() & (maps.front > 0).unsqueeze(1)
        count_BT = member_BThw.sum((2, 3))
        score_BT = torch.where((score_BT >= self.threshold) & (count_BT >= FEWEST), score_BT, 0)
        area_BT = torch.where(score_BT > 0, count_BT / (h * w), 0)
        order_BT = area_BT.argsort(dim=1, descending=True, stable=True)
        score_BT, area_BT = score_BT.gather(1, order_BT), area_BT.gather(1, order_BT)
        member_BThw = member_BThw.gather(1, order_BT[..., None, None].expand(-1, -1, h, w))
        weight_BThw = member_BThw / member_BThw.sum((2, 3), keepdim=True).clamp_min(1)
        kinds, colours = (
            torch.einsum("bthw,bkhw->btk", weight_BThw, logits.softmax(1)) for logits in (maps.category, maps.colour)
        )
        coarse_BTqq = F.interpolate(weight_BThw, last.shape[2:], mode="area")
        coarse_BTqq = coarse_BTqq / coarse_BTqq.sum((2, 3), keepdim=True).clamp_min(1e-9)
        features_BTC = torch.einsum("btqr,bcqr->btc", coarse_BTqq, last)
        centroid_BT2, box_BT4 = extents(member_BThw)
        return Regions(
            member_BThw, score_BT, centroid_BT2, box_BT4[..., 2:] - box_BT4[..., :2], box_BT4, area_BT,
            kinds, colours, features_BTC,
        )  # fmt: skip

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        found = self.found(pixels_B3HW)
        size_BT1 = found.area.sqrt().unsqueeze(-1)
        tokens_BTC = torch.cat(
            [
                found.category,
                found.colour,
                side_words(found.centroid),
                size_words(size_BT1.expand(-1, -1, 2)),
                found.span,
                size_BT1,
                even(found.features),
                *([numbered(found.score)] if self.numbers else []),
                *([in_tenths(found.centroid, found.score)] if self.places else []),
                *([numbered_in_category(found.category, found.score)] if self.counts else []),
            ],
            -1,
        )
        return ExpertFeatures(tokens_BTC, found.score, found.centroid)

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        found = self.found(pixels_B3HW)
        readings = []
        for row in range(len(pixels_B3HW)):
            there = found.score[row] > 0
            kinds, colours = (part[row, there].argmax(-1).tolist() for part in (found.category, found.colour))
            member_Rhw = found.member[row, there]
            numbers = torch.arange(1, len(member_Rhw) + 1, device=member_Rhw.device)
            readings.append(
                Reading(
                    "segmenter",
                    boxes=[(box[0], box[1], box[2], box[3]) for box in found.box[row, there].tolist()],
                    labels=[f"{COLOURS[c]} {CATEGORIES[k]}" for k, c in zip(kinds, colours, strict=True)],
                    scores=found.score[row, there].tolist(),
                    mask=(member_Rhw * numbers[:, None, None]).sum(0),
                )
            )
        return readings


def numbered(score_BT: Tensor) -> Tensor:
    """The number of each region that is there, counted from the first: (B, T, T), one of them 1."""
    there_BT = score_BT > 0
    number_BTT: Tensor = F.one_hot((there_BT.cumsum(1) - 1).clamp_min(0), score_BT.shape[1])
    return number_BTT * there_BT.unsqueeze(-1)


def numbered_in_category(category_BTK: Tensor, score_BT: Tensor) -> Tensor:
    """The number of each region that is there among those of its likeliest category, counted from the first:
    (B, T, T), one of them 1."""
    there_BT, kind_BT = score_BT > 0, category_BTK.argmax(-1)
    same_BTT = (kind_BT.unsqueeze(2) == kind_BT.unsqueeze(1)) & there_BT.unsqueeze(1)
    number_BTT: Tensor = F.one_hot((same_BTT.tril().sum(2) - 1).clamp_min(0), score_BT.shape[1])
    return number_BTT * there_BT.unsqueeze(-1)


def in_tenths(centre_BT2: Tensor, score_BT: Tensor) -> Tensor:
    """The place (x, y as shares) of each region that is there, as a number of two digits: (B, T, TENTHS ** 2), one of
    them 1."""
    across_BT, down_BT = (centre_BT2 * TENTHS).long().clamp(0, TENTHS - 1).unbind(-1)
    place_BTP: Tensor = F.one_hot(across_BT * TENTHS + down_BT, TENTHS**2)
    return place_BTP * (score_BT > 0).unsqueeze(-1)


def nearest(offset_B2hw: Tensor, centre_BT2: Tensor, there_BT: Tensor) -> Tensor:
    """Which centre every cell points to: (B, h, w) in 0..T-1; centres that are not there are nobody's."""
    h, w = offset_B2hw.shape[2:]
    y, x = ((torch.arange(n, device=offset_B2hw.device) + 0.5) / n for n in (h, w))
    aim_B2P = (offset_B2hw + torch.stack(torch.meshgrid(x, y, indexing="xy"))).flatten(2)
    far_BTP = (aim_B2P.unsqueeze(1) - centre_BT2.unsqueeze(-1)).square().sum(2)
    owner_BP: Tensor = far_BTP.masked_fill(~there_BT.unsqueeze(-1), torch.inf).argmin(1)
    return owner_BP.unflatten(1, (h, w))  # type: ignore[no-any-return]


def extents(member_BThw: Tensor) -> tuple[Tensor, Tensor]:
    """Centroid (B, T, 2) and box (B, T, 4) of regions, as shares of the picture; of an empty one all 0."""
    filled_BT = member_BThw.any(-1).any(-1)
    centroid, low, high = [], [], []
    for axis in (3, 2):  # x, then y
        length = member_BThw.shape[axis]
        count_BTn = member_BThw.sum(5 - axis)
        cells = torch.arange(length, device=member_BThw.device)
        centroid.append((count_BTn * (cells + 0.5)).sum(-1) / count_BTn.sum(-1).clamp_min(1) / length)
        used = count_BTn > 0
        low.append(torch.where(used, cells, length).amin(-1) / length)
        high.append((torch.where(used, cells, -1).amax(-1) + 1) / length)
    box_BT4 = torch.where(filled_BT.unsqueeze(-1), torch.stack([*low, *high], -1), 0)
    return torch.stack(centroid, -1), box_BT4
