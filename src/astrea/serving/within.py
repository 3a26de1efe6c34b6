"""What a server asks of its engine, and the engine in the server's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from astrea.serving.engine import Engine
from astrea.serving.errands import Errand, sent
from astrea.serving.features import Counts
from astrea.serving.job import Job
from astrea.serving.limits import Limits

READERS = 4
"""Threads that wait for readings."""


class Answering(Protocol):
    """An engine as the server sees it.

    Attributes:
        ends: the tokens that end answers.
    """

    model: Any
    processor: Any
    limits: Limits
    ends: frozenset[int]

    @property
    def alive(self) -> bool:
        """Whether it works."""

    @property
    def waiting(self) -> int:
        """How many requests have not begun to be read."""

    @property
    def running(self) -> int:
        """How many answers are being decoded."""

    @property
    def counts(self) -> Mapping[str, Counts]:
        """What every expert was run for."""

    async def opened(self) -> None:
        """Begin to work."""

    async def closed(self) -> None:
        """Finish what runs and what waits, then end."""

    def submit(self, job: Job) -> None:
        """Let a request be answered.

        Raises:
            ApiError: there is too much to do.
        """

    async def done(self, errand: Errand) -> Any:
        """What comes of an errand.

        Raises:
            AstreaError, ApiError: why nothing does.
        """


class EngineWithin(Engine):
    """An engine whose threads are the server's."""

    @property
    def counts(self) -> Mapping[str, Counts]:
        """What every expert was run for."""
        return self.features.counts

    async def opened(self) -> None:
        """Begin to work."""
        self._readers = ThreadPoolExecutor(READERS, "astrea-readings")
        await asyncio.to_thread(self.start)

    async def closed(self) -> None:
        """Finish what runs and what waits, then end."""
        await asyncio.to_thread(self.stop)
        self._readers.shutdown(wait=False)

    async def done(self, errand: Errand) -> Any:
        """What comes of an errand."""
        return await asyncio.wrap_future(sent(self, errand, self._readers))
