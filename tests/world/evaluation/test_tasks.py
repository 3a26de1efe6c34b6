from __future__ import annotations

from collections import Counter

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import Data, World
from astrea.report.results import TASKS as REPORTED
from astrea.world.evaluation import tasks
from astrea.world.evaluation.tasks import GROUP_SIZE, TASKS, TestSets, build_test_sets, drawn_source, retrieval_pool
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import draw_scene
from astrea.world.scenes.questions import VQA_TASKS, majority_baseline
from astrea.world.scenes.scene import Scene

TestSets.__test__ = False  # type: ignore[attr-defined]  # no test class, whatever its name says
SMALL = Data(test_questions=40, test_captions=6, test_retrieval_groups=6)


@pytest.fixture(scope="module")
def sets() -> TestSets:
    return build_test_sets(World(), SMALL)


@pytest.fixture(scope="module")
def validation() -> TestSets:
    return build_test_sets(World(), SMALL, split="validation")


def pixels(scenes: list[Scene]) -> list[bytes]:
    return [scene.image.tobytes() for scene in scenes]


def all_scenes(sets: TestSets) -> list[Scene]:
    return [*sets.scenes, *sets.described["caption"], *sets.described["caption_novel"], *sets.pool]


def test_there_are_twelve_tasks_and_the_report_lists_the_same():
    assert TASKS == REPORTED
    assert len(set(TASKS)) == 12
    assert set(TASKS) == {
        *("existence", "counting", "attribute", "spatial", "logic", "reading", "knowledge", "area"),
        *("caption", "caption_novel", "retrieval_i2t", "retrieval_t2i"),
    }


def test_every_task_has_as_many_items_as_asked_for(sets):
    assert Counter(item.question.task for item in sets.questions) == dict.fromkeys(VQA_TASKS, 40)
    assert {task: len(scenes) for task, scenes in sets.described.items()} == {"caption": 6, "caption_novel": 6}
    assert len(sets.pool) == len(sets.pool_captions) == 6 * GROUP_SIZE


def test_questions_are_in_task_order_and_point_at_their_scenes(sets):
    order = [VQA_TASKS.index(item.question.task) for item in sets.questions]
    assert order == sorted(order)
    assert {item.scene for item in sets.questions} == set(range(len(sets.scenes)))
    # A fact that can be read off the scene.
    words = [
        (item.question.answer, sets.scenes[item.scene].word)
        for item in sets.questions
        if item.question.template == "reading.word"
    ]
    assert len(words) > 3
    assert all(answer == (word or "nothing") for answer, word in words)


def test_novel_pictures_hold_what_training_never_shows(sets):
    def pairs(scenes: list[Scene]) -> set[tuple[int, int]]:
        return {(item.kind, item.colour) for scene in scenes for item in scene.objects}

    seen = pairs([*sets.scenes, *sets.described["caption"], *sets.pool])
    assert all(pairs([scene]) - seen for scene in sets.described["caption_novel"])


def test_a_retrieval_group_is_near_duplicates_told_apart_by_their_captions(sets):
    assert len(set(sets.pool_captions)) == len(sets.pool)
    for start in range(0, len(sets.pool), GROUP_SIZE):
        group = sets.pool[start : start + GROUP_SIZE]
        first = group[0]
        assert len(set(pixels(group))) == GROUP_SIZE
        for other in group[1:]:
            # One attribute apart: one object, two that changed places, or the printed word.
            changed = sum(a != b for a, b in zip(first.spec.objects, other.spec.objects, strict=True))
            reworded = first.spec.word != other.spec.word
            assert (changed in (1, 2)) != reworded
            assert other.condition == first.condition
    for scene, text in zip(sets.pool, sets.pool_captions, strict=True):
        assert text == captions(scene, 1)[0]
        assert (draw_scene(scene.spec).image == scene.image).all()


def test_validation_and_test_share_no_picture(sets, validation):
    assert not set(pixels(all_scenes(sets))) & set(pixels(all_scenes(validation)))
    assert not set(sets.pool_captions) & set(validation.pool_captions)
    assert [q.text for q in sets.training_questions] == [q.text for q in validation.training_questions]


def test_test_and_training_share_no_picture(sets):
    training = list(tasks.scenes_of("train", 100, World()))
    assert not set(pixels(training)) & set(pixels(all_scenes(sets)))


def test_the_sets_are_always_the_same_and_another_world_has_others(sets):
    again = build_test_sets(World(), SMALL)
    assert again.questions == sets.questions
    assert again.pool_captions == sets.pool_captions
    assert again.training_questions == sets.training_questions
    assert pixels(all_scenes(again)) == pixels(all_scenes(sets))
    other, _ = retrieval_pool(drawn_source(World(seed=1)), 6, "test")
    assert not set(pixels(other)) & set(pixels(sets.pool))


def test_more_questions_do_not_change_the_pool(sets):
    assert retrieval_pool(drawn_source(World()), 4, "test")[1] == sets.pool_captions[: 4 * GROUP_SIZE]


def test_a_blind_guess_earns_little(sets):
    majority = majority_baseline(sets.training_questions, [item.question for item in sets.questions])
    assert majority.keys() == set(VQA_TASKS)
    assert max(majority.values()) <= 0.55
    for task in ("existence", "logic"):
        answers = Counter(item.question.answer for item in sets.questions if item.question.task == task)
        assert answers == {"yes": 20, "no": 20}
        assert majority[task] == 0.5


def test_a_world_too_small_for_the_pool_is_an_error(monkeypatch):
    assert len(retrieval_pool(drawn_source(World(max_objects=1)), 2, "test")[0]) == 2 * GROUP_SIZE
    monkeypatch.setattr(tasks, "captions", lambda scene, n: ["the same"])
    monkeypatch.setattr(tasks, "draw_scene", lambda spec: None)
    with pytest.raises(AstreaError, match="only 0 of 1 retrieval groups") as caught:
        retrieval_pool(drawn_source(World()), 1, "test")
    assert "test_retrieval_groups" in caught.value.hint
