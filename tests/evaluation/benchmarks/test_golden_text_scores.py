"""TextVQA and VizWiz: scores that were worked out by hand from the published accuracy.

Of ten annotators k gave the prediction. Each is left out once, and min(k', 3) / 3 of the other nine counts: leaving out
one that matches gives k' = k - 1, one that does not k' = k. The mean over the ten is 0, 0.3, 0.6, 0.9 and 1 for k = 0,
1, 2, 3 and 4 or more. All that the two scorers differ in is what counts as the same answer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from astrea.evaluation.benchmarks.items import Item
from astrea.evaluation.benchmarks.vqa import score_textvqa, score_vizwiz

AGREED = {0: 0.0, 1: 30.0, 2: 60.0, 3: 90.0, 4: 100.0, 5: 100.0, 10: 100.0}
"""Per cent, by how many of ten annotators gave the prediction."""

Case = tuple[str, dict[str, int], int]
"""A prediction, ten answers (each with how many gave it), and how many of them are the prediction."""

TEXTVQA: dict[str, Case] = {
    "number words are digits": ("Two", {"2": 3, "two": 2, "three": 5}, 5),
    "none is the number 0": ("none", {"0": 1, "no": 9}, 1),
    "eleven is no number word": ("eleven", {"11": 10}, 0),
    "articles go": ("the stop sign", {"stop sign": 1, "a sign": 9}, 1),
    "a word of articles alone is nothing": ("The", {"a": 2, "them": 8}, 2),
    "a mark between letters is a space": ("Coca-Cola!", {"coca cola": 2, "cocacola": 8}, 2),
    "a mark beside a space goes": ("red / blue", {"red blue": 3, "red/blue": 1, "redblue": 6}, 4),
    "commas go before all else": ("1,000", {"1000": 1, "1 000": 9}, 1),
    "also those between words": ("salt,pepper", {"saltpepper": 2, "salt pepper": 8}, 2),
    "question marks go": ("what?!", {"what": 3, "what ?": 1, "why": 6}, 4),
    "full stops before a digit stay": ("$ 3.50.", {"$ 3.50": 4, "350": 6}, 4),
    "contractions get their apostrophe": ("DONT WALK", {"don't walk": 3, "do not walk": 7}, 3),
    "'s is a word of its own": ("mcdonald's", {"mcdonald 's": 2, "mcdonalds": 8}, 2),
    "so contractions with 's are not put together": ("lets go", {"let's go": 10}, 0),
    "unanimous answers are normalised, too": ("Nokia", {"nokia": 10}, 10),
    "one word more is another answer": ("nokia 3310", {"nokia": 10}, 0),
}

VIZWIZ: dict[str, Case] = {
    "number words are digits": ("three", {"3": 2, "unanswerable": 8}, 2),
    "ten is the last of them": ("ten", {"10": 1, "ten dollars": 9}, 1),
    "articles go": ("A laptop", {"laptop": 3, "computer": 7}, 3),
    "a mark between letters is a space": ("coca-cola", {"coca cola": 1, "cocacola": 9}, 1),
    "a mark beside a space goes": ("red, white", {"red white": 1, "red,white": 1, "white": 8}, 2),
    "digit,comma,digit: all marks go": ("1,000/day", {"1000day": 3, "1000 day": 7}, 3),
    "full stops go": ("Dr. Pepper.", {"dr pepper": 2, "pepper": 8}, 2),
    "but not before a digit": ("2.5 %", {"2.5 %": 1, "25 %": 9}, 1),
    "contractions get their apostrophe": ("cant tell", {"can't tell": 2, "unsuitable": 8}, 2),
    "'s stays where it is": ("campbell's", {"campbell's": 4, "campbell 's": 6}, 4),
    "line breaks are spaces": ("basil\nleaves\t", {"basil leaves": 5, "basil": 5}, 5),
    "unanimous answers are compared as they are": ("Yes", {"yes": 10}, 0),
    "and match where they are the same": ("yes ", {"yes": 10}, 10),
    "what the prompt asks for is the annotators' word": ("'Unanswerable'.", {"unanswerable": 10}, 10),
    "nobody said it": ("grey", {"gray": 10}, 0),
}


def item(number: int, answers: dict[str, int]) -> Item:
    truth = [answer for answer, count in answers.items() for _ in range(count)]
    assert len(truth) == 10
    return Item(number, Path(f"{number}.jpg"), "what is this?", "what is this?", truth)


@pytest.mark.parametrize("name", TEXTVQA)
def test_textvqa_by_hand(name: str):
    prediction, answers, agree = TEXTVQA[name]
    for mode in ("official", "normalised"):
        assert score_textvqa([item(0, answers)], [prediction], mode).score == pytest.approx(AGREED[agree])


@pytest.mark.parametrize("name", VIZWIZ)
def test_vizwiz_by_hand(name: str):
    prediction, answers, agree = VIZWIZ[name]
    assert score_vizwiz([item(0, answers)], [prediction], "official").score == pytest.approx(AGREED[agree])


def test_a_suite_is_the_mean_of_its_questions():
    for cases, score in ((TEXTVQA, score_textvqa), (VIZWIZ, score_vizwiz)):
        items = [item(number, answers) for number, (_, answers, _) in enumerate(cases.values())]
        predictions = [prediction for prediction, _, _ in cases.values()]
        by_hand = [AGREED[agree] for _, _, agree in cases.values()]
        assert score(items, predictions, "official").score == pytest.approx(sum(by_hand) / len(by_hand))
