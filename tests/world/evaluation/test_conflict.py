from __future__ import annotations

import torch

from astrea.experts.protocol import ExpertFeatures
from astrea.world.evaluation.conflict import WORDS, conflict_items, disagreed
from astrea.world.evaluation.tasks import VqaItem
from astrea.world.scenes.questions import Question

LABELS = {"tags": ("cat", "cow", None), "boxes": ("cat", "cow", "object"), "words": ("red", "end")}


def part(*pictures: list[list[float]], sure: list[list[float]] | None = None) -> ExpertFeatures:
    tokens = torch.tensor(pictures)
    return ExpertFeatures(tokens, torch.ones(tokens.shape[:2]) if sure is None else torch.tensor(sure))


FEATURES = {
    # Picture 0: tags say a cat and no cow; picture 1: a cow.
    "tags": part([[0.9, 0.1, 0.0]], [[0.0, 0.9, 0.0]]),
    # Picture 0: boxes have neither (a cat only in an empty slot); picture 1: the cow too.
    "boxes": part(
        [[0.0, 0.1, 0.9], [1.0, 0.0, 0.0]], [[0.0, 0.8, 0.2], [0.0, 0.0, 1.0]], sure=[[0.9, 0.0], [0.9, 0.5]]
    ),
    "words": part([[1.0, 0.0]], [[0.0, 1.0]]),
}


def ask(scene: int, text: str, answer: str) -> VqaItem:
    return VqaItem(scene, Question("existence", "existence.kind", text, answer))


def test_a_word_is_in_conflict_where_one_says_it_and_another_contradicts():
    found = disagreed(FEATURES, LABELS)
    assert {WORDS[column] for column in found[0].nonzero().flatten().tolist()} == {"cat"}
    assert not found[1].any()  # who has no such word takes no side, and all others agree


def test_half_a_belief_is_no_side():
    unsure = FEATURES | {"boxes": part([[0.4, 0.0, 0.0]], [[0.0, 0.4, 0.0]])}
    assert not disagreed(unsure, LABELS).any()


def test_questions_and_answers_that_use_such_a_word_are_the_conflict_set():
    items = [
        ask(0, "is there a cat?", "yes"),
        ask(0, "what is next to the cow?", "cat"),
        ask(0, "how many cats are there?", "1"),
        ask(0, "is there a cow?", "no"),
        ask(1, "is there a cat?", "no"),
        ask(0, "what colour is it?", "red"),
    ]
    assert conflict_items(items, FEATURES, LABELS).tolist() == [True, True, True, False, False, False]
