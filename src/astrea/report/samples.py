"""The cards of test pictures: which there are, and the buttons that choose among them without scripts."""

from __future__ import annotations

from collections.abc import Sequence

from astrea.report.interval import wilson
from astrea.report.load import RunFiles, Sample
from astrea.report.spreadsheet import csv_address

VERDICTS = {None: "none", True: "right", False: "wrong"}
"""Whether an answer is right -> the class of its card."""


def kinds(samples: Sequence[Sample]) -> list[str]:
    """The kinds of questions of these samples; a card's class has the number of its kind."""
    return list(dict.fromkeys(sample.task for sample in samples))


def verdicts(samples: Sequence[Sample]) -> dict[str, str]:
    """The verdicts that these samples have -> what the button says."""
    texts = {"right": "right", "wrong": "wrong", "none": "not judged"}
    present = {VERDICTS[sample.right] for sample in samples}
    return {"all": "all answers"} | {name: text for name, text in texts.items() if name in present}


def sample_experts(files: RunFiles) -> list[str]:
    """Every expert that the results or a sample name, in the order of their colours."""
    named = (name for sample in files.samples or [] for name in sample.shares)
    return list(dict.fromkeys([*files.results.expert_names(), *named]))


def right_of(samples: Sequence[Sample]) -> tuple[int, int, float, float] | None:
    """How many are right, of how many that were judged, and the 95 % interval of that share; None where none was."""
    judged = [sample.right for sample in samples if sample.right is not None]
    if not judged:
        return None
    return sum(judged), len(judged), *wilson(sum(judged) / len(judged), len(judged))


def samples_csv(samples: Sequence[Sample], experts: Sequence[str]) -> str:
    """Questions, answers and shares for a spreadsheet."""
    heads = ("number", "task", "condition", "question", "answer", "truth", "right", *(f"share {e}" for e in experts))
    rows = [
        (
            *(number, sample.task, sample.condition, sample.question, sample.answer, sample.truth),
            None if sample.right is None else int(sample.right),
            *(sample.shares.get(name) for name in experts),
        )
        for number, sample in enumerate(samples, start=1)
    ]
    return csv_address(heads, rows)
