"""Compositions as training data: expert features out of the cache, beside questions and captions.

Letters: B scenes, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from astrea.common.progress import SILENT, Reporter
from astrea.data.feature_cache import FeatureCache
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures, concat_features
from astrea.world.photographs.compositions import Compositions
from astrea.world.photographs.scene import PhotoScene
from astrea.world.photographs.templates import WORDINGS
from astrea.world.scene_data import SceneData, as_tensors, expert_key
from astrea.world.scenes.questions import training_questions

CHUNK = 200
"""Pictures whose features are kept together: what a killed run loses at most, and all that is in memory at once."""

BATCH = 50
"""Pictures that an expert sees at once."""


@dataclass(frozen=True)
class PhotographData(SceneData):
    """`astrea.data.worlds.WorldTrainingData` of compositions; ``made`` paints them again for experts that learn."""

    made: Compositions
    scenes: list[PhotoScene]

    @cached_property
    def groups(self) -> Sequence[str]:
        """Question templates and captions."""
        return (*WORDINGS, "caption")

    @property
    def names(self) -> Sequence[str]:
        """What things are called in training, in as many words as that takes."""
        return self.made.catalogue.trained

    @property
    def withheld(self) -> Sequence[str]:
        """What things are called that training never shows."""
        return self.made.catalogue.new

    def pictures(self, index: Tensor) -> Tensor:
        """The scenes of these numbers (B,) as pictures (B, 3, S, S), painted now."""
        return self.made.pixels([self.scenes[number] for number in index.tolist()])


def load_photographs(
    bank: ExpertBank, made: Compositions, *, count: int, per_scene: int, cache: FeatureCache, report: Reporter = SILENT
) -> PhotographData:
    """The training split: its truth and texts made anew, features from the cache.

    Args:
        count: of scenes. per_scene: most questions about each.
    """
    scenes: list[PhotoScene] = []
    for scene in made.scenes("train", count):
        scenes.append(scene)
        if len(scenes) % CHUNK == 0 or len(scenes) == count:
            report.track("composing pictures", len(scenes), count)
    features = cached_features(bank, made, "train", scenes, cache=cache, report=report)
    questions = training_questions(scenes, per_scene, made.planner.seed, made.questions)
    texts = [made.references(scene, index) for index, scene in enumerate(scenes)]
    return PhotographData(features, questions, texts, made, scenes)


@torch.no_grad()
def features_of(
    bank: ExpertBank, made: Compositions, scenes: Sequence[PhotoScene], *, report: Reporter = SILENT
) -> dict[str, ExpertFeatures]:
    """Every expert's features of some scenes, computed now."""
    parts = []
    for start in range(0, len(scenes), BATCH):
        parts.append(bank(made.pixels(scenes[start : start + BATCH])))
        report.track("encoding pictures", min(start + BATCH, len(scenes)), len(scenes))
    return concat_features(parts) if parts else {}


def cached_features(
    bank: ExpertBank,
    made: Compositions,
    split: str,
    scenes: Sequence[PhotoScene],
    *,
    cache: FeatureCache,
    report: Reporter = SILENT,
) -> dict[str, ExpertFeatures]:
    """Every expert's features of the first scenes of a split; painted and encoded only where the cache has none.

    Scenes are kept by the chunk, so what a run that was killed has encoded is there for the next, and a run with more
    scenes goes on from one with fewer.
    """
    keys = {name: {**made.key, **expert_key(bank, name)} for name in bank.names}
    parts = []
    for start in range(0, len(scenes), CHUNK):
        chunk = _Chunk(bank, made, scenes[start : start + CHUNK])
        end = start + len(chunk.scenes)
        which = {"split": split, "from": start, "to": end}
        parts.append(
            {
                name: ExpertFeatures(**cache.get_or_compute({**key, **which}, chunk.encoder(name), on_event=report.say))
                for name, key in keys.items()
            }
        )
        report.track("encoding pictures", end, len(scenes))
    return concat_features(parts)


class _Chunk:
    """Scenes that are painted once, by the first expert of which the cache has nothing."""

    def __init__(self, bank: ExpertBank, made: Compositions, scenes: Sequence[PhotoScene]) -> None:
        self.bank, self.made, self.scenes = bank, made, scenes

    @cached_property
    def pixels(self) -> list[Tensor]:
        """(BATCH, 3, S, S) each, as bytes: floats would take four times the memory."""
        starts = range(0, len(self.scenes), BATCH)
        return [(self.made.pixels(self.scenes[at : at + BATCH]) * 255).round().byte() for at in starts]

    def encoder(self, name: str) -> Any:
        """What computes an expert's features of all of them."""

        @torch.no_grad()
        def encode() -> dict[str, Tensor]:
            parts = [self.bank(pixels.float().div_(255), [name])[name] for pixels in self.pixels]
            return as_tensors(ExpertFeatures.cat(parts))

        return encode
