"""benchmarks/reading.py: which answers are right, what is asked of a page, and how a page is set."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark_scripts import benchmark_script

script = benchmark_script("reading")
pages = benchmark_script("pages")


@pytest.mark.parametrize(
    ("said", "lines", "exact", "words"),
    [
        ("OPEN", ["open"], True, 1),
        ("open top right", ["open"], False, 1 / 3),
        ("opening", ["open"], False, 0),
        ("", ["open"], False, 0),
        ("histogram of grey values.", ["the markers", "histogram of grey values:"], True, 1),
        ("histogram grey values", ["histogram of grey values:"], False, 3 / 4),
        ("the lamp", ["lamp"], False, 1 / 2),  # an article is a word of the line as well
    ],
)
def test_an_answer_is_right_word_by_word(said, lines, exact, words):
    assert script.scored(said, lines) == (exact, pytest.approx(words))


def test_scores_are_means_over_answers():
    rows = [{"answer": "open", "lines": ["open"]}, {"answer": "exit now", "lines": ["exit"]}]
    assert script.summed(rows) == {"n": 2, "exact": 50, "words": 75}


def test_as_many_words_are_asked_that_are_on_a_page_as_are_not():
    for page in map(pages.printed, pages.SETTINGS):
        (line, right), *asked = script.questions_about(page)
        assert (line, right) == (script.ASKED, page.lines)
        there = [question for question, answer in asked if answer == ("yes",)]
        assert len(there) == len(set(there)) == len(page.absent) == len(asked) - len(there)
        text = " ".join(page.lines).lower()
        assert all(question.split()[3] in text for question in there)
        assert not any(word in text for word in page.absent)


def test_a_page_is_set_within_its_margins_and_the_same_again():
    setting = pages.SETTINGS[0]
    page = pages.printed(setting)
    assert " ".join(page.lines) == setting.text
    dark = np.asarray(page.picture.convert("L")) < 120
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    assert page.picture.size == (pages.WIDTH, pages.HEIGHT)
    assert pages.MARGIN / 2 < columns[0] < columns[-1] < pages.WIDTH - pages.MARGIN / 2
    assert rows[-1] < pages.HEIGHT - pages.MARGIN / 2
    assert pages.printed(setting).picture.tobytes() == page.picture.tobytes()
