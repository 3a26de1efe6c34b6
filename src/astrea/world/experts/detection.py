"""Compact detection: object slots with a closed vocabulary, no colour. Weak under night and blur.

A centre-point detector (after CenterNet, arXiv 1904.07850): at stride 4 a heat map of object centres, a class
distribution and the distances to the four sides. Its vocabulary is closed: every second kind has a name, the rest is
only "object".
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
    from_bins,
    in_order,
    left_to_right,
    place_words,
    soft_bins,
)
from astrea.experts.vocabulary_part import speaking_of, word_channels
from astrea.world.experts.slots import USUAL_SLOTS, SlotExpert, named_ranks
from astrea.world.experts.states import hand_on_states
from astrea.world.experts.trunk import Trunk
from astrea.world.experts.truth import SceneTruth
from astrea.world.scenes.vocabulary import KINDS

NAMED: tuple[int, ...] = tuple(range(0, len(KINDS), 2))
STRIDE = 4
PLACE_BINS, SPAN_BINS, SPAN_MAX = 16, 8, 0.5


class DetectionExpert(SlotExpert):
    """Up to 8 object slots, or as many as ``slots`` says: class probabilities, box in soft bins, confidence.

    Args:
        threshold: belief below which a slot is empty. only: classes it speaks of; none = all. states: whether tokens
            hold the state at an object's centre instead of class probabilities. slots: 1 to 64. trained_at: side in
            pixels of the pictures of training, where those it looks at are larger and things are not; widths and
            heights are then told in shares of such a picture. None = pictures are of one size.
    """

    kind = "detection"
    weak_conditions: ClassVar[tuple[str, ...]] = ("night", "blur")
    class_names: ClassVar[tuple[str, ...]] = (*(KINDS[i].name for i in NAMED), "object")
    labels = (
        *class_names,
        *bin_labels("x", PLACE_BINS),
        *bin_labels("y", PLACE_BINS),
        *bin_labels("wide", SPAN_BINS),
        *bin_labels("high", SPAN_BINS),
        "sure",
        "detection",
        *ORDINALS,
        *PLACE_WORDS,
    )
    width = len(labels)
    slots = {
        "thing": (0, len(class_names)),
        "horizontal": (width - 4, width - 2),
        "vertical": (width - 2, width),
    }
    phrases = ("{thing} {horizontal} {vertical} ;",)

    def __init__(
        self,
        *,
        threshold: float = 0.25,
        only: Sequence[str] = (),
        states: bool = False,
        slots: int = USUAL_SLOTS,
        trained_at: int | None = None,
    ) -> None:
        super().__init__()
        self.threshold, self.states = threshold, states
        self.take_options(slots, trained_at)
        self.only = word_channels(only, self.class_names)
        self.trunk = Trunk()
        channels = self.trunk.widths[1]
        if states:
            phrases = ("{feature:name} {horizontal} {vertical} ;",)
            hand_on_states(self, named=len(self.class_names), state=channels, phrases=phrases, only=only)
        self.head = nn.Conv2d(channels, 1 + len(self.class_names) + 4, 1)
        # A rare positive: start the heat map at a 1 % belief, so that the focal loss is not swamped (RetinaNet).
        with torch.no_grad():
            self.head.bias[0] = -4.6  # type: ignore[index]

    def dense(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heat (B, h, w) logits, classes (B, K, h, w) logits, sides (B, 4, h, w) in shares of the canvas, >= 0, and the
        state (B, C, h, w) that they are made of."""
        _, fine, _ = self.trunk(pixels_B3HW)
        heat, classes, sides = self.head(fine).split([1, len(self.class_names), 4], 1)
        return heat.squeeze(1), classes, F.softplus(sides) * 0.1 / self.zoom(pixels_B3HW.shape[-1]), fine

    def loss(self, truth: SceneTruth) -> Tensor:
        """Focal heat-map loss + class cross-entropy + L1 on the sides, at the cells that hold an object's centre."""
        heat, classes, sides, _ = self.dense(truth.pixels_B3HW)
        _, h, w = heat.shape
        centre = (truth.box_BN4[..., :2] + truth.box_BN4[..., 2:]) / 2
        cell = (centre * h).long().clamp(0, h - 1)
        grid = torch.arange(h) + 0.5
        dy = (grid[None, None] - centre[..., 1:] * h).square()
        dx = (grid[None, None] - centre[..., :1] * w).square()
        bump = torch.exp(-(dy[..., :, None] + dx[..., None, :]) / 1.0) * truth.valid_BN[..., None, None]
        target = bump.amax(1)
        b, n = truth.valid_BN.nonzero(as_tuple=True)
        y, x = cell[b, n, 1], cell[b, n, 0]
        target[b, y, x] = 1.0
        p = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
        positive = target == 1
        focal = torch.where(
            positive, -((1 - p) ** 2) * p.log(), -((1 - target) ** 4) * p**2 * (1 - p).log()
        ).sum() / max(1, len(b))
        named = torch.full((len(KINDS),), len(NAMED))
        named[list(NAMED)] = torch.arange(len(NAMED))
        class_loss = F.cross_entropy(classes[b, :, y, x], named[truth.kind_BN[b, n]])
        here = torch.stack([x + 0.5, y + 0.5], -1) / h
        box = truth.box_BN4[b, n]
        wanted = torch.cat([here - box[:, :2], box[:, 2:] - here], -1).clamp_min(0)
        side_loss = F.l1_loss(sides[b, :, y, x], wanted)
        return focal + class_loss + 20 * side_loss

    def found(self, pixels_B3HW: Tensor, *, states: bool) -> ExpertFeatures:
        heat, classes, sides, fine = self.dense(pixels_B3HW)
        _, h, w = heat.shape
        p = heat.sigmoid()
        peaks = p * (F.max_pool2d(p.unsqueeze(1), 3, 1, 1).squeeze(1) == p)
        score_BT, index_BT = peaks.flatten(1).topk(self.num_tokens, 1)
        y, x = index_BT // w, index_BT % w
        gather = index_BT.unsqueeze(1)
        maps = fine if states else classes.softmax(1)
        told = maps.flatten(2).gather(2, gather.expand(-1, maps.shape[1], -1)).transpose(1, 2)
        side = sides.flatten(2).gather(2, gather.expand(-1, 4, -1)).transpose(1, 2)
        here = torch.stack([(x + 0.5) / w, (y + 0.5) / h], -1)
        box = torch.cat([here - side[..., :2], here + side[..., 2:]], -1).clamp(0, 1)
        sure_BT = torch.where(score_BT > self.threshold, score_BT, 0)
        found = slot_tokens(told, box, sure_BT, zoom=self.zoom(pixels_B3HW.shape[-1]))
        return speaking_of(found, self.only, len(self.class_names))

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        features = self.found(pixels_B3HW, states=False)
        boxes = boxes_from_tokens(features.tokens, zoom=self.zoom(pixels_B3HW.shape[-1]))
        found = []
        for row in range(len(features.tokens)):
            keep = features.confidence[row] > 0
            names = features.tokens[row, :, : len(self.class_names)].argmax(-1)
            found.append(
                Reading(
                    "detection",
                    boxes=[tuple(b) for b in boxes[row, keep].tolist()],
                    labels=[self.class_names[i] for i in names[keep].tolist()],
                    scores=features.confidence[row, keep].tolist(),
                )
            )
        return found

    @classmethod
    def ideal(cls, truth: SceneTruth) -> ExpertFeatures:
        """The tokens that a faultless detector would give (to pretrain the language model, never at evaluation)."""
        named = torch.full((len(KINDS),), len(NAMED))
        named[list(NAMED)] = torch.arange(len(NAMED))
        probability = F.one_hot(named[truth.kind_BN], len(cls.class_names)).float()
        return slot_tokens(probability, truth.box_BN4, truth.valid_BN.float())


