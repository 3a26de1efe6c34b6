"""Training the head of the expert `segmenter` on compositions of the training split, whose masks are known.

Letters: B scenes, N things (padded), S side of the canvas, h = w cells of the head's maps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.experts.packaged.class_names import CATEGORIES, COLOURS
from astrea.experts.packaged.segmenter import Regions, SegmenterExpert
from astrea.experts.packaged.segmenter_network import Maps
from astrea.training.loop import Objective
from astrea.world.photographs.compositions import Compositions
from astrea.world.photographs.options import MOST_THINGS
from astrea.world.photographs.scene import PhotoScene

UNKNOWN = -100
"""A class that nobody knows: no loss."""
HALF = 2.0
"""Width of the bump of a centroid in the heat map, in cells."""


@dataclass(frozen=True, slots=True)
class PhotoTruth:
    """pixels: (B, 3, S, S) in 0..1. instances: (B, S, S), 0 = background, n + 1 = thing n. category, colour: (B, N),
    `UNKNOWN` where it has none. centroid: (B, N, 2) as shares. there: (B, N) bool, which things there are."""

    pixels: Tensor
    instances: Tensor
    category: Tensor
    colour: Tensor
    centroid: Tensor
    there: Tensor


def truth_of(compositions: Compositions, scenes: Sequence[PhotoScene]) -> PhotoTruth:
    """Pictures of scenes with what the head is to say of them."""
    shape = len(scenes), MOST_THINGS
    category, colour = torch.full(shape, UNKNOWN), torch.full(shape, UNKNOWN)
    centroid, there = torch.zeros(*shape, 2), torch.zeros(shape, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for number, thing in enumerate(scene.things):
            there[row, number] = thing.area > 0
            category[row, number] = CATEGORIES.index(thing.category) if thing.category in CATEGORIES else UNKNOWN
            colour[row, number] = UNKNOWN if thing.colour is None else COLOURS.index(thing.colour)
            centroid[row, number] = (torch.tensor(thing.centroid) + 0.5) / scene.spec.canvas
    owners = torch.from_numpy(np.stack([compositions.studio.instances(scene.spec) for scene in scenes])).long()
    owners = owners.masked_fill(owners > MOST_THINGS, 0)  # the sign is background
    return PhotoTruth(compositions.pixels(scenes), owners, category, colour, centroid, there)


def per_cell(values_BN: Tensor, owner_Bhw: Tensor, background: float) -> Tensor:
    """Each cell's thing's value: (B, h, w); ``background`` where there is none."""
    padded = torch.cat([values_BN.new_full((len(values_BN), 1), background), values_BN], 1)
    return padded.gather(1, owner_Bhw.flatten(1)).view_as(owner_Bhw)


def cells_of(truth: PhotoTruth, side: int) -> Tensor:
    """Whose each cell of a ``side`` x ``side`` map is, by the pixel in its middle: (B, side, side)."""
    step = truth.instances.shape[-1] // side
    return truth.instances[:, step // 2 :: step, step // 2 :: step][:, :side, :side]


def segmenter_loss(expert: SegmenterExpert, truth: PhotoTruth, *, half: bool = False) -> dict[str, Tensor]:
    """Cross-entropies per cell, focal loss of the centroids, L1 loss of the way to them: by name.

    Args:
        half: compute the maps in bfloat16, four times as fast on processors that have it.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        maps = Maps(*(part.float() for part in expert.maps(truth.pixels)[0]))
    h = maps.heat.shape[1]
    owner = cells_of(truth, h)
    front = owner > 0
    cells = (torch.arange(h) + 0.5) / h
    aim = torch.stack([per_cell(truth.centroid[..., axis], owner, 0) for axis in (0, 1)], 1)
    wanted = aim - torch.stack(torch.meshgrid(cells, cells, indexing="xy"))
    far = ((maps.offset - wanted).abs() * front.unsqueeze(1)).sum() / front.sum().clamp_min(1)
    return {
        "front": F.binary_cross_entropy_with_logits(maps.front, front.float()),
        "heat": focal(maps.heat, truth),
        "offset": 10 * far,
        "category": class_loss(maps.category, truth.category, owner, truth.there),
        "colour": class_loss(maps.colour, truth.colour, owner, truth.there),
    }


