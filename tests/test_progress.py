from __future__ import annotations

from pathlib import Path

import pytest

from astrea.progress import Reporter, TerminalReporter


def test_the_base_says_nothing(capsys: pytest.CaptureFixture[str]):
    with Reporter() as report:
        report.track("work", 1, 2, "note")
        report.say("hello")
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_each_label_begins_and_ends_once(capsys: pytest.CaptureFixture[str]):
    with TerminalReporter() as report:
        for done in range(1, 4):
            report.track("fuse", done, 3, f"loss {done}.0")
        report.track("tune", 1, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["fuse: 3 to do", "fuse: done  loss 3.0", "tune: 2 to do"]


def test_a_long_path_with_brackets_stays_whole(capsys: pytest.CaptureFixture[str]):
    path = Path("/runs") / ("[red]" + "long " * 60)
    TerminalReporter().say(f"go on in {path}")
    assert capsys.readouterr().err == f"go on in {path}\n"


def test_an_error_passes_through_and_the_bars_are_closed():
    report = TerminalReporter()
    with pytest.raises(ZeroDivisionError), report:
        report.track("work", 1 // 0, 2)
    assert not report.progress.live.is_started
