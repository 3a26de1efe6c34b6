"""Scores of short answers: VQA accuracy, GQA match, POPE.

VQA accuracy serves VQAv2, OK-VQA, TextVQA and VizWiz alike. It follows the published scorer with its habits, some of
which were surely not meant; they are named where they are kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Mode = Literal["official", "normalised"]

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBER_WORDS = {"none": "0", **{word: str(i) for i, word in enumerate(_NUMBERS)}}
_ARTICLES = frozenset(["a", "an", "the"])


_CONTRACTED = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
    something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've 'ow's'at y'all'd've
"""


def _contraction_map() -> dict[str, str]:
    """Misspelt contraction -> contraction.

    The published map holds, for a contraction with one apostrophe, the word without it, and for one with several, the
    words that lack exactly one of them. (It also holds four forms of "I'm", "I've", "I'd've" with a capital, which
    can never match because lower-casing comes first, so they are left out.)
    """
    wrong = {
        word[:at] + word[at + 1 :]: word
        for word in _CONTRACTED.split()
        for at, letter in enumerate(word)
        if letter == "'"
    }
    return {**wrong, "somebody'd": "somebodyd"}  # the published map has this one the wrong way round


_CONTRACTIONS = _contraction_map()


def clean_spaces(answer: str) -> str:
    """Line breaks and tabs become spaces; spaces at both ends go. Always applied, in both modes."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalise_punctuation(answer: str) -> str:
    """Take out punctuation, the apostrophe and the colon excepted.

    A mark is deleted where it touches a space anywhere in the answer, or where the answer holds digit,comma,digit;
    otherwise each of it becomes a space. So "red/blue" gives "red blue" but "red/blue, green" gives "red blue green"
    and "1,000/day" gives "1000day". Full stops that no digit follows go, the first 32 of them (the published code
    passes a flag where the count belongs).
    """
    delete_all = _COMMA_IN_NUMBER.search(answer) is not None
    out = answer
    for mark in _PUNCTUATION:
        touches_space = f"{mark} " in answer or f" {mark}" in answer
        out = out.replace(mark, "" if delete_all or touches_space else " ")
    return _PERIOD.sub("", out, count=32)


def normalise_words(answer: str) -> str:
    """Lower-case; number words up to ten become digits; a, an, the go; contractions get their apostrophe back."""
    words = (_NUMBER_WORDS.get(word, word) for word in answer.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def normalise_answer(answer: str) -> str:
    """All three steps: what both sides go through before they are compared."""
    return normalise_words(normalise_punctuation(clean_spaces(answer)))


def vqa_accuracy(prediction: str, answers: Sequence[str], mode: Mode = "official") -> float:
    """Share of annotators' agreement that a prediction earns, 0..1.

    For each annotator in turn, count how many of the *others* gave the prediction, and score min(1, count / 3); the
    result is the mean. With ten annotators 1 match gives 0.3, 2 give 0.6, 3 give 0.9, 4 or more 1.0. Annotators are
    left out by position, so that equal answers do not all vanish.

    Args:
        prediction: the model's answer.
        answers: one answer for each annotator, at least one. With exactly one there is no other annotator to
            compare with: the score is 1.0 for an exact match after normalisation, 0.0 otherwise, in both modes.
        mode: "official" does as the published scorer: answers are normalised only if the annotators' answers are not
            all the same string, so that "Yes" does not match a unanimous "yes". "normalised", which most harnesses
            do, normalises always.

    Raises:
        ValueError: no answers, or an unknown mode.

    Source: Antol et al. 2015 (arXiv:1505.00468) and the scorer published at visualqa.org/evaluation.
    """
    if isinstance(answers, str) or not answers:
        raise ValueError(f"answers must be a list of at least one string, got {answers!r}")
    if mode not in ("official", "normalised"):
        raise ValueError(f"mode is {mode!r}; it must be 'official' or 'normalised'")
    if len(answers) == 1:
        return float(normalise_answer(prediction) == normalise_answer(answers[0]))
    given, truth = clean_spaces(prediction), [clean_spaces(answer) for answer in answers]
    if mode == "normalised" or len(set(truth)) > 1:
        given, truth = normalise_answer(given), [normalise_answer(answer) for answer in truth]
    matches = [answer == given for answer in truth]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


def textvqa_words(answer: str) -> str:
    """An answer as the scorer of TextVQA sees it before it normalises: lower case, no commas or question marks, and
    "'s" a word of its own."""
    return answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy as TextVQA is scored, 0..1: both sides are always normalised, unanimous answers too.

    Args:
        prediction, answers: as for :func:`vqa_accuracy`.

    Raises:
        ValueError: no answers.

    Source: Singh et al. 2019 (arXiv:1904.08920) and the evaluator published with MMF (M4C), which LLaVA and most
    harnesses take over: "Nokia" earns 1.0 against ten times "nokia", where the scorer of VQAv2 gives 0.
    """
    return vqa_accuracy(textvqa_words(prediction), [textvqa_words(answer) for answer in answers], "normalised")


