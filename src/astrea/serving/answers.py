"""Requests on their way through the engine: submitted, followed piece by piece, and given up when nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

from astrea.serving.errands import Errand
from astrea.serving.errors import ApiError
from astrea.serving.job import Finished, Job, Piece, Prompt
from astrea.serving.limits import Limits
from astrea.serving.pace import Batch, Pace
from astrea.serving.sampling import Sampling
from astrea.serving.within import Answering


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a prompt is to be answered; see `Job`."""

    sampling: Sampling
    choices: int = 1
    most: int | None = None
    stops: tuple[str, ...] = ()


class Mailbox:
    """Brings pieces from the engine's thread to an event loop: those of one step, for all who wait, in one go, because
    to wake another thread costs both of them more than a piece does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # a strong one would keep it for ever, as this is kept by the loop
        self._sent: deque[tuple[asyncio.Queue[Batch], Batch]] = deque()
        self._due = False

    def send(self, target: asyncio.Queue[Batch], pieces: Batch) -> None:
        """Put pieces into a queue of the loop's. From any thread."""
        self._sent.append((target, pieces))
        if self._due:
            return
        self._due = True
        loop = self._loop()
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            if loop is not None:
                loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._due = False  # first, or what is sent from here on might wait for ever
        while self._sent:
            target, pieces = self._sent.popleft()
            target.put_nowait(pieces)


_MAILBOXES: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


class Stream:
    """The answers to one prompt as they come."""

    def __init__(self, engine: Answering, prompt: Prompt, wanted: Wanted, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        self._mailbox = _MAILBOXES.setdefault(loop, Mailbox(loop))
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()
        self._pace = Pace(engine)
        tokenizer, limits = engine.processor.tokenizer, engine.limits
        self.job = Job(
            prompt,
            wanted.sampling,
            choices=wanted.choices,
            most=min(wanted.most or limits.tokens, limits.tokens),
            stops=wanted.stops,
            deadline=deadline,
            decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
            emit=self._take,
            due=self._pace.due,
            emit_together=self._batches.put_nowait,
        )
        engine.submit(self.job)

    def _take(self, piece: Piece | Finished) -> None:
        """In the engine's thread: hand pieces on."""
        if (batch := self._pace.taken(piece)) is not None:
            self._mailbox.send(self._batches, batch)

    async def batches(self) -> AsyncIterator[list[Piece]]:
        """The pieces of all answers in the order in which they come, those that are there together in one list. Whoever
        stops listening gives the request up.

        Raises:
            ApiError: it failed, or its time was over.
        """
        try:
            while True:
                batch = await self._batches.get()
                end = batch[-1]
                if pieces := [piece for piece in batch if isinstance(piece, Piece)]:
                    yield pieces
                if isinstance(end, Finished):
                    if end.error is not None:
                        raise end.error
                    return
        finally:
            self.job.cancel()

    async def all(self) -> list[Piece]:
        """Every piece, once all are there."""
        return [piece async for batch in self.batches() for piece in batch]


async def unless_gone(work: Awaitable[Any], receive: Callable[[], Awaitable[Any]]) -> Any:
    """The result of some work, which is given up when the client goes.

    Args:
        receive: of the request, whose body has been read.

    Raises:
        ApiError: it has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "the client has gone", code="client_closed_request")
    finally:
        for one in (task, gone):
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await one


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True)
class Effect:
    """What is answered without one expert, and how many nats less likely the given answer then is."""

    answer: str
    nats_lost: float


async def masking_effects(engine: Answering, job: Job) -> dict[str, Effect]:
    """What masking each expert does to a request's first answer.

    Raises:
        ApiError: it takes too long, or there is too much to do.
    """
    names = [name for name in engine.model.experts.names if name not in job.prompt.without]
    if not job.prompt.pictures or len(names) < 2:
        return {}
    tokens = job.answers[0].tokens
    prompts = [_without(job.prompt, name) for name in names]
    wanted = Wanted(Sampling(), most=job.most)
    streams = [Stream(engine, prompt, wanted, job.deadline) for prompt in prompts]
    said = await asyncio.gather(*(stream.all() for stream in streams))
    nats = await engine.done(Errand("likelihoods", prompts=(job.prompt, *prompts), tokens=tuple(tokens)))
    return {
        name: Effect("".join(piece.text for piece in pieces), nats[0] - lost)
        for name, pieces, lost in zip(names, said, nats[1:], strict=True)
    }


def _without(prompt: Prompt, expert: str) -> Prompt:
    return Prompt(prompt.ids, prompt.asked, prompt.pictures, prompt.without | {expert})


def deadline_of(limits: Limits) -> float:
    """Until when a request that comes now must be answered."""
    return time.monotonic() + limits.seconds
