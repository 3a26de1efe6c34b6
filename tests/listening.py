"""A reporter that remembers, for tests of what is said."""

from __future__ import annotations

from astrea.common.progress import Reporter


class Said(Reporter):
    """Keeps what is said, how far things were and what was noted of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: list[int] = []
        self.notes: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        self.done.append(done)
        self.notes.append(note)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
