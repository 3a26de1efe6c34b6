"""Questions that a scene does not answer: what they take for granted is really not there, and they say so."""

from __future__ import annotations

import random
import re

from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.phrases import SceneView
from astrea.world.scenes.questions import text_vocabulary
from astrea.world.scenes.unanswerable import (
    CANNOT_TELL,
    NONE,
    UNANSWERABLE,
    UNKNOWN_THINGS,
    about_unknown,
    false_premise,
    out_of_scope,
    unanswerable,
)
from astrea.world.scenes.vocabulary import CATEGORIES, COLOURS, KINDS

SCENES = [split_scene("train", index, 0, max_objects=8) for index in range(60)]


def test_something_that_a_false_premise_names_is_not_there():
    rng = random.Random(0)
    templates = set()
    for scene in SCENES * 4:
        question = false_premise(scene, rng)
        view = SceneView(scene)
        assert (question.task, question.template, question.answer) == (UNANSWERABLE, UNANSWERABLE, NONE)
        there = {KINDS[kind].name for kind in view.kinds} | {KINDS[kind].fact for kind in view.kinds}
        there |= {COLOURS[colour] for colour in view.colours}
        there |= {{"weather": "weather symbol", "chess": "chess piece", "thing": "gadget"}.get(n, n)
                  for n in (CATEGORIES[c] for c in view.categories)}  # fmt: skip
        asked = [word for word in question.args if word not in ("left of", "right of", "above", "below")]
        if asked:
            assert any(word not in there for word in asked), question
            assert len(set(asked)) == len(asked), question
        else:
            assert view.word is None
        templates.add(re.sub("|".join(map(re.escape, asked)) or "$^", "_", question.text))
    assert len(templates) > 15


def test_things_that_the_world_does_not_have():
    rng = random.Random(1)
    known = set(text_vocabulary())
    assert not set(UNKNOWN_THINGS) & known
    for scene in SCENES:
        question = about_unknown(scene, rng, nouns=UNKNOWN_THINGS, made_up=0.0)
        assert question.answer == CANNOT_TELL
        words = re.findall("[a-z]+", question.text)
        assert any(word in UNKNOWN_THINGS or word.removesuffix("s") in UNKNOWN_THINGS for word in words), question.text


def test_what_no_picture_answers_names_what_is_there():
    rng = random.Random(2)
    for scene in SCENES:
        question = out_of_scope(scene, rng, ("how old is the {0}?",))
        shown = {KINDS[item.kind].name for item in scene.objects}
        assert question.text.removeprefix("how old is the ").removesuffix("?") in shown
        assert question.answer == CANNOT_TELL


def test_half_of_them_take_something_for_granted():
    rng = random.Random(3)
    answers = [unanswerable(scene, rng).answer for scene in SCENES * 5]
    assert 0.4 < answers.count(NONE) / len(answers) < 0.6
