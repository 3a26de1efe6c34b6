"""Other words for the world's questions: the same question, and what is held out is not learned."""

from __future__ import annotations

import random
import re

import pytest

from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.paraphrases import (
    PARAPHRASES,
    SLIPS,
    no_word,
    paraphrase_texts,
    rendered,
    reworded,
    with_slip,
)
from astrea.world.scenes.questions import Balancer, candidates
from astrea.world.scenes.templates import MAKERS, WORDINGS


def marks(text: str) -> set[str]:
    return set(re.findall(r"\{a?(\d)\}", text))


@pytest.mark.parametrize("template", list(MAKERS))
def test_every_template_has_a_dozen_rewordings_and_others_that_are_held_out(template):
    learned, held_out = PARAPHRASES[template]
    assert len(set(learned)) >= 12
    assert len(set(held_out)) >= 3
    assert not set(learned) & (set(held_out) | set(WORDINGS[template]))
    wanted = marks(WORDINGS[template][0])
    for text in (*learned, *held_out):
        assert marks(text) == wanted, text
        assert text[-1] in "?."


def test_no_held_out_wording_is_learned_under_another_template():
    learned = {text for wordings in PARAPHRASES.values() for text in wordings.learned}
    assert not learned & {text for wordings in PARAPHRASES.values() for text in wordings.held_out}


def test_what_is_asked_and_answered_stays():
    scene = split_scene("train", 3, 0)
    rng = random.Random(0)
    for question in candidates(scene, rng):
        other = reworded(question, rng, held_out=True)
        assert (other.task, other.template, other.answer) == (question.task, question.template, question.answer)
        assert other.text in {rendered(text, question.args) for text in PARAPHRASES[question.template].held_out}
        assert all(word in other.text for argument in question.args for word in argument.split())


def test_slips_leave_what_is_asked_about():
    rng = random.Random(1)
    scene = split_scene("train", 3, 0)
    asked = [q for _ in range(20) for q in Balancer().choose(scene, rng)]
    slipped = 0
    for question in asked:
        other = reworded(question, rng)
        known = {rendered(text, question.args) for text in PARAPHRASES[question.template].learned}
        slipped += other.text not in known
        assert all(word in other.text for argument in question.args for word in argument.split())
    assert 0.5 * SLIPS < slipped / len(asked) < 1.5 * SLIPS


def test_a_slip_is_no_word_of_the_world():
    from astrea.world.language.tiny import tiny_tokenizer

    rng, known = random.Random(2), tiny_tokenizer().get_vocab()
    made = [no_word(rng) for _ in range(300)]
    assert len(set(made)) > 200
    assert sum(word in known for word in made) < 6
    assert with_slip("is there {a0}?", random.Random(0)).count("{a0}") == 1


def test_the_texts_hold_every_word_and_no_mark():
    texts = paraphrase_texts()
    assert not [text for text in texts if "{" in text]
    assert {"count", "visible", "larger", "relative"} <= set(re.findall("[a-z]+", " ".join(texts)))
