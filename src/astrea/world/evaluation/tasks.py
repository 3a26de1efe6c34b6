"""The twelve tasks of the embedded world as fixed test sets: what is shown, what is asked, what is true."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import Data, World
from astrea.world.dataset import scene_at, scenes_of
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import draw_scene, swap_attribute
from astrea.world.scenes.questions import DRAWN, VQA_TASKS, Balancer, Question, Templates, build_questions

CAPTION_TASKS = ("caption", "caption_novel")
RETRIEVAL_TASKS = ("retrieval_i2t", "retrieval_t2i")
TASKS: tuple[str, ...] = (*VQA_TASKS, *CAPTION_TASKS, *RETRIEVAL_TASKS)
MAJORITY_SCENES = 600
"""Training scenes of which the most frequent answers are counted."""

GROUP_SIZE = 4
"""A retrieval group: a picture and three near-duplicates, each with one attribute swapped."""


@dataclass(frozen=True, slots=True)
class VqaItem:
    """One question about ``scenes[scene]``."""

    scene: int
    question: Question


@dataclass(frozen=True, slots=True)
class TestSets:
    """Everything that is evaluated. Scenes are a world's own, such as `astrea.world.scenes.scene.Scene`.

    scenes, questions: the eight VQA tasks. described[task]: scenes to caption. pool: pictures (and their canonical
    captions) of the two retrieval tasks. training_questions: what the majority answer per template is taken from.
    """

    scenes: list[Any]
    questions: list[VqaItem]
    described: dict[str, list[Any]]
    pool: list[Any]
    pool_captions: list[str]
    training_questions: list[Question]


@dataclass(frozen=True, slots=True)
class SceneSource:
    """Where a world's test scenes come from.

    scenes: a split and a number -> its first scenes, one after another. scene: one of them. swapped: the same scene
    with one attribute changed. caption: its canonical caption. templates: what is asked.
    """

    scenes: Callable[[str, int], Iterator[Any]]
    scene: Callable[[str, int], Any]
    swapped: Callable[[Any, random.Random], Any]
    caption: Callable[[Any], str]
    templates: Templates
    seed: int


def drawn_source(world: World) -> SceneSource:
    """Drawn scenes."""
    return SceneSource(
        scenes=lambda split, count: scenes_of(split, count, world),
        scene=lambda split, index: scene_at(split, index, world),
        swapped=lambda scene, rng: draw_scene(swap_attribute(scene.spec, rng)[0]),
        caption=lambda scene: captions(scene, 1)[0],
        templates=DRAWN,
        seed=world.seed,
    )


def build_test_sets(world: World, data: Data, *, split: str = "test") -> TestSets:
    """Test sets of the drawn world; ``split`` "validation" gives others of the same kind for choosing settings."""
    return collect_test_sets(drawn_source(world), data, split=split)


def collect_test_sets(source: SceneSource, data: Data, *, split: str = "test") -> TestSets:
    """Test sets of scenes of any kind."""
    scenes, questions = asked_about(source, split, data.test_questions, seed=source.seed + 1)
    questions.sort(key=lambda item: VQA_TASKS.index(item.question.task))
    described = {
        "caption": list(source.scenes(split, data.test_captions)),
        "caption_novel": [
            scene
            for i, scene in enumerate(source.scenes("novel", 2 * data.test_captions))
            if (i % 2 == 0) == (split == "test")
        ],
    }
    pool, texts = retrieval_pool(source, data.test_retrieval_groups, split)
    balancer, rng = Balancer(templates=source.templates), random.Random(source.seed)
    training = [q for scene in source.scenes("train", MAJORITY_SCENES) for q in balancer.choose(scene, rng)]
    return TestSets(scenes, questions, described, pool, texts, training)


def asked_about(source: SceneSource, split: str, per_task: int, *, seed: int) -> tuple[list[Any], list[VqaItem]]:
    """A balanced set of questions about scenes of a split: the scenes, and which question is about which of them."""
    limit = max(4000, 40 * per_task)
    looked_at: list[Any] = []

    def remembered() -> Iterator[Any]:  # so that questions can point at what has been drawn
        for scene in source.scenes(split, limit):
            looked_at.append(scene)
            yield scene

    asked = build_questions(remembered(), per_task, seed=seed, templates=source.templates)
    used = sorted({index for index, _ in asked})
    place = {index: row for row, index in enumerate(used)}
    return [looked_at[i] for i in used], [VqaItem(place[index], question) for index, question in asked]


def retrieval_pool(source: SceneSource, groups: int, split: str) -> tuple[list[Any], list[str]]:
    """Groups of near-duplicates whose canonical captions all differ, within a group and between groups."""
    rng = random.Random(f"{source.seed}/{split}/retrieval")
    pool: list[Any] = []
    texts: list[str] = []
    start = 10_000_001  # far from the scenes that questions are asked of
    for index in range(start, start + 200 * groups):
        if len(pool) == groups * GROUP_SIZE:
            break
        first = source.scene(split, index)
        group, said = [first], [source.caption(first)]
        for _ in range(12):
            if len(group) == GROUP_SIZE:
                break
            other = source.swapped(first, rng)
            text = source.caption(other)
            if text not in said:
                group.append(other)
                said.append(text)
        if len(group) == GROUP_SIZE and not set(said) & set(texts):
            pool += group
            texts += said
    if len(pool) < groups * GROUP_SIZE:
        raise AstreaError(
            f"this world has only {len(pool) // GROUP_SIZE} of {groups} retrieval groups whose captions all differ",
            "lower data.test_retrieval_groups, or let pictures show more things (world.max_objects of drawn scenes)",
        )
    return pool, texts
