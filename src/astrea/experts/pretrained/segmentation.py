"""Segmentation from checkpoints: regions of SegFormer (one per class) and of Mask2Former and EoMT (one per query).

Letters: B batch, Q queries, K classes, T regions kept, H hidden width, h w sides of the masks, S side of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.common.architecture import Network
from astrea.common.errors import AstreaError
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.options import RegionOptions
from astrea.experts.pretrained.slots import (
    PLACED,
    box_order,
    called,
    class_names,
    placed_slots,
    region_labels,
    region_tokens,
    with_slots,
)
from astrea.experts.protocol import ExpertFeatures, Reading, in_order

VISIBLE = 0.5
"""A region that loses more than this of its mask to surer ones is a second belief in the same thing, not a thing."""
Regions = tuple[Tensor, Tensor, Tensor, Tensor]
"""Probabilities (B, T, K), scores (B, T), which pixels are whose (B, T, h, w) as 0 or 1, hidden states (B, T, H)."""


def regions_of_classes(out: Any, tokens: int) -> Regions:
    """Every pixel belongs to its likeliest class; a region is all of a class, the largest first."""
    share_BKhw = out.logits.float().softmax(1)
    classes = share_BKhw.shape[1]
    owner_Bhw = share_BKhw.argmax(1)
    pixels_BK = F.one_hot(owner_Bhw.flatten(1), classes).sum(1)
    kept = min(tokens, classes)
    count_BT, class_BT = pixels_BK.topk(kept, 1)
    member_BThw = (owner_Bhw.unsqueeze(1) == class_BT[..., None, None]).float()
    total_BT = count_BT.clamp_min(1).float()
    probability_BTK = torch.einsum("bthw,bkhw->btk", member_BThw, share_BKhw) / total_BT.unsqueeze(-1)
    score_BT = probability_BTK.gather(2, class_BT.unsqueeze(-1)).squeeze(-1)
    map_BHyx = out.hidden_states[-1].float()
    seen_BTyx = F.adaptive_avg_pool2d(member_BThw, map_BHyx.shape[-2:])
    hidden_BTH = torch.einsum("btyx,bhyx->bth", seen_BTyx, map_BHyx) / seen_BTyx.sum((2, 3)).clamp_min(1e-6).unsqueeze(
        -1
    )
    spare = tokens - kept
    return (
        F.pad(probability_BTK, (0, 0, 0, spare)),
        F.pad(score_BT, (0, spare)),
        F.pad(member_BThw, (0, 0, 0, 0, 0, spare)),
        F.pad(hidden_BTH, (0, 0, 0, spare)),
    )


def regions_of_queries(out: Any, hidden_BQH: Tensor, tokens: int) -> Regions:
    """The likeliest queries; a pixel belongs to the surest of those whose mask holds it."""
    probability_BQK = out.class_queries_logits.float().softmax(-1)[..., :-1]
    score_BT, best_BT = probability_BQK.amax(-1).topk(tokens, 1)

    def pick(values: Tensor) -> Tensor:
        index = best_BT.view(*best_BT.shape, *[1] * (values.ndim - 2))
        return values.gather(1, index.expand(-1, -1, *values.shape[2:]))

    mask_BThw = pick(out.masks_queries_logits).float().sigmoid()
    inside_BThw = (mask_BThw > 0.5).float()
    size_BT = inside_BThw.sum((2, 3))
    owner_B1hw = (score_BT[..., None, None] * mask_BThw).argmax(1, keepdim=True)
    slots_T11 = torch.arange(tokens, device=owner_B1hw.device)[:, None, None]
    member_BThw = inside_BThw * (owner_B1hw == slots_T11)
    visible_BT = member_BThw.sum((2, 3)) / size_BT.clamp_min(1)
    sharp_BT = (mask_BThw * inside_BThw).sum((2, 3)) / size_BT.clamp_min(1)
    score_BT = score_BT * sharp_BT * (visible_BT >= VISIBLE)
    return pick(probability_BQK), score_BT, member_BThw, pick(hidden_BQH.float())


def segformer(model: Any, pixels: Tensor, tokens: int) -> Regions:
    """Regions of SegFormer, one per class."""
    return regions_of_classes(model(pixel_values=pixels, output_hidden_states=True), tokens)


def mask2former(model: Any, pixels: Tensor, tokens: int) -> Regions:
    """Regions of Mask2Former, one per query."""
    out = model(pixel_values=pixels)
    return regions_of_queries(out, out.transformer_decoder_last_hidden_state, tokens)


def eomt(model: Any, pixels: Tensor, tokens: int) -> Regions:
    """Regions of EoMT, one per query."""
    # Queries and the picture's patches are tokens of one sequence; queries come first.
    out = model(pixel_values=pixels)
    return regions_of_queries(out, out.last_hidden_state[:, : model.config.num_queries], tokens)


@dataclass(frozen=True, slots=True)
class Family:
    """How an architecture's regions are found, and which field of its configuration is H."""

    encode: Callable[[Any, Tensor, int], Regions]
    hidden: Callable[[Any], int]


