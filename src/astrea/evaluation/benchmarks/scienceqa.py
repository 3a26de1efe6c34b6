"""ScienceQA-IMG: multiple choice, the questions of the test split that have a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrea.evaluation.benchmarks.files import Entry, read_object
from astrea.evaluation.benchmarks.items import Item, Score, by_group, per_cent
from astrea.evaluation.metrics.vqa import Mode, normalise_answer

LETTERS = "ABCDE"
CHOOSE = "Answer with the option's letter from the given choices directly."

_SENTENCE = re.compile(r"The answer is ([A-Z]).")
_ANY_SENTENCE = re.compile(r"\banswer is:? \(?([a-z])\b", re.IGNORECASE)
_ALONE = re.compile(r"\(?([a-z])(?:[).:]+(?:\s|$)|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """The right option and all of them."""

    answer: int
    options: tuple[str, ...]


def read_scienceqa(files: Sequence[Path], pictures: Path, limit: int | None) -> list[Item]:
    """``problems.json`` and ``pid_splits.json``; pictures are ``<pid>/<image>`` in the folder of the split."""
    problems, splits = read_object(files[0]), read_object(files[1])
    items: list[Item] = []
    for pid in splits.texts(pictures.name):
        if limit is not None and len(items) == limit:
            break
        if pid not in problems.fields:
            raise splits.error(f"problem {pid!r} of split {pictures.name!r} is not in {files[0]}")
        entry = Entry(problems.fields[pid], problems.path, f"problem {pid!r}")
        if not entry.has("image"):
            continue
        question, options, answer = entry.text("question"), entry.texts("choices"), entry.whole("answer")
        if not 0 <= answer < len(options) <= len(LETTERS):
            raise entry.error(f"'answer' is {answer} with {len(options)} choices (at most {len(LETTERS)} are known)")
        hint = f"Context: {entry.text('hint')}\n" if entry.has("hint") and entry.text("hint") else ""
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
        picture = entry.picture(pictures, f"{pid}/{entry.text('image')}")
        group = entry.text("subject") if entry.has("subject") else ""
        items.append(
            Item(pid, picture, question, f"{hint}{question}\n{listed}\n{CHOOSE}", Choice(answer, options), group)
        )
    return items


def chosen(prediction: str, options: Sequence[str], mode: Mode = "official") -> int | None:
    """Which option a text picks; None if it is unclear, which counts as wrong.

    Official: a letter alone, a letter with ". " after it, or exactly one "The answer is X" with anything after it.
    Normalised: also in lower case, in brackets or with a bare full stop; or the words of exactly one option.

    Source: the evaluation published with LLaVA (arXiv:2304.08485), which most papers follow.
    """
    text = prediction.strip()
    letter = _official_letter(text)
    if letter is None and mode == "normalised":
        found = _ALONE.match(text) or _ANY_SENTENCE.search(text)
        letter = found.group(1).upper() if found else None
        if letter is None:
            same = [i for i, option in enumerate(options) if normalise_answer(option) == normalise_answer(text)]
            return same[0] if len(same) == 1 else None
    index = LETTERS.find(letter) if letter else -1
    return index if 0 <= index < len(options) else None


def _official_letter(text: str) -> str | None:
    if len(text) == 1 and text in LETTERS:
        return text
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    found = _SENTENCE.findall(text)
    return found[0] if len(found) == 1 else None


def score_scienceqa(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> Score:
    """Accuracy in per cent, also by subject; and how many answers named no option."""
    picked = [chosen(p, item.truth.options, mode) for item, p in zip(items, predictions, strict=True)]
    right = [float(pick == item.truth.answer) for item, pick in zip(items, picked, strict=True)]
    details = {"unparsable": picked.count(None), "groups": by_group((item.group for item in items), right)}
    return Score(per_cent(right), details)


def submit_scienceqa(items: Sequence[Item], predictions: Sequence[str], mode: Mode) -> dict[str, Any]:
    """``{"results": {pid: index}}``; -1 where no option was named."""
    picked = [chosen(p, item.truth.options, mode) for item, p in zip(items, predictions, strict=True)]
    return {"results": {item.id: -1 if pick is None else pick for item, pick in zip(items, picked, strict=True)}}
