"""How often an answer's pieces are handed on."""

from __future__ import annotations

import time
from typing import Protocol

from astrea.serving.job import Finished, Piece

GAP = 0.003
"""Seconds between two events of an answer, for each answer that is being decoded: 32 of them get several tokens at a
time, ten times a second, and one alone gets each at once. Their text is decoded as often."""

Batch = list[Piece | Finished]
"""What is handed over together."""


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
        return not self._sent or time.monotonic() - self._sent >= GAP * self._engine.running

    def taken(self, piece: Piece | Finished) -> Batch | None:
        """What is to be handed on now that there is one more piece: all that is held with the first and the last of an
        answer, and when it is time; otherwise nothing."""
        self._held.append(piece)
        if isinstance(piece, Piece) and piece.finish is None and not self.due():
            return None
        held, self._held, self._sent = self._held, [], time.monotonic()
        return held
