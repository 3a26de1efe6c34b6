"""The command line in tests: a command's result, what a refusal looks like, and a plugin that `conftest.py` loads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from astrea import cli

EXPERTS = ["captioning", "classification", "segmentation", "detection"]
QUESTION = "how many suns are there?"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Astrea = Callable[..., Result]


def refused(result: Result, *said: object) -> None:
    """Status 1, nothing on standard output, and one error with its hint."""
    assert result.code == 1
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if not line.startswith("Writing model")]
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert len([line for line in lines if line.startswith("  -> ")]) == 1
    for words in said:
        assert str(words) in result.err


@pytest.fixture
def astrea(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Astrea:
    """Runs a command in this process, through the entry point; anything but an exit status would be a traceback."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["astrea", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Result(int(ended.value.code or 0), out, err)

    return run
