"""Telling of bad records: each once, the first few one by one, then numbers."""

from __future__ import annotations

import pytest

from astrea.data.readers import warnings as complaints
from astrea.data.readers.issues import Issue
from astrea.data.readers.record import Where
from astrea.data.readers.trainable import NO_PAIR
from astrea.data.readers.warnings import SHOWN, RateLimitedWarnings


def issue(number: int, kind: str = "image_missing") -> Issue:
    return Issue(Where("train.jsonl", number), f"id-{number}", kind, "it does not exist", "correct the path")


def told(issues: list[Issue]) -> list[str]:
    lines: list[str] = []
    complain = RateLimitedWarnings(lines.append)
    for one in issues:
        complain(one)
    return lines


def test_each_is_told_once() -> None:
    lines = told([issue(number) for number in (3, 7, 3, 3, 7)])
    assert lines == [
        "left out: train.jsonl:3 id-3: it does not exist; correct the path",
        "left out: train.jsonl:7 id-7: it does not exist; correct the path",
    ]


def test_of_many_the_number_is_told() -> None:
    lines = told([issue(number) for _ in range(2) for number in range(1, 2501)])
    assert [line.split(":")[0] for line in lines[:SHOWN]] == ["left out"] * SHOWN
    assert lines[SHOWN:] == [
        "left out: more bad records; see all of them with `astrea validate`",
        "left out so far: 100 bad records",
        "left out so far: 1,000 bad records",
    ]


def test_a_record_without_a_picture_is_no_complaint() -> None:
    assert told([issue(1, NO_PAIR)]) == []


def test_no_more_are_remembered_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complaints, "COUNTED", 50)
    lines = told([issue(number) for number in range(1, 1000)])
    assert lines[-1] == "left out so far: 50 bad records; more are not counted"
    assert len(lines) == SHOWN + 2
