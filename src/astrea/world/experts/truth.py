"""The truth of a batch of scenes as padded tensors, from which every compact expert makes its own targets.

Letters: B batch, N objects (padded), H W canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import CATEGORY_OF, WORDS

MAX_OBJECTS = 8
"""That there is always room for; a batch in which a picture holds more has more."""


@dataclass(frozen=True, slots=True)
class SceneTruth:
    """Padded truth. Coordinates are shares of the canvas (0..1); area is a share of the canvas' pixels."""

    pixels_B3HW: Tensor
    instances_BHW: Tensor
    valid_BN: Tensor
    kind_BN: Tensor
    category_BN: Tensor
    colour_BN: Tensor
    box_BN4: Tensor
    centroid_BN2: Tensor
    area_BN: Tensor
    occlusion_BN: Tensor
    word_B: Tensor  # index into WORDS, len(WORDS) for none
    word_box_B4: Tensor
    condition_B: Tensor


def pixels_from_scenes(scenes: Sequence[Scene]) -> Tensor:
    """Pictures as (B, 3, H, W) float in 0..1."""
    stacked = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    return stacked.permute(0, 3, 1, 2).float().div_(255)


def collate_truth(scenes: Sequence[Scene]) -> SceneTruth:
    """Stack the truth of scenes drawn on canvases of one size."""
    batch = len(scenes)
    canvas = scenes[0].image.shape[0]
    most = max(MAX_OBJECTS, *(len(scene.objects) for scene in scenes))
    ints = np.zeros((batch, most, 3), np.int64)
    floats = np.zeros((batch, most, 8), np.float32)
    valid = np.zeros((batch, most), bool)
    word_box = np.zeros((batch, 4), np.float32)
    for b, scene in enumerate(scenes):
        for n, item in enumerate(scene.objects):
            valid[b, n] = item.area > 0
            ints[b, n] = (item.kind, CATEGORY_OF[item.kind], item.colour)
            floats[b, n, :4] = item.box
            floats[b, n, 4:6] = item.centroid
            floats[b, n, 6] = item.area / canvas
            floats[b, n, 7] = item.occlusion * canvas
        if scene.word_box is not None:
            word_box[b] = scene.word_box
    numbers = torch.from_numpy(floats) / canvas
    indices = torch.from_numpy(ints)
    return SceneTruth(
        pixels_B3HW=pixels_from_scenes(scenes),
        instances_BHW=torch.from_numpy(np.stack([scene.instances for scene in scenes])).long(),
        valid_BN=torch.from_numpy(valid),
        kind_BN=indices[..., 0],
        category_BN=indices[..., 1],
        colour_BN=indices[..., 2],
        box_BN4=numbers[..., :4],
        centroid_BN2=numbers[..., 4:6],
        area_BN=numbers[..., 6],
        occlusion_BN=numbers[..., 7],
        word_B=torch.tensor([WORDS.index(s.word) if s.word else len(WORDS) for s in scenes]),
        word_box_B4=torch.from_numpy(word_box) / canvas,
        condition_B=torch.tensor([s.condition for s in scenes]),
    )


def per_pixel(values_BN: Tensor, instances: Tensor, background: int) -> Tensor:
    """Paint a per-object value onto its visible pixels: (B, N) and (B, H, W) -> (B, H, W).

    The word plate (255) and the background get ``background``.
    """
    batch = values_BN.shape[0]
    padded = torch.cat([values_BN.new_full((batch, 1), background), values_BN], 1)
    index = torch.where(instances > values_BN.shape[1], 0, instances)
    return padded.gather(1, index.flatten(1)).view_as(instances)
