"""What the tests of the command line share: a command's result, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

EXPERTS = ["captioning", "classification", "segmentation", "detection"]
QUESTION = "how many suns are there?"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Astrea = Callable[..., Result]


def refused(result: Result, *said: object) -> None:
    """Status 1, nothing on standard output, and one error with its mend."""
    assert result.code == 1
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if not line.startswith("Writing model")]
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert len([line for line in lines if line.startswith("  -> ")]) == 1
    for words in said:
        assert str(words) in result.err