FAMILIES: Mapping[str, Family] = {
    "segformer": Family(segformer, lambda config: config.hidden_sizes[-1]),
    "mask2former": Family(mask2former, lambda config: config.hidden_dim),
    "eomt": Family(eomt, lambda config: config.hidden_size),
}


class SegmentationCheckpoint(CheckpointExpert):
    """The best ``tokens`` regions: class probabilities, middle, extent, visible area, confidence, hidden summary."""

    kind = "segmentation"
    accepts = RegionOptions
    settings: RegionOptions
    networks: ClassVar[Mapping[str, Network]] = {
        "segformer": Network("SegformerForSemanticSegmentation", step=32),
        "mask2former": Network("Mask2FormerForUniversalSegmentation", step=32),
        "eomt": Network("EomtForUniversalSegmentation", fixed=True),
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.preprocess.crop is not None:
            raise AstreaError("the checkpoint sees only the middle of a picture", "set do_center_crop to false")
        config: Any = self.model.config
        queries = getattr(config, "num_queries", None)
        if queries is not None and self.settings.tokens > queries:
            raise AstreaError(f"tokens: {self.settings.tokens}, the checkpoint has {queries} queries", "ask for fewer")
        self.class_names = class_names(config.id2label, config.num_labels)
        self.family = FAMILIES[config.model_type]
        tokens, hidden = self.settings.tokens, self.family.hidden(config)
        labels = region_labels(self.class_names, self.kind, tokens, hidden)
        slots = placed_slots(labels, self.class_names, hidden)
        self.describe_tokens(tokens, labels, slots, with_slots(PLACED, slots))

    def regions(self, pixels_B3SS: Tensor) -> tuple[ExpertFeatures, Tensor, Tensor]:
        """Tokens, boxes (B, T, 4) and whose each pixel is (B, T, h, w), all left to right, empty slots last."""
        probability, score, member, hidden = self.family.encode(
            self.model, self.inputs(pixels_B3SS), self.settings.tokens
        )
        count = member.sum((2, 3))
        sure = torch.where((score > self.settings.threshold) & (count > 0), score, 0)
        centroid, box = middle_and_extent(member)
        order = box_order(box, sure)
        probability, sure, member, hidden, centroid, box, count = (
            in_order(values, order) for values in (probability, sure, member, hidden, centroid, box, count)
        )
        area = count / (member.shape[-1] * member.shape[-2])
        return region_tokens(probability, centroid, box, area, sure, hidden), box, member

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        return self.regions(pixels_B3HW)[0]

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        features, boxes, member_BThw = self.regions(pixels_B3HW)
        found = []
        for row in range(len(boxes)):
            keep = features.confidence[row] > 0
            classes = features.tokens[row, keep, : len(self.class_names)].argmax(-1).tolist()
            inside_Nhw = member_BThw[row, keep]
            numbers_N = torch.arange(1, len(inside_Nhw) + 1, device=inside_Nhw.device)
            found.append(
                Reading(
                    self.kind,
                    boxes=[(box[0], box[1], box[2], box[3]) for box in boxes[row, keep].tolist()],
                    labels=[called(self.class_names[index], index) for index in classes],
                    scores=features.confidence[row, keep].tolist(),
                    mask=(inside_Nhw * numbers_N[:, None, None]).sum(0).long(),
                )
            )
        return found


def middle_and_extent(member_BThw: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids (B, T, 2) and boxes (B, T, 4) of masks, as shares of the picture; zeros for empty masks."""
    rows_BTh, columns_BTw = member_BThw.sum(3), member_BThw.sum(2)
    total_BT = rows_BTh.sum(2).clamp_min(1)

    def along(count_BTn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = count_BTn.shape[-1]
        place_n = (torch.arange(n, device=count_BTn.device) + 0.5) / n
        taken = (count_BTn > 0).float()
        first = taken.argmax(-1) / n
        last = 1 - taken.flip(-1).argmax(-1) / n
        some = taken.amax(-1)
        return (count_BTn * place_n).sum(-1) / total_BT, first * some, last * some

    x, x0, x1 = along(columns_BTw)
    y, y0, y1 = along(rows_BTh)
    return torch.stack([x, y], -1), torch.stack([x0, y0, x1, y1], -1)
