"""Figures of agreement: what words are about, and experts that share no word or have none."""

from __future__ import annotations

import torch

from astrea.experts.protocol import ExpertFeatures
from astrea.experts.word_figures import WordFigures, aspects
from word_experts import LABELS, seen


def test_words_are_known_by_what_they_are_about():
    found = aspects(("cat", "red", "x0", "x1", "y0", "left", "first", "sure", "me", None), "me")
    assert {aspect: list(words) for aspect, words in found.items()} == {
        "colour": ["red"],
        "name": ["cat"],
        "side": ["left"],
        "across": ["x0", "x1"],
        "down": ["y0"],
    }


def test_two_that_say_the_same_leave_nothing_unheard():
    told = seen(20, 0)
    figures = WordFigures({"tags": LABELS["tags"], "words": LABELS["words"]}).of(told)
    both = torch.stack([values for other, values in figures["tags"] if other == "words"], -1)
    assert both.shape == (20, 6)  # what is unheard and the cosine, of names and colours; then unheard of the other
    assert figures["words"][0][0] is None
    # Names and colours of each are those of the other, but for a tenth of noise.
    assert both[:, [0, 2, 4, 5]].max() < 0.35
    assert both[:, [1, 3]].min() > 0.9


def test_an_expert_without_words_has_figures_of_its_own_alone():
    told = {**seen(20, 0), "mute": ExpertFeatures(torch.rand(20, 2, 5), torch.ones(20, 2))}
    figures = WordFigures({**LABELS, "mute": (None,) * 5}).of(told)
    assert [other for other, _ in figures["mute"]] == [None] * 3
    assert all(values.isfinite().all() for own in figures.values() for _, values in own)
    assert not any(other == "mute" for own in figures.values() for other, _ in own)