def gqa_answer(prediction: str, mode: Mode = "official") -> str:
    """A prediction as GQA's scorer should see it: no spaces around it, no full stops at its end, in lower case; in
    normalised mode also without articles and punctuation."""
    bare = prediction.strip().rstrip(".").lower()
    return normalise_answer(bare) if mode == "normalised" else bare


def gqa_match(prediction: str, answer: str, mode: Mode = "official") -> bool:
    """GQA: both sides alike after :func:`gqa_answer`.

    Source: Hudson & Manning 2019 (arXiv:1902.09506) scores exact strings; the full stop is what models add.
    """
    return gqa_answer(prediction, mode) == gqa_answer(answer, mode)


def pope_answer(prediction: str, mode: Mode = "official") -> tuple[bool, bool]:
    """(says yes, is parsable) of one POPE prediction.

    Official: the text before the first full stop, without commas, split on the plain space; "no" if any word is No,
    not or no, else "yes" - so that anything unheard-of counts as yes, and so does a no with a line break after it.
    Normalised: the same in lower case, split on any white space, with punctuation taken off the words.
    Parsable means that a yes or no word was really there.
    """
    first = prediction.split(".")[0].replace(",", "")
    if mode == "normalised":
        words = [word.strip(_PUNCTUATION + "'*:") for word in first.lower().split()]
    else:
        words = first.split(" ")
    if not {"No", "not", "no"}.isdisjoint(words):
        return False, True
    return True, "yes" in [word.lower() for word in words]


def pope_scores(predictions: Sequence[str], labels: Sequence[str], mode: Mode = "official") -> dict[str, float]:
    """Scores of one POPE split; "yes" (the object is there) is the positive class.

    Args:
        predictions: free text, one for each question.
        labels: "yes" or "no", one for each question.
        mode: how predictions are read, see :func:`pope_answer`.

    Returns:
        accuracy, precision, recall, f1 and yes_ratio (share of predictions that count as yes), each 0..1, and
        unparsable, the number of predictions with neither a yes nor a no word (they count as yes). A ratio whose
        denominator is zero is 0. The published figure is the mean of the f1 of the three splits.

    Raises:
        ValueError: no questions, lengths that differ, or a label other than "yes" and "no".

    Source: Li et al. 2023 (arXiv:2305.10355).
    """
    if len(predictions) != len(labels) or not labels:
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels; both must be equal and not zero")
    for i, label in enumerate(labels):
        if label not in ("yes", "no"):
            raise ValueError(f"label {i} is {label!r}; it must be 'yes' or 'no'")
    parsed = [pope_answer(prediction, mode) for prediction in predictions]
    said_yes = [yes for yes, _ in parsed]
    is_yes = [label == "yes" for label in labels]
    hits = sum(p and t for p, t in zip(said_yes, is_yes, strict=True))
    right = sum(p == t for p, t in zip(said_yes, is_yes, strict=True))
    precision = hits / sum(said_yes) if any(said_yes) else 0.0
    recall = hits / sum(is_yes) if any(is_yes) else 0.0
    return {
        "accuracy": right / len(labels),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "yes_ratio": sum(said_yes) / len(labels),
        "unparsable": float(sum(not parsable for _, parsable in parsed)),
    }
