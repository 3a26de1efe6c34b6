"""Compact segmentation: regions with coarse category and dominant colour. Weak under noise and clutter.

Bottom-up instances (after Panoptic-DeepLab, arXiv 1911.10194): at stride 2 every pixel tells its category, its colour,
the way to its object's centroid and how much of that object is hidden; centres are peaks of a heat map and every
foreground pixel joins the nearest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.experts.protocol import (
    ORDINALS,
    PLACE_WORDS,
    ExpertFeatures,
    Reading,
    bin_labels,
    in_order,
    left_to_right,
    place_words,
    soft_bins,
)
from astrea.experts.vocabulary_part import speaking_of, word_channels
from astrea.world.experts.slots import USUAL_SLOTS, SlotExpert, named_ranks
from astrea.world.experts.states import hand_on_states
from astrea.world.experts.trunk import Trunk, conv
from astrea.world.experts.truth import SceneTruth, per_pixel
from astrea.world.scenes.vocabulary import CATEGORIES, COLOURS

PLACE_BINS, AREA_BINS, AREA_MAX = 16, 12, 0.12
"""Areas are coded by their square root, up to AREA_MAX of the picture."""
STATE = 32
AT_ONCE = 2**24
"""Slots times cells that are held at once where there are more slots than usual."""


class SegmentationExpert(SlotExpert):
    """Up to 8 region tokens, or as many as ``slots`` says: category, colour, centroid, visible area, occlusion,
    confidence.

    Args:
        threshold: belief below which a region is empty. only: categories it speaks of; none = all. states: whether
            tokens hold the mean state of a region instead of its category; colours keep their names. slots: 1 to 64.
            trained_at: side in pixels of the pictures of training, where those it looks at are larger and things are
            not; areas are then told in shares of such a picture. None = pictures are of one size.
    """

    kind = "segmentation"
    weak_conditions: ClassVar[tuple[str, ...]] = ("noise", "clutter")
    # Where a category has an everyday noun, tokens say that.
    labels = (
        *("gadget" if name == "thing" else name for name in CATEGORIES),
        *COLOURS,
        *bin_labels("x", PLACE_BINS),
        *bin_labels("y", PLACE_BINS),
        *bin_labels("area", AREA_BINS),
        "hidden",
        "sure",
        "segmentation",
        *ORDINALS,
        *PLACE_WORDS,
    )
    width = len(labels)
    slots = {
        "category": (0, len(CATEGORIES)),
        "colour": (len(CATEGORIES), len(CATEGORIES) + len(COLOURS)),
        "horizontal": (width - 4, width - 2),
        "vertical": (width - 2, width),
    }
    phrases = ("{colour} {category} {horizontal} {vertical} ;",)

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        only: Sequence[str] = (),
        states: bool = False,
        slots: int = USUAL_SLOTS,
        trained_at: int | None = None,
    ) -> None:
        super().__init__()
        self.threshold, self.states = threshold, states
        self.take_options(slots, trained_at)
        self.only = word_channels(only, self.labels[: len(CATEGORIES)])
        if states:
            phrases = ("{colour} {feature:name} {horizontal} {vertical} ;",)
            hand_on_states(self, named=len(CATEGORIES), state=STATE, phrases=phrases, only=only)
        self.trunk = Trunk()
        w0, w1, _ = self.trunk.widths
        self.lateral = nn.Conv2d(w1, w0, 1)
        self.mix = conv(w0, STATE)
        self.head = nn.Conv2d(STATE, 1 + len(CATEGORIES) + len(COLOURS) + 1 + 2 + 1, 1)
        with torch.no_grad():
            self.head.bias[1 + len(CATEGORIES) + len(COLOURS)] = -4.6  # type: ignore[index]

    def dense(self, pixels_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Per pixel at stride 2: category (B, 8, h, w; 0 = background) and colour (B, 8, h, w) logits, heat (B, h, w)
        logits, offset to the centroid (B, 2, h, w) in shares of the canvas, occlusion (B, h, w) logits, and the state
        (B, STATE, h, w) that they are made of."""
        stem, fine, _ = self.trunk(pixels_B3HW)
        joined = stem + F.interpolate(self.lateral(fine), scale_factor=2.0, mode="bilinear")
        state = self.mix(joined)
        category, colour, heat, offset, hidden = self.head(state).split([1 + len(CATEGORIES), len(COLOURS), 1, 2, 1], 1)
        return (
            category,
            colour,
            heat.squeeze(1),
            offset * 0.1 / self.zoom(pixels_B3HW.shape[-1]),
            hidden.squeeze(1),
            state,
        )

    def loss(self, truth: SceneTruth) -> Tensor:
        """Cross-entropies per pixel (foreground weighted), focal centre loss, L1 offsets, BCE occlusion."""
        category, colour, heat, offset, hidden, _ = self.dense(truth.pixels_B3HW)
        _, h, w = heat.shape
        instances = truth.instances_BHW[:, ::2, ::2]
        target = per_pixel(truth.category_BN + 1, instances, 0)
        front = target > 0
        weight = torch.tensor([0.4] + [1.0] * len(CATEGORIES))
        category_loss = F.cross_entropy(category, target, weight)
        colour_loss = F.cross_entropy(
            colour, torch.where(front, per_pixel(truth.colour_BN, instances, 0), -100), ignore_index=-100
        )
        rows = (torch.arange(h) + 0.5) / h
        cx = per_pixel(truth.centroid_BN2[..., 0], instances, 0)
        cy = per_pixel(truth.centroid_BN2[..., 1], instances, 0)
        wanted = torch.stack([cx - rows[None, None, :], cy - rows[None, :, None]], 1)
        mask = front.unsqueeze(1).float()
        offset_loss = ((offset - wanted).abs() * mask).sum() / mask.sum().clamp_min(1) / 2
        dy = (rows[None, None] - truth.centroid_BN2[..., 1:]).mul(h).square()
        dx = (rows[None, None] - truth.centroid_BN2[..., :1]).mul(w).square()
        bump = torch.exp(-(dy[..., :, None] + dx[..., None, :]) / 4.0) * truth.valid_BN[..., None, None]
        centre = bump.amax(1)
        b, n = truth.valid_BN.nonzero(as_tuple=True)
        cell = (truth.centroid_BN2[b, n] * h).long().clamp(0, h - 1)
        centre[b, cell[:, 1], cell[:, 0]] = 1.0
        p = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
        focal = torch.where(
            centre == 1, -((1 - p) ** 2) * p.log(), -((1 - centre) ** 4) * p**2 * (1 - p).log()
        ).sum() / max(1, len(b))
        covered = per_pixel(truth.occlusion_BN, instances, 0)
        hidden_loss = (F.binary_cross_entropy_with_logits(hidden, covered, reduction="none") * front).sum() / (
            front.sum().clamp_min(1)
        )
        return category_loss + colour_loss + 10 * offset_loss + focal + 0.3 * hidden_loss

    def regions(self, pixels_B3HW: Tensor, *, states: bool) -> tuple[ExpertFeatures, Tensor]:
        """Region tokens, with states or with categories, and the region map (B, h, w) at stride 2: 0 = background,
        t + 1 = token t."""
        category, colour, heat, offset, hidden, state = self.dense(pixels_B3HW)
        batch, h, w = heat.shape
        p = heat.sigmoid()
        peaks = p * (F.max_pool2d(p.unsqueeze(1), 5, 1, 2).squeeze(1) == p)
        score_BT, index_BT = peaks.flatten(1).topk(self.num_tokens, 1)
        alive = score_BT > self.threshold
        centre_BT2 = torch.stack([(index_BT % w + 0.5) / w, (index_BT // w + 0.5) / h], -1)
        share = category.softmax(1)
        front = (1 - share[:, 0]).flatten(1)
        rows = (torch.arange(h, device=heat.device, dtype=heat.dtype) + 0.5) / h
        aim_x = (rows[None, None, :] + offset[:, 0]).flatten(1)
        aim_y = (rows[None, :, None] + offset[:, 1]).flatten(1)
        distance = (aim_x.unsqueeze(1) - centre_BT2[..., :1]).square() + (
            aim_y.unsqueeze(1) - centre_BT2[..., 1:]
        ).square()
        owner = distance.masked_fill(~alive.unsqueeze(-1), 1e4).argmin(1)
        member = F.one_hot(owner, self.num_tokens).transpose(1, 2) * (front > 0.5).unsqueeze(1) * alive.unsqueeze(-1)
        count = member.sum(-1)
        weight = member / count.clamp_min(1).unsqueeze(-1)

        def mean_of(maps: Tensor) -> Tensor:
            return torch.einsum("btp,bcp->btc", weight, maps.flatten(2))

        x_map = rows[None, None, None, :].expand(batch, 1, h, w)
        y_map = rows[None, None, :, None].expand(batch, 1, h, w)
        where = mean_of(torch.cat([x_map, y_map, hidden.sigmoid().unsqueeze(1)], 1))
        kinds = mean_of(share[:, 1:])
        sure_BT = torch.where(alive & (count > 0), score_BT, 0)
        features = region_tokens(
            mean_of(state) if states else kinds / kinds.sum(-1, keepdim=True).clamp_min(1e-6),
            mean_of(colour.softmax(1)),
            where[..., :2],
            count / (h * w) * self.zoom(pixels_B3HW.shape[-1]) ** 2,
            where[..., 2],
            sure_BT,
        )
        rank = left_to_right(sure_BT, where[..., 0]).argsort(1)
        region_map = torch.where(member.any(1), rank.gather(1, owner) + 1, 0).view(batch, h, w)
        return features, region_map

    def found(self, pixels_B3HW: Tensor, *, states: bool) -> ExpertFeatures:
        parts = (self.regions(part, states=states)[0] for part in pixels_B3HW.split(self.pictures_at_once(pixels_B3HW)))
        return speaking_of(ExpertFeatures.cat(list(parts)), self.only, len(CATEGORIES))

    def pictures_at_once(self, pixels_B3HW: Tensor) -> int:
        """How many pictures are looked at together: each holds its slots times its cells."""
        cells = pixels_B3HW.shape[-2] * pixels_B3HW.shape[-1] // 4
        most = AT_ONCE // (cells * self.num_tokens) if self.num_tokens > USUAL_SLOTS else len(pixels_B3HW)
        return max(1, most)

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        features, region_map = self.regions(pixels_B3HW, states=False)
        found = []
        for row, map_hw in enumerate(region_map):
            h, w = map_hw.shape
            boxes: list[tuple[float, float, float, float]] = []
            labels, scores = [], []
            mask = torch.zeros_like(map_hw)
            for t in range(self.num_tokens):
                y, x = (map_hw == t + 1).nonzero(as_tuple=True)
                if features.confidence[row, t] <= 0 or len(y) == 0:
                    continue
                mask[y, x] = len(boxes) + 1
                boxes.append(
                    (x.min().item() / w, y.min().item() / h, (x.max().item() + 1) / w, (y.max().item() + 1) / h)
                )
                token = features.tokens[row, t]
                colour = COLOURS[int(token[len(CATEGORIES) : len(CATEGORIES) + len(COLOURS)].argmax())]
                labels.append(f"{colour} {CATEGORIES[int(token[: len(CATEGORIES)].argmax())]}")
                scores.append(features.confidence[row, t].item())
            found.append(Reading("segmentation", boxes, labels, scores, mask=mask))
        return found

    @classmethod
    def ideal(cls, truth: SceneTruth) -> ExpertFeatures:
        """The tokens that a faultless segmenter would give (to pretrain the language model, never at evaluation)."""
        return region_tokens(
            F.one_hot(truth.category_BN, len(CATEGORIES)).float(),
            F.one_hot(truth.colour_BN, len(COLOURS)).float(),
            truth.centroid_BN2,
            truth.area_BN,
            truth.occlusion_BN,
            truth.valid_BN.float(),
        )


def region_tokens(
    told_BTK: Tensor, colour_BTK: Tensor, centroid_BT2: Tensor, area_BT: Tensor, hidden_BT: Tensor, sure_BT: Tensor
) -> ExpertFeatures:
    """Spell regions, left to right, as channels in the order of ``SegmentationExpert.labels``.

    Args:
        told_BTK: probabilities of categories, or states.
    """
    order = left_to_right(sure_BT, centroid_BT2[..., 0])
    told_BTK, colour_BTK, centroid_BT2, area_BT, hidden_BT, sure_BT = (
        in_order(values, order) for values in (told_BTK, colour_BTK, centroid_BT2, area_BT, hidden_BT, sure_BT)
    )
    tokens = torch.cat(
        [
            told_BTK,
            colour_BTK,
            soft_bins(centroid_BT2[..., 0], PLACE_BINS),
            soft_bins(centroid_BT2[..., 1], PLACE_BINS),
            soft_bins((area_BT / AREA_MAX).clamp(0, 1).sqrt(), AREA_BINS),
            hidden_BT.unsqueeze(-1),
            sure_BT.unsqueeze(-1),
            torch.ones_like(sure_BT).unsqueeze(-1),
            named_ranks(sure_BT),
            place_words(centroid_BT2),
        ],
        -1,
    )
    return ExpertFeatures(tokens, sure_BT, centroid_BT2)
