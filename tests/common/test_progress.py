from __future__ import annotations

import threading
from pathlib import Path

import pytest

from astrea.common.memory import peak_bytes, peak_text
from astrea.common.progress import EVERY, FIRST, ProgressLines, Reporter, TerminalReporter, span


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
    assert said.err.splitlines() == ["fuse: 3 to do", "fuse: done, loss 3.0", "tune: 2 to do"]


class Lines(ProgressLines):
    """With a clock of its own, and what it says."""

    def __init__(self) -> None:
        self.now_is, self.said = 0.0, list[str]()
        super().__init__(self.said.append, lambda: self.now_is)

    def at(self, seconds: float) -> list[str]:
        """What is said by itself when so much time has passed."""
        self.now_is, before = seconds, len(self.said)
        self.print_due()
        return self.said[before:]


def test_lines_come_soon_and_then_every_minute(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("astrea.common.progress.peak_text", lambda: "peak 1.2 GB")
    lines = Lines()
    assert lines.at(5) == []  # nothing is being done
    lines.track("tune", 1, 400, "loss 9.1")
    assert lines.said == ["tune: 400 to do"]
    assert lines.at(5 + FIRST - 1) == []
    assert lines.at(5 + FIRST) == ["tune: 1 of 400, loss 9.1, 10 s so far, peak 1.2 GB"]
    # A step takes two minutes: something is said all the same.
    assert lines.at(5 + FIRST + EVERY - 1) == []
    assert lines.at(5 + FIRST + EVERY) == ["tune: 1 of 400, loss 9.1, 70 s so far, peak 1.2 GB"]
    lines.now_is = 205
    lines.track("tune", 101, 400, "loss 2.5")
    assert lines.said[-1] == "tune: 101 of 400, loss 2.5, 10 min left, peak 1.2 GB"
    lines.track("tune", 102, 400, "loss 2.4")
    assert lines.said[-1].startswith("tune: 101")
    lines.now_is = 805
    lines.track("tune", 400, 400, "loss 1.0")
    assert lines.said[-1] == "tune: done in 13 min, loss 1.0"
    assert lines.at(10_000) == []


def test_a_run_that_goes_on_counts_its_own_steps_only():
    lines = Lines()
    lines.track("tune", 301, 400)
    lines.now_is = 100
    lines.track("tune", 351, 400)
    assert lines.said[-1].startswith("tune: 351 of 400, 2 min left")


def test_work_that_is_left_unfinished_is_not_told_of_when_other_work_is_done():
    lines = Lines()
    lines.track("estimating", 4, 5)
    lines.track("reading", 1, 1)
    assert lines.said == ["estimating: 5 to do", "reading: done"]
    assert lines.at(1000) == []


def test_a_thread_tells_while_a_step_takes_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("astrea.common.progress.FIRST", 0.01)
    monkeypatch.setattr("astrea.common.progress.EVERY", 0.01)
    told = threading.Event()
    report = TerminalReporter()
    monkeypatch.setattr(report.lines, "say", lambda line: told.set() if "1 of 2" in line else None)
    with report:
        report.track("loading", 1, 2)
        assert told.wait(60)
    assert report.lines.ended.is_set()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5340, "89 min"), (11_100, "3 h 05 min")]
)
def test_times_in_words(seconds: float, said: str):
    assert span(seconds) == said


def test_memory_is_told_where_it_is_known(monkeypatch: pytest.MonkeyPatch):
    assert (peak_bytes() or 0) > 10_000_000
    monkeypatch.setattr("astrea.common.memory.peak_bytes", lambda: 1_234_567_890)
    monkeypatch.setattr("astrea.common.memory.peak_gpu_bytes", lambda: 14_000_000_000)
    assert peak_text() == "peak 1.2 GB, GPU 14.0 GB"
    monkeypatch.setattr("astrea.common.memory.peak_bytes", lambda: None)
    monkeypatch.setattr("astrea.common.memory.peak_gpu_bytes", lambda: 0)
    assert peak_text() == ""


def test_a_long_path_with_brackets_stays_whole(capsys: pytest.CaptureFixture[str]):
    path = Path("/runs") / ("[red]" + "long " * 60)
    TerminalReporter().say(f"go on in {path}")
    assert capsys.readouterr().err == f"go on in {path}\n"


def test_an_error_passes_through_and_the_bars_are_closed():
    report = TerminalReporter()
    with pytest.raises(ZeroDivisionError), report:
        report.track("work", 1 // 0, 2)
    assert not report.progress.live.is_started
