"""Scene F1: one for the truth, less for anything else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrea.world.evaluation.scene_f1 import scene_f1
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import draw_scene, split_scene, swap_attribute
from astrea.world.scenes.questions import text_vocabulary
from astrea.world.scenes.scene import Scene, SceneObject, SceneSpec
from astrea.world.scenes.vocabulary import COLOURS, KINDS


def scene_of(*things: tuple[str, str, float, float], word: str | None = None) -> Scene:
    """A scene by truth alone: (colour, kind, x, y) of each object."""
    names = [kind.name for kind in KINDS]
    objects = tuple(
        SceneObject(names.index(kind), COLOURS.index(colour), 1, (0, 0, 9, 9), 50, 0.0, (x, y))
        for colour, kind, x, y in things
    )
    blank = np.zeros((64, 64), np.uint8)
    spec = SceneSpec(0, 64, (), word, (0, 0), 0)
    return Scene(spec, np.zeros((64, 64, 3), np.uint8), blank, objects, word, None, 0)


TWO = scene_of(("red", "sun", 10, 30), ("blue", "cow", 50, 30), word="stop")


@pytest.mark.parametrize("split", ["train", "novel"])
def test_references_score_one(split: str) -> None:
    for index in range(200):
        scene = split_scene(split, index, 0)
        assert [scene_f1(text, scene) for text in captions(scene, 5)] == [1.0] * 5


def test_one_swapped_attribute_scores_less() -> None:
    rng = random.Random(0)
    for index in range(150):
        scene = split_scene("test", index, 0)
        spec, which = swap_attribute(scene.spec, rng)
        if which == "place":  # the caption may tell another relation, one that still holds
            continue
        assert 0 <= scene_f1(captions(scene)[0], draw_scene(spec)) < 1


@pytest.mark.parametrize(
    ("caption", "score"),
    [
        ("a red sun and a blue cow. the red sun is left of the blue cow. the sign says stop.", 1.0),
        ("a red sun and a blue cow. the cow is to the right of the sun. the sign reads stop.", 1.0),
        # 3 of 4 stated are true, 3 of 4 wanted are told
        ("a red sun and a blue cow. the red sun is right of the blue cow. the sign says stop.", 0.75),
        ("a red sun and a green cow. the red sun is left of the cow. the sign says stop.", 0.75),
        ("a red sun and a blue cow. the red sun is left of the blue cow. the sign says exit.", 0.75),
        # all of 2 stated, 2 of 4 wanted
        ("a red sun and a blue cow.", 2 / 3),
        # a second red sun is one too many: 2 of 3 stated, 2 of 4 wanted
        ("a red sun, a red sun and a blue cow.", 4 / 7),
        ("a green cat.", 0.0),
        ("", 0.0),
    ],
)
def test_known_scores(caption: str, score: float) -> None:
    assert scene_f1(caption, TWO) == pytest.approx(score)


def test_ambiguous_names_are_read_kindly() -> None:
    scene = scene_of(("red", "sun", 10, 30), ("red", "sun", 50, 30), ("blue", "cow", 30, 32))
    for side in ("left", "right"):
        stated = f"a red sun, a red sun and a blue cow. the red sun is {side} of the blue cow."
        assert scene_f1(stated, scene) == 1.0
    assert scene_f1("a red sun, a red sun and a blue cow. the red sun is below the blue cow.", scene) < 1.0


def test_no_relation_is_wanted_where_none_is_clear() -> None:
    scene = scene_of(("red", "sun", 30, 30), ("blue", "cow", 33, 31))
    assert scene_f1("a red sun and a blue cow.", scene) == 1.0


@given(st.lists(st.sampled_from(text_vocabulary()), max_size=60))
def test_always_between_zero_and_one(words: list[str]) -> None:
    assert 0.0 <= scene_f1(" ".join(words), TWO) <= 1.0
