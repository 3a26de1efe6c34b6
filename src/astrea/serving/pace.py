"""How often an answer's pieces are handed on."""

from __future__ import annotations

import time
from typing import Protocol

from astrea.serving.job import Finished, Piece

FIRST, MORE, LONGEST = 0.003, 0.006, 0.1
"""Seconds between two events of an answer: while it is decoded alone, more for each other that is decoded with it, and
at most. An event costs the server more than a token does. Text is decoded as often."""

Batch = list[Piece | Finished]
"""What is handed over together."""


def gap(running: int) -> float:
    """Seconds between two events of each of so many answers."""
    return min(FIRST + MORE * max(0, running - 1), LONGEST)


class Running(Protocol):
    """Whatever knows how many answers are being decoded."""

    @property
    def running(self) -> int:
        """How many."""


class Pace:
    """Holds pieces of one request's answers back until it is time for the next event."""

    def __init__(self, engine: Running) -> None:
        self._engine = engine
        self._held: Batch = []
        self._sent = 0.0

    def due(self) -> bool:
        """Whether it is time for another event."""
        return not self._sent or time.monotonic() - self._sent >= gap(self._engine.running)

    def taken(self, piece: Piece | Finished) -> Batch | None:
        """What is to be handed on now that there is one more piece: all that is held with the first and the last of an
        answer, and when it is time; otherwise nothing."""
        self._held.append(piece)
        if isinstance(piece, Piece) and piece.finish is None and not self.due():
            return None
        held, self._held, self._sent = self._held, [], time.monotonic()
        return held