def class_loss(logits_BKhw: Tensor, class_BN: Tensor, owner_Bhw: Tensor, there_BN: Tensor) -> Tensor:
    """Cross-entropy of the classes of things, in which every thing counts alike, however many cells it has."""
    loss_Bhw = F.cross_entropy(
        logits_BKhw, per_cell(class_BN, owner_Bhw, UNKNOWN), ignore_index=UNKNOWN, reduction="none"
    )
    cells_BN = F.one_hot(owner_Bhw.flatten(1), class_BN.shape[1] + 1).sum(1)[:, 1:]
    share_Bhw = per_cell(1 / cells_BN.clamp_min(1), owner_Bhw, 0)
    return (loss_Bhw * share_Bhw).sum() / there_BN.sum().clamp_min(1)


def focal(heat_Bhw: Tensor, truth: PhotoTruth) -> Tensor:
    """The loss of a heat map of centroids (CornerNet, arXiv 1808.01244): near misses count less."""
    h = heat_Bhw.shape[1]
    cells = torch.arange(h) + 0.5
    near = [(cells - truth.centroid[..., axis : axis + 1] * h).square() for axis in (0, 1)]
    bump = torch.exp(-(near[1][..., :, None] + near[0][..., None, :]) / (2 * HALF**2)) * truth.there[..., None, None]
    target = bump.amax(1)
    row, thing = truth.there.nonzero(as_tuple=True)
    at = (truth.centroid[row, thing] * h).long().clamp(0, h - 1)
    target[row, at[:, 1], at[:, 0]] = 1.0
    p = heat_Bhw.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit, miss = -((1 - p) ** 2) * p.log(), -((1 - target) ** 4) * p**2 * (1 - p).log()
    return torch.where(target == 1, hit, miss).sum() / max(1, len(row))


class SegmenterObjective(Objective):
    """The head's own supervision; the trunk below it stays as it is."""

    def __init__(self, expert: SegmenterExpert, compositions: Compositions, *, half: bool = False) -> None:
        # Channels last: twice as fast on a processor.
        self.expert = expert.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.compositions, self.half = compositions, half

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        return ((name, p, 1.0) for name, p in self.expert.head.named_parameters())

    def batch(self, step: int, micro: int, size: int) -> PhotoTruth:
        first = (step + micro) * size
        return truth_of(self.compositions, [self.compositions.scene("train", first + n) for n in range(size)])

    def loss(self, batch: PhotoTruth, step: int) -> tuple[Tensor, dict[str, float]]:
        parts = segmenter_loss(self.expert, batch, half=self.half)
        return torch.stack(list(parts.values())).sum(), {name: part.item() for name, part in parts.items()}


@torch.no_grad()
def segmenter_scores(expert: SegmenterExpert, made: Compositions, count: int, *, batch: int = 20) -> dict[str, float]:
    """Figures of ``count`` validation scenes, 0..100: things ``found`` (intersection over union of the masks above one
    half), ``precision`` of the regions, and of those found the ``category`` and the ``colour`` that are right."""
    total: Counter[str] = Counter()
    for first in range(0, count, batch):
        truth = truth_of(made, [made.scene("validation", n) for n in range(first, min(count, first + batch))])
        total += hits_of(expert.found(truth.pixels), truth)
    pairs = {"found": "things", "precision": "regions", "category": "found", "colour": "coloured"}
    right = {"precision": "found"}
    return {name: 100 * total[right.get(name, name)] / max(1, total[of]) for name, of in pairs.items()}


def hits_of(found: Regions, truth: PhotoTruth) -> Counter[str]:
    """How many things there are (``things``), are ``found``, and have the right ``category`` and ``colour``; how many
    of the found have a known colour (``coloured``), and how many ``regions`` there are."""
    total = Counter(regions=int((found.score > 0).sum()))
    owner = cells_of(truth, found.member.shape[-1])
    for row, number in truth.there.nonzero().tolist():
        mine = owner[row] == number + 1
        both, either = ((op(found.member[row], mine)).sum((1, 2)) for op in (torch.logical_and, torch.logical_or))
        best = int((both / either.clamp_min(1)).argmax())
        total["things"] += 1
        if found.score[row, best] > 0 and 2 * both[best] > either[best]:
            known = truth.colour[row, number] != UNKNOWN
            total["found"] += 1
            total["category"] += int(found.category[row, best].argmax() == truth.category[row, number])
            total["coloured"] += int(known)
            total["colour"] += int(known and found.colour[row, best].argmax() == truth.colour[row, number])
    return total
