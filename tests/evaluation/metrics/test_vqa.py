"""Short-answer scores: VQA accuracy against the published scorer, GQA match, POPE."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.evaluation.metrics.vqa import (
    gqa_match,
    normalise_answer,
    normalise_punctuation,
    pope_answer,
    pope_scores,
    vqa_accuracy,
)
from repository import FIXTURES

GOLDEN = json.loads((FIXTURES / "metrics/vqa.json").read_text(encoding="utf-8"))["cases"]
ANSWER = st.sampled_from(["yes", "no", "Two", "2", "a dog", "dog.", "red/blue", "red blue", "1,000", "dont"])


def test_golden_set_is_large() -> None:
    assert len(GOLDEN) >= 200
    assert len({score for *_, score, _ in GOLDEN}) >= 6
    assert sum(official != always for *_, official, always in GOLDEN) >= 10  # both modes are really told apart


@pytest.mark.parametrize(("mode", "column"), [("official", 2), ("normalised", 3)])
def test_accuracy_is_that_of_the_published_scorer(mode: str, column: int) -> None:
    wrong = [
        (case, found)
        for case in GOLDEN
        if abs((found := vqa_accuracy(case[0], case[1], mode)) - case[column]) > 1e-8  # type: ignore[arg-type]
    ]
    assert wrong == []


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_leave_one_out_table(matches: int, score: float) -> None:
    answers = ["cat"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa_accuracy("cat", answers) == pytest.approx(score)


def test_unanimous_answers_compare_raw_in_official_mode_only() -> None:
    assert vqa_accuracy("Yes", ["yes"] * 10) == 0.0
    assert vqa_accuracy("Yes", ["yes"] * 10, mode="normalised") == 1.0
    assert vqa_accuracy("Yes", ["yes"] * 9 + ["no"]) == 1.0
    assert vqa_accuracy(" yes\n", ["yes"] * 10) == 1.0  # spaces at the ends always go


def test_one_annotator_is_an_exact_match() -> None:
    assert vqa_accuracy("The Dog.", ["dog"]) == 1.0
    assert vqa_accuracy("cat", ["dog"]) == 0.0


def test_fewer_annotators_leave_one_out() -> None:
    # Five answers, two of them right: leaving a right one out leaves 1 of 3, leaving another out leaves 2 of 3.
    assert vqa_accuracy("cat", ["cat", "cat", "x", "y", "z"]) == pytest.approx((2 * 1 / 3 + 3 * 2 / 3) / 5)


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("red/blue", "red blue"),  # no space touched: the mark becomes a space
        ("red/blue/ green", "redblue green"),  # one touches a space: all of them go
        ("1,000/day", "1000day"),  # digit,comma,digit: every mark goes
        ("1.5", "1.5"),
        ("U.S.", "us"),
        ("The two dogs", "2 dogs"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("y'alld've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("3:00", "3:00"),
        ("a", ""),
    ],
)
def test_normalisation(raw: str, normalised: str) -> None:
    assert normalise_answer(raw) == normalised


def test_only_the_first_32_full_stops_go() -> None:
    assert normalise_punctuation("." * 40) == "." * 8


@pytest.mark.parametrize("answers", [[], "yes"])
def test_no_answers_are_refused(answers: object) -> None:
    with pytest.raises(ValueError, match="at least one"):
        vqa_accuracy("yes", answers)  # type: ignore[arg-type]


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode"):
        vqa_accuracy("yes", ["yes"], mode="strict")  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=10))
def test_any_strings_score_between_0_and_1(prediction: str, answers: list[str]) -> None:
    for mode in ("official", "normalised"):
        assert 0.0 <= vqa_accuracy(prediction, answers, mode) <= 1.0  # type: ignore[arg-type]


@settings(deadline=None)
@given(ANSWER, st.lists(ANSWER, min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_order_of_annotators_does_not_matter(prediction: str, answers: list[str], rng: object) -> None:
    shuffled = list(answers)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert vqa_accuracy(prediction, shuffled) == pytest.approx(vqa_accuracy(prediction, answers))


@settings(deadline=None)
@given(ANSWER, st.lists(ANSWER, min_size=2, max_size=10))
def test_one_more_match_never_lowers_the_score(prediction: str, answers: list[str]) -> None:
    better = [prediction, *answers[1:]]
    assert vqa_accuracy(prediction, better, "normalised") >= vqa_accuracy(prediction, answers, "normalised") - 1e-12


def test_gqa_match() -> None:
    assert gqa_match("Yes.", "yes")
    assert gqa_match(" dog\n", "dog")
    assert not gqa_match("a dog", "dog")
    assert not gqa_match("dog!", "dog")


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("Yes, there is. No doubt.", (True, True)),  # only the text before the first full stop counts
        ("No, there is not.", (False, True)),
        ("There is not a dog", (False, True)),
        ("NO", (True, False)),  # the official list has No, not, no
        ("nothing", (True, False)),
        ("No,thing", (True, False)),  # commas go before the split
        ("", (True, False)),
        ("yes", (True, True)),
    ],
)
def test_pope_parsing(prediction: str, answer: tuple[bool, bool]) -> None:
    assert pope_answer(prediction) == answer


def test_pope_scores() -> None:
    scores = pope_scores(["yes", "Yes.", "no", "perhaps", "No"], ["yes", "no", "yes", "yes", "no"])
    assert scores == {
        "accuracy": pytest.approx(3 / 5),
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "yes_ratio": pytest.approx(3 / 5),
        "unparsable": 1.0,
    }


def test_pope_without_any_yes_is_zero_and_not_an_error() -> None:
    scores = pope_scores(["no", "no"], ["no", "no"])
    assert scores["accuracy"] == 1.0
    assert scores["precision"] == scores["recall"] == scores["f1"] == scores["yes_ratio"] == 0.0


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [([], [], "not zero"), (["yes"], [], "equal"), (["yes"], ["maybe"], "label 0")],
)
def test_pope_refuses_what_it_cannot_score(predictions: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pope_scores(predictions, labels)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["yes", "no", "Hm"]), st.sampled_from(["yes", "no"])), min_size=1))
def test_pope_f1_is_the_harmonic_mean(rows: list[tuple[str, str]]) -> None:
    scores = pope_scores([p for p, _ in rows], [t for _, t in rows])
    precision, recall = scores["precision"], scores["recall"]
    assert scores["f1"] * (precision + recall) == pytest.approx(2 * precision * recall)
    assert scores["unparsable"] == sum(p == "Hm" for p, _ in rows)
