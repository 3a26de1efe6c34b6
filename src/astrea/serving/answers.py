"""Requests on their way through the engine: submitted, followed piece by piece, and given up when nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import torch

from astrea.model.explanation import answer_likelihood
from astrea.serving.engine import Engine
from astrea.serving.errors import ApiError
from astrea.serving.job import Finished, Job, Piece, Prompt
from astrea.serving.limits import Limits
from astrea.serving.prefill import padded, present_of
from astrea.serving.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a prompt is to be answered; see `Job`."""

    sampling: Sampling
    choices: int = 1
    most: int | None = None
    stops: tuple[str, ...] = ()


class Stream:
    """The answers to one prompt as they come."""

    def __init__(self, engine: Engine, prompt: Prompt, wanted: Wanted, deadline: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Finished] = asyncio.Queue()
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
        )
        engine.submit(self.job)

    def _take(self, piece: Piece | Finished) -> None:
        # In the engine's thread. A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """The pieces of all answers in the order in which they come. Whoever stops listening gives the request up.

        Raises:
            ApiError: it failed, or its time was over.
        """
        try:
            while isinstance(piece := await self._pieces.get(), Piece):
                yield piece
            if piece.error is not None:
                raise piece.error
        finally:
            self.job.cancel()

    async def all(self) -> list[Piece]:
        """Every piece, once all are there."""
        return [piece async for piece in self]


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


async def masking_effects(engine: Engine, job: Job) -> dict[str, Effect]:
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
    nats = await asyncio.wrap_future(engine.call(lambda: _likelihood(engine, [job.prompt, *prompts], tokens)))
    return {
        name: Effect("".join(piece.text for piece in pieces), nats[0] - lost)
        for name, pieces, lost in zip(names, said, nats[1:], strict=True)
    }


def _without(prompt: Prompt, expert: str) -> Prompt:
    return Prompt(prompt.ids, prompt.asked, prompt.pictures, prompt.without | {expert})


def _likelihood(engine: Engine, prompts: list[Prompt], tokens: list[int]) -> list[float]:
    """log p(answer) in nats for each of some prompts of one length. In the engine's thread."""
    rows = padded(prompts, engine.processor.tokenizer.pad_token_id or 0, engine.model.device)
    pictures = [picture for prompt in prompts for picture in prompt.pictures]
    none_skipped: list[tuple[str, ...]] = [()] * len(pictures)
    features = engine.features.of(pictures, none_skipped)
    present = present_of(prompts, none_skipped, engine.model.experts.names).to(engine.model.device)
    with torch.inference_mode():
        found = answer_likelihood(engine.model, rows, features, present, tokens)
    return [float(nats) for nats in found]


def deadline_of(limits: Limits) -> float:
    """Until when a request that comes now must be answered."""
    return time.monotonic() + limits.seconds
