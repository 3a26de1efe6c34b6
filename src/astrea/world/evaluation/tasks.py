"""The twelve tasks of the embedded world as fixed test sets: what is shown, what is asked, what is true."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import Data, World
from astrea.world.dataset import scene_at, scenes_of
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import draw_scene, swap_attribute
from astrea.world.scenes.questions import VQA_TASKS, Balancer, Question, build_questions
from astrea.world.scenes.scene import Scene

CAPTION_TASKS = ("caption", "caption_novel")
RETRIEVAL_TASKS = ("retrieval_i2t", "retrieval_t2i")
TASKS: tuple[str, ...] = (*VQA_TASKS, *CAPTION_TASKS, *RETRIEVAL_TASKS)
GROUP_SIZE = 4
"""A retrieval group: a picture and three near-duplicates, each with one attribute swapped."""


@dataclass(frozen=True, slots=True)
class VqaItem:
    """One question about ``scenes[scene]``."""

    scene: int
    question: Question


@dataclass(frozen=True, slots=True)
class TestSets:
    """Everything that is evaluated.

    scenes, questions: the eight VQA tasks. described[task]: scenes to caption. pool: pictures (and their canonical
    captions) of the two retrieval tasks. training_questions: what the majority answer per template is taken from.
    """

    scenes: list[Scene]
    questions: list[VqaItem]
    described: dict[str, list[Scene]]
    pool: list[Scene]
    pool_captions: list[str]
    training_questions: list[Question]


def build_test_sets(world: World, data: Data, *, split: str = "test") -> TestSets:
    """Test sets of a world; ``split`` "validation" gives others of the same kind for choosing settings."""
    limit = max(4000, 40 * data.test_questions)
    scenes: list[Scene] = []

    def drawn() -> Iterator[Scene]:  # remember what has been drawn, so that questions can point at it
        for scene in scenes_of(split, limit, world):
            scenes.append(scene)
            yield scene

    asked = build_questions(drawn(), data.test_questions, seed=world.seed + 1)
    used = sorted({index for index, _ in asked})
    place = {index: row for row, index in enumerate(used)}
    questions = [VqaItem(place[index], question) for index, question in asked]
    questions.sort(key=lambda item: VQA_TASKS.index(item.question.task))
    described = {
        "caption": list(scenes_of(split, data.test_captions, world)),
        "caption_novel": [
            scene
            for i, scene in enumerate(scenes_of("novel", 2 * data.test_captions, world))
            if (i % 2 == 0) == (split == "test")
        ],
    }
    pool, texts = retrieval_pool(world, data.test_retrieval_groups, split)
    balancer, rng = Balancer(), random.Random(world.seed)
    training = [q for scene in scenes_of("train", 600, world) for q in balancer.choose(scene, rng)]
    return TestSets([scenes[i] for i in used], questions, described, pool, texts, training)


def retrieval_pool(world: World, groups: int, split: str) -> tuple[list[Scene], list[str]]:
    """Groups of near-duplicates whose canonical captions all differ, within a group and between groups."""
    rng = random.Random(f"{world.seed}/{split}/retrieval")
    pool: list[Scene] = []
    texts: list[str] = []
    start = 10_000_001  # far from the scenes that questions are asked of
    for index in range(start, start + 200 * groups):
        if len(pool) == groups * GROUP_SIZE:
            break
        first = scene_at(split, index, world)
        group, said = [first], [captions(first, 1)[0]]
        for _ in range(12):
            if len(group) == GROUP_SIZE:
                break
            other = draw_scene(swap_attribute(first.spec, rng)[0])
            text = captions(other, 1)[0]
            if text not in said:
                group.append(other)
                said.append(text)
        if len(group) == GROUP_SIZE and not set(said) & set(texts):
            pool += group
            texts += said
    if len(pool) < groups * GROUP_SIZE:
        raise AstreaError(
            f"this world has only {len(pool) // GROUP_SIZE} of {groups} retrieval groups whose captions all differ",
            "lower data.test_retrieval_groups, or raise world.max_objects",
        )
    return pool, texts
