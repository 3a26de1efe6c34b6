"""What long work tells the person who waits: a label, how far it is, how long it will take."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from astrea.terminal import PlainConsole, printable


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


class TerminalReporter(Reporter):
    """Progress bars with the time left, on standard error, so that standard output stays for results.

    Where standard error is no terminal (a log file), each label gets a line when it begins and when it ends.
    """

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

    def __enter__(self) -> TerminalReporter:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        label, note = printable(label), printable(note)  # here, as a bar's columns are as wide as what they are given
        if label not in self.tasks:
            self.tasks[label] = self.progress.add_task(label, total=total, note=note)
            if not self.console.is_terminal:
                self.console.print(f"{label}: {total} to do")
        self.progress.update(self.tasks[label], completed=done, total=total, note=note)
        if done >= total and not self.console.is_terminal:
            self.console.print(f"{label}: done  {note}")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
