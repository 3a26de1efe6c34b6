"""The embedded world as training data: frozen expert features (cached) beside questions and captions.

Letters: N scenes, T tokens of one expert, C its width.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.progress import ProgressCallback
from astrea.common.seeds import sample_indices
from astrea.data.feature_cache import FeatureCache
from astrea.data.packing import CAPTION_PROMPT, Packer, Turn
from astrea.data.protocol import Rows, Samples
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures, concat_features
from astrea.experts.source_hash import source_hash
from astrea.recipes.recipe import World
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.paraphrases import reworded
from astrea.world.scenes.questions import Balancer, Question
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.templates import WORDINGS
from astrea.world.scenes.unanswerable import UNANSWERABLE, unanswerable

GROUPS = (*WORDINGS, "caption")
"""Kinds of questions, for each of which it is measured what experts contribute."""

CAPTION_WEIGHT = 0.5
"""Of a caption's tokens in the loss: captions are longer than answers."""

CHUNK = 100
FORMAT = 3
"""Of cached features; to be raised whenever code makes other features of the same weights."""


@dataclass(frozen=True)
class WorldData:
    """`astrea.data.worlds.WorldTrainingData`: features of N pictures, and each one's questions and captions; ``world``
    says how the pictures are drawn, for experts that learn and so look again."""

    features: dict[str, ExpertFeatures]
    questions: list[list[Question]]
    captions: list[list[str]]
    world: World = field(default_factory=World)

    @property
    def names(self) -> Sequence[str]:
        """None: the world's things are called by one word each."""
        return ()

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def groups(self) -> Sequence[str]:
        """Question templates, and the unanswerable where there are any."""
        vain = any(question.template == UNANSWERABLE for asked in self.questions for question in asked)
        return (*GROUPS, UNANSWERABLE) if vain else GROUPS

    def rows(self, index: Tensor) -> dict[str, ExpertFeatures]:
        """Features of some pictures."""
        return {name: part.rows(index) for name, part in self.features.items()}

    def samples(self, index: Tensor) -> Samples:
        """The scenes of these numbers (B,); each is one picture."""
        texts = [self.captions[i] for i in index.tolist()]
        return Samples(
            names=[f"train scene {i}" for i in index.tolist()],
            ids=index,
            texts=texts,
            first=torch.arange(len(index)),
            pictures=len(index),
            encode=lambda names=tuple(self.features): {name: self.features[name].rows(index) for name in names},
            pixels=lambda: self.pictures(index),
            numbers=self.first_text[index],
            content=[self.questions[i] for i in index.tolist()],
        )

    def pictures(self, index: Tensor) -> Tensor:
        """The scenes of these numbers (B,) as pictures (B, 3, S, S), drawn now."""
        return pixels_from_scenes([scene_at("train", number, self.world) for number in index.tolist()])

    @cached_property
    def first_text(self) -> Tensor:
        """(N,) the number of each scene's first caption among all of them."""
        counts = torch.tensor([len(texts) for texts in self.captions])
        return counts.cumsum(0) - counts

    def draw(self, position: int, size: int, seed: int, *, pairs: bool = False) -> Samples:
        """See `TrainingData.draw`."""
        return self.samples(sample_indices(len(self), size, position, seed))

    def pack(self, packer: Packer, samples: Samples, which: Tensor, *, per_question: bool) -> Rows:
        """See `TrainingData.pack`."""
        rows, groups = [], []
        for asked, texts, c in zip(samples.content, samples.texts, which.tolist(), strict=True):
            caption = Turn(CAPTION_PROMPT, texts[c], CAPTION_WEIGHT)
            rows.append([*(Turn(q.text, q.answer) for q in asked), caption])
            groups.append([self.groups.index(name) for name in (*(q.template for q in asked), "caption")])
        shown = list(range(len(rows)))
        if per_question:
            shown = [at for at, turns in enumerate(rows) for _ in turns]
            rows, groups = [[turn] for turns in rows for turn in turns], [[g] for row in groups for g in row]
        most = max(map(len, groups))
        padded = [row + [-1] * (most - len(row)) for row in groups]
        return Rows(packer.pack(rows), torch.tensor(padded), torch.tensor(shown), torch.arange(len(rows)))

    def more_pictures(self, samples: Samples, count: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Any pictures: features are at hand."""
        index = torch.randint(0, len(self), (count,), generator=generator)
        return self.samples(index), torch.arange(count)

    def questions_about(self, pictures: int) -> tuple[list[str], dict[str, ExpertFeatures]]:
        """See `WorldTrainingData.questions_about`."""
        rows = [row for row in range(min(pictures, len(self))) for _ in self.questions[row]]
        asked = [question.text for questions in self.questions[:pictures] for question in questions]
        return asked, self.rows(torch.tensor(rows))

    def scanned(self, seed: int) -> Iterable[str]:
        """See `TrainingData.scanned`."""
        return (text for texts in self.captions for text in texts)

    def every_text(self) -> Sequence[Sequence[str]]:
        """Every caption of every scene."""
        return self.captions


def scenes_of(split: str, count: int, world: World) -> Iterator[Scene]:
    """The first ``count`` scenes of a split, drawn as they are asked for."""
    for index in range(count):
        yield scene_at(split, index, world)


def scene_at(split: str, index: int, world: World) -> Scene:
    """One scene of a split."""
    return split_scene(
        split, index, world.seed, canvas=world.canvas, difficulty=world.difficulty, max_objects=world.max_objects
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
    vain: float = 0.0,
    cache: FeatureCache,
    progress: ProgressCallback,
    notify: Callable[[str], None],
) -> WorldData:
    """The training split: texts made anew (cheap), features from the cache, one file per expert. See
    `astrea.recipes.recipe.Data` for what is asked in other words, and in vain.

    An expert's file is found by a fingerprint of its options and weights, the world's settings and the number of
    scenes, so a stale one is never used: any change gives another name.
    """
    scenes = train_scenes(world, count, progress)
    which = training_split(world, count)
    features = cached_features(bank, scenes, which, cache=cache, progress=progress, notify=notify)
    balancer, rng = Balancer(), random.Random(f"questions/{world.seed}")
    questions = []
    for scene in scenes:
        asked = balancer.choose(scene, rng)
        # Tasks come in a fixed order: the first few would always be the same ones.
        questions.append(asked if len(asked) <= per_scene else rng.sample(asked, per_scene))
    if paraphrases or vain:
        questions = [
            asked_otherwise(scene, asked, paraphrases, vain) for scene, asked in zip(scenes, questions, strict=True)
        ]
    texts = [captions(scene, 3, index) for index, scene in enumerate(scenes)]
    return WorldData(features, questions, texts, world)


def asked_otherwise(scene: Scene, asked: list[Question], paraphrases: float, vain: float) -> list[Question]:
    """A scene's questions, these shares of them in other words, and such that the scene does not answer."""
    rng = random.Random(f"wordings/{scene.spec.seed}")
    found = []
    for question in asked:
        if rng.random() < vain:
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
    return {"scenes": hashlib.sha256(repr(scenes).encode()).hexdigest()}


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
            whole = ExpertFeatures.cat(parts)
            return {f.name: getattr(whole, f.name) for f in fields(whole) if getattr(whole, f.name) is not None}

        key = {
            "format": FORMAT,
            "expert": f"{type(expert).__module__}.{type(expert).__qualname__}",
            "source": source_hash(type(expert)),
            "options": bank.options[name],
            "weights": tensors_fingerprint(expert.state_dict()),
            **which,
        }
        found = cache.get_or_compute(key, compute, on_event=notify)
        features[name] = ExpertFeatures(**found)
    return features
