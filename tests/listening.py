"""A reporter that remembers, for tests of what is said."""

from __future__ import annotations

from astrea.progress import Reporter


class Said(Reporter):
    """Keeps what is said and how far things were."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: list[int] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        self.done.append(done)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
