"""An answer's text as its tokens come: pieces that will not change any more, cut at the first stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"
"""What the bytes of half a character are decoded as."""


class AnswerText:
    """The pieces of one answer; put together they are the whole answer without white space around it.

    Args:
        decode: from token ids to text. stops: texts at which the answer ends; they are no part of it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self.decode, self.stops = decode, tuple(stops)
        self.ids: list[int] = []
        self.said = ""
        self.stopped = False

    def push(self, token: int, *, due: bool = True) -> str:
        """One more token; the text that is certain now and was not said before.

        Args:
            due: whether anybody waits for it now. If not, it is said later, and there is nothing to decode now unless
                there are stop texts to look for.
        """
        self.ids.append(token)
        if not due and not self.stops:
            return ""
        text = self._cut(self.decode(self.ids))
        if self.stopped:
            return self._say(text.strip())
        certain = text.lstrip().rstrip(UNFINISHED)
        held = max((_overlap(certain, stop) for stop in self.stops), default=0)
        return self._say(certain[: len(certain) - held].rstrip())

    def finish(self) -> str:
        """What is left when no more tokens come."""
        return self._say(self._cut(self.decode(self.ids)).strip())

    def _cut(self, text: str) -> str:
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        self.stopped = bool(places)
        return text[: min(places)] if places else text

    def _say(self, text: str) -> str:
        # A decoder may join words in another way once it sees what follows; what was said stays said.
        new = text[len(self.said) :]
        self.said += new
        return new


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text could be the beginning of a stop text."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
