"""The drawn world as training data: frozen expert features (cached) beside questions and captions.

Letters: B scenes, S side of the canvas.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from astrea.common.progress import ProgressCallback
from astrea.data.feature_cache import FeatureCache
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures, concat_features
from astrea.recipes.recipe import World
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scene_data import SceneData, as_tensors, expert_key
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.paraphrases import reworded
from astrea.world.scenes.questions import Question, training_questions
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.templates import WORDINGS
from astrea.world.scenes.unanswerable import UNANSWERABLE, unanswerable

GROUPS = (*WORDINGS, "caption")
"""Kinds of questions, for each of which it is measured what experts contribute."""

CHUNK = 100
FORMAT = 3
"""Of cached features; to be raised whenever code makes other features of the same weights."""


@dataclass(frozen=True)
class WorldData(SceneData):
    """`astrea.data.worlds.WorldTrainingData` of drawn scenes; ``world`` says how they are drawn, for experts that learn
    and so look again."""

    world: World = field(default_factory=World)

    @cached_property
    def groups(self) -> Sequence[str]:
        """Question templates, and the unanswerable where there are any."""
        has_unanswerable = any(question.template == UNANSWERABLE for asked in self.questions for question in asked)
        return (*GROUPS, UNANSWERABLE) if has_unanswerable else GROUPS

    def pictures(self, index: Tensor) -> Tensor:
        """The scenes of these numbers (B,) as pictures (B, 3, S, S), drawn now."""
        return pixels_from_scenes([scene_at("train", number, self.world) for number in index.tolist()])


def scenes_of(split: str, count: int, world: World) -> Iterator[Scene]:
    """The first ``count`` scenes of a split, drawn as they are asked for."""
    for index in range(count):
        yield scene_at(split, index, world)


def scene_at(split: str, index: int, world: World) -> Scene:
    """One scene of a split. Validation is as training is: what is chosen there does not know of the test's shift."""
    tested = split in ("test", "novel")
    return split_scene(
        split,
        index,
        world.seed,
        canvas=world.canvas,
        difficulty=world.difficulty,
        max_objects=world.max_objects,
        min_objects=world.min_objects,
        object_canvas=world.object_canvas,
        clean=world.test_clean if tested and world.test_clean is not None else world.clean,
        pairs=world.test_pairs if tested else 0.0,
    )


@torch.no_grad()
def features_of(bank: ExpertBank, scenes: list[Scene]) -> dict[str, ExpertFeatures]:
    """Every expert's features of drawn scenes, computed now."""
    parts = [bank(pixels_from_scenes(scenes[i : i + CHUNK])) for i in range(0, len(scenes), CHUNK)]
    return concat_features(parts)


def load_world(
    bank: ExpertBank,
    world: World,
    *,
    count: int,
    per_scene: int,
    paraphrases: float = 0.0,
    unanswerable_share: float = 0.0,
    cache: FeatureCache,
    progress: ProgressCallback,
    notify: Callable[[str], None],
) -> WorldData:
    """The training split: texts made anew (cheap), features from the cache, one file per expert. See
    `astrea.recipes.recipe.Data` for the shares of questions in other words and without an answer.

    An expert's file is found by a fingerprint of its options and weights, the world's settings and the number of
    scenes, so a stale one is never used: any change gives another name.
    """
    scenes = train_scenes(world, count, progress)
    which = training_split(world, count)
    features = cached_features(bank, scenes, which, cache=cache, progress=progress, notify=notify)
    questions = training_questions(scenes, per_scene, world.seed)
    if paraphrases or unanswerable_share:
        questions = [
            asked_otherwise(scene, asked, paraphrases, unanswerable_share)
            for scene, asked in zip(scenes, questions, strict=True)
        ]
    texts = [captions(scene, 3, index) for index, scene in enumerate(scenes)]
    return WorldData(features, questions, texts, world)


def asked_otherwise(
    scene: Scene, asked: list[Question], paraphrases: float, unanswerable_share: float
) -> list[Question]:
    """A scene's questions, these shares of them in other words, and such that the scene does not answer."""
    rng = random.Random(f"wordings/{scene.spec.seed}")
    found = []
    for question in asked:
        if rng.random() < unanswerable_share:
            found.append(unanswerable(scene, rng, reworded=paraphrases))
        else:
            found.append(reworded(question, rng) if rng.random() < paraphrases else question)
    return found


def train_scenes(world: World, count: int, progress: ProgressCallback) -> list[Scene]:
    """The training split's scenes, drawn now."""
    scenes: list[Scene] = []
    for scene in scenes_of("train", count, world):
        scenes.append(scene)
        if len(scenes) % CHUNK == 0 or len(scenes) == count:
            progress("drawing scenes", len(scenes), count)
    return scenes


def training_split(world: World, count: int) -> dict[str, Any]:
    """What `train_scenes` follow from, for `cached_features`."""
    return {"world": world.model_dump(), "split": "train", "count": count}


def these_scenes(scenes: list[Scene]) -> dict[str, Any]:
    """What any scenes are known by, for `cached_features`: all that is drawn."""
    said = repr(scenes)
    if any(seconds := [scene.spec.second for scene in scenes]):
        said += repr(seconds)
    if any(sizes := [scene.spec.object_canvas for scene in scenes]):
        said += f"objects {sizes}"
    return {"scenes": hashlib.sha256(said.encode()).hexdigest()}


def cached_features(
    bank: ExpertBank,
    scenes: list[Scene],
    which: Mapping[str, Any],
    *,
    cache: FeatureCache,
    progress: ProgressCallback,
    notify: Callable[[str], None],
) -> dict[str, ExpertFeatures]:
    """Every expert's features of drawn scenes, computed only where the cache has none.

    Args:
        which: JSON-able, and different for other scenes: `training_split` or `these_scenes`.
    """
    count = len(scenes)
    features = {}
    for name in bank.names:
        expert = bank[name]

        def compute(expert: torch.nn.Module = expert, name: str = name) -> dict[str, Tensor]:
            parts = []
            place = next(expert.parameters(), torch.empty(0)).device
            with torch.no_grad():
                for start in range(0, count, CHUNK):
                    parts.append(expert(pixels_from_scenes(scenes[start : start + CHUNK]).to(place)).map(Tensor.cpu))
                    progress(f"encoding with {name}", min(start + CHUNK, count), count)
            return as_tensors(ExpertFeatures.cat(parts))

        key = {"format": FORMAT, **expert_key(bank, name), **which}
        found = cache.get_or_compute(key, compute, on_event=notify)
        features[name] = ExpertFeatures(**found)
    return features
