"""What long work tells the person who waits: a label, how far it is, how long it will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from astrea.common.memory import peak_text
from astrea.common.terminal import PlainConsole, printable

ProgressCallback = Callable[[str, int, int], None]
"""Called with a label, how many steps are done, and of how many; as `Reporter.track`."""

FIRST, EVERY = 10.0, 60.0
"""Seconds until work tells of itself for the first time, and between two lines, where there is no terminal."""


class Reporter:
    """Says nothing; the base of those that do. Pass ``reporter.track`` wherever a progress callback is wanted."""

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` steps of ``label`` are done."""

    def say(self, text: str) -> None:
        """A line worth keeping."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


SILENT = Reporter()
"""The default of every ``report`` argument."""


class TerminalReporter(Reporter):
    """Progress on standard error, so that standard output stays for results: bars with the time left or, where that is
    no terminal (a log file), lines: when a label begins and ends, and every minute in between."""

    def __init__(self) -> None:
        self.console = PlainConsole(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.lines = ProgressLines(self.say)

    def __enter__(self) -> TerminalReporter:
        self.progress.start()
        if not self.console.is_terminal:
            self.lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.stop()
        self.progress.stop()

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        label, note = printable(label), printable(note)  # here, as a bar's columns are as wide as what they are given
        if not self.console.is_terminal:
            self.lines.track(label, done, total, note)
            return
        if label not in self.tasks:
            self.tasks[label] = self.progress.add_task(label, total=total, note=note)
        self.progress.update(self.tasks[label], completed=done, total=total, note=note)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


@dataclass
class Work:
    """A label that is not done yet. ``first``: how much was done when it began; times in seconds of the clock."""

    label: str
    began: float
    first: int
    done: int
    total: int
    note: str
    printed: float


class ProgressLines:
    """Progress as lines of text, also while a single step takes longer than a minute: a thread sees to that.

    Args:
        say: prints a line.
        clock: seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.say, self.clock = say, clock
        self.work: dict[str, Work] = {}
        self.now: Work | None = None
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def start(self) -> None:
        """Tell of work every minute, until `stop`."""
        threading.Thread(target=self._keep_telling, name="progress", daemon=True).start()

    def stop(self) -> None:
        """Tell nothing more."""
        self.ended.set()

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        """As `Reporter.track`."""
        now = self.clock()
        with self.lock:
            work = self.work.pop(label, None)
            new = work is None
            work = work or Work(label, now, done, done, total, note, now - EVERY + FIRST)
            work.done, work.total, work.note = done, total, note
            self.now = work if done < total else None
            if self.now is not None:
                self.work[label] = self.now
        if done >= total:
            took = now - work.began
            self.say(", ".join(filter(None, [f"{label}: done" + (f" in {span(took)}" if took >= 1 else ""), note])))
        elif new:
            self.say(f"{label} ..." if total == 1 else f"{label}: {total:,} to do")
        self.print_due()

    def print_due(self) -> None:
        """Print how far the work is that `track` was last told of, if that is due."""
        now = self.clock()
        with self.lock:
            work = self.now
            if work is None or now - work.printed < EVERY:
                return
            work.printed = now
            words = [f"{work.label}: {work.done:,} of {work.total:,}", work.note]
            if work.done > work.first:
                left = (now - work.began) / (work.done - work.first) * (work.total - work.done)
                words.append(f"{span(left)} left")
            else:
                words.append(f"{span(now - work.began)} so far")
        self.say(", ".join(filter(None, [*words, peak_text()])))

    def _keep_telling(self) -> None:
        while not self.ended.wait(FIRST):
            self.print_due()


def span(seconds: float) -> str:
    """A time in words, such as "40 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
