"""What others wrote (models, tokenizers, checkpoints, data files), shown in a terminal that must not obey it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text


def printable(text: str, keep: str = "") -> str:
    """The text with whatever is no printable character (by `str.isprintable`: control characters, which a terminal
    would obey, marks that turn the direction of writing, halves of characters) escaped as in ``repr``.

    Args:
        keep: characters that stay as they are all the same, such as the newlines of a message.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(number: int, what: str, several: str | None = None) -> str:
    """A number of things in words: "1 picture", "1,000 pictures"; ``several`` where the plural has not just an s."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"


class PlainConsole(Console):
    """A console that shows what it is given letter by letter: strings hold no markup and no emoji codes, and what is
    not printable is escaped, in tables and styled texts too. Newlines stay: `printable` is for what must be one line.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """As the base class has it. What could not be written is lost, not written later in front of something else."""
        try:
            super().print(*objects, **options)
        except OSError:
            with suppress(OSError):  # as the file tries again to write what it holds of it
                self.begin_capture()
                self.end_capture()
            raise

    def render_str(self, text: str, **options: Any) -> Text:
        """As the base class has it, but for markup and emoji codes."""
        # Before rich sees it: rich drops some control characters, and what was there should be seen.
        return super().render_str(printable(text, keep="\n\t"), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As the base class has it; only rich's own control codes (of progress bars) remain."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)