def slot_tokens(told_BTK: Tensor, box_BT4: Tensor, confidence_BT: Tensor, zoom: float = 1.0) -> ExpertFeatures:
    """Spell object slots, left to right, as channels in the order of ``DetectionExpert.labels``.

    Args:
        told_BTK: class probabilities, or states. zoom: see `SlotExpert.zoom`.
    """
    order = left_to_right(confidence_BT, (box_BT4[..., 0] + box_BT4[..., 2]) / 2)
    told_BTK, box_BT4, confidence_BT = (in_order(v, order) for v in (told_BTK, box_BT4, confidence_BT))
    centre = (box_BT4[..., :2] + box_BT4[..., 2:]) / 2
    span = (box_BT4[..., 2:] - box_BT4[..., :2]) * zoom / SPAN_MAX
    tokens = torch.cat(
        [
            told_BTK,
            soft_bins(centre[..., 0], PLACE_BINS),
            soft_bins(centre[..., 1], PLACE_BINS),
            soft_bins(span[..., 0], SPAN_BINS),
            soft_bins(span[..., 1], SPAN_BINS),
            confidence_BT.unsqueeze(-1),
            torch.ones_like(confidence_BT).unsqueeze(-1),
            named_ranks(confidence_BT),
            place_words(centre),
        ],
        -1,
    )
    return ExpertFeatures(tokens, confidence_BT, centre)


def boxes_from_tokens(tokens_BTC: Tensor, zoom: float = 1.0) -> Tensor:
    """Boxes (B, T, 4) as shares of the picture, read back from the slots' soft bins. zoom: see `SlotExpert.zoom`."""
    start = len(DetectionExpert.class_names)
    sizes = [PLACE_BINS, PLACE_BINS, SPAN_BINS, SPAN_BINS]
    cx, cy, w, h = (from_bins(part) for part in tokens_BTC[..., start : start + sum(sizes)].split(sizes, -1))
    w, h = w * SPAN_MAX / zoom, h * SPAN_MAX / zoom
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1).clamp(0, 1)
