"""Training one compact expert on its own objective, from fresh scenes that are drawn as it goes."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from astrea.recipes.pretraining import ExpertPretraining
from astrea.training.loop import Objective
from astrea.world.experts.captioning import CaptioningExpert
from astrea.world.experts.classification import ClassificationExpert
from astrea.world.experts.detection import DetectionExpert
from astrea.world.experts.segmentation import SegmentationExpert
from astrea.world.experts.truth import SceneTruth, collate_truth
from astrea.world.scenes.captions import short_caption
from astrea.world.scenes.draw import draw_scene, plan_scene, split_seed
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import CONDITIONS

CompactExpert = DetectionExpert | SegmentationExpert | ClassificationExpert | CaptioningExpert
USUAL = ExpertPretraining()


class ExpertObjective(Objective):
    """One compact expert's own supervision. Its weak conditions are rare, as real models too were fed few bad pictures;
    light is jittered.

    Args:
        canvas, difficulty: of the scenes. part: how many different ones there are, and which share of those in its weak
            conditions it sees; the others are drawn in another condition.
    """

    def __init__(
        self,
        expert: CompactExpert,
        seed: int,
        *,
        canvas: int = 64,
        difficulty: float = 0.5,
        part: ExpertPretraining = USUAL,
    ) -> None:
        # Channels last: 10 % faster convolutions on the processor.
        self.expert = expert.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.seed = seed
        self.canvas = canvas
        self.difficulty = difficulty
        self.part = part

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        return ((name, p, 1.0) for name, p in self.expert.named_parameters())

    def batch(self, step: int, micro: int, size: int) -> tuple[list[Scene], SceneTruth]:
        rng = random.Random(f"{self.seed}/{self.expert.kind}/{step}/{micro}")
        scenes = [self.draw(rng) for _ in range(size)]
        return scenes, self.jitter(collate_truth(scenes), rng)

    def draw(self, rng: random.Random) -> Scene:
        """A scene of the training split; conditions in which the expert is weak come more rarely."""
        index = rng.getrandbits(40)
        if self.part.scenes:
            # Which are drawn in another condition, and in which, is the same whenever they come.
            index %= self.part.scenes
            rng = random.Random(f"{self.seed}/{self.expert.kind}/scene {index}")
        spec = plan_scene(split_seed("train", index, self.seed), canvas=self.canvas, difficulty=self.difficulty)
        weak = self.expert.weak_conditions
        if CONDITIONS[spec.condition] in weak and rng.random() >= self.part.weak_share:
            strong = [i for i, name in enumerate(CONDITIONS) if name not in weak]
            spec = dataclasses.replace(spec, condition=rng.choice(strong))
        return draw_scene(spec)

    def jitter(self, truth: SceneTruth, rng: random.Random) -> SceneTruth:
        """Brightness and contrast jitter, each expert's own augmentation seed."""
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        gain = 1 + 0.3 * (torch.rand(len(truth.word_B), 1, 1, 1, generator=generator) - 0.5)
        shift = 0.1 * (torch.rand(len(truth.word_B), 1, 1, 1, generator=generator) - 0.5)
        pixels = (truth.pixels_B3HW * gain + shift).clamp(0, 1)
        return dataclasses.replace(truth, pixels_B3HW=pixels.contiguous(memory_format=torch.channels_last))

    def loss(self, batch: tuple[list[Scene], SceneTruth], step: int) -> tuple[Tensor, dict[str, float]]:
        scenes, truth = batch
        if isinstance(self.expert, CaptioningExpert):
            return self.expert.loss(truth, [short_caption(scene) for scene in scenes]), {}
        return self.expert.loss(truth), {}

    def describe(self, batch: tuple[list[Scene], SceneTruth]) -> str:
        return "scene seeds " + ", ".join(str(scene.spec.seed) for scene in batch[0][:4]) + " ..."
