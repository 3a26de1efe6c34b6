"""What the twelve tasks must know of a world's scenes, beside the questions about them.

Letters: B scenes, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from astrea.world.evaluation.scene_f1 import scene_f1
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.captions import captions
from astrea.world.scenes.vocabulary import CONDITIONS


@dataclass(frozen=True, slots=True)
class Suite:
    """One world's scenes as they are measured.

    references: a scene and its number -> three captions, of which the first does not depend on the number.
    caption_score: a generated caption and a scene -> 0..1. condition: of a scene, one of ``conditions``. pixels: B
    scenes -> (B, 3, S, S) in 0..1.
    """

    references: Callable[[Any, int], list[str]]
    caption_score: Callable[[str, Any], float]
    condition: Callable[[Any], str]
    conditions: Sequence[str]
    pixels: Callable[[Sequence[Any]], Tensor]


DRAWN = Suite(
    lambda scene, number: captions(scene, 3, number),
    scene_f1,
    lambda scene: CONDITIONS[scene.condition],
    CONDITIONS,
    pixels_from_scenes,
)
"""Drawn scenes."""
